"""What there is to choose from, by name, with a line of description each."""

from __future__ import annotations

import json
import re
import textwrap

from gradcam_bench import catalogue
from gradcam_bench.errors import unknown

LISTED = ("method", "metric", "dataset", "model", "preset", "experiment")


def listing(what: str, as_json: bool) -> int:
    """One name a line with its description, or a JSON list of objects."""
    group = what.removesuffix("s")
    if group not in LISTED:
        raise unknown("list", what, [f"{name}s" for name in LISTED])
    entries = [{"name": name, "about": catalogue.about(group, name)} for name in catalogue.names(group)]
    if as_json:
        print(json.dumps(entries, indent=1))
    else:
        width = max((len(entry["name"]) for entry in entries), default=0)
        print("\n".join(f"{entry['name']:{width}}  {_first_sentence(entry['about'])}" for entry in entries))
    return 0


def _first_sentence(about: str) -> str:
    """What fits a line of it; --json has all."""
    return textwrap.shorten(re.split(r"\.\s|; ", about)[0], 110, placeholder=" ...")
