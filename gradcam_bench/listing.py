"""What there is to choose from, by name, with a line of description each."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from gradcam_bench import catalogue
from gradcam_bench.catalogue import names
from gradcam_bench.errors import unknown

LISTED = ("method", "metric", "dataset", "model", "preset", "recipe", "experiment")


def listing(what: str, as_json: bool) -> int:
    """One name a line with its description, or a JSON list of objects."""
    group = what.removesuffix("s")
    if group not in LISTED:
        raise unknown("list", what, [f"{name}s" for name in LISTED])
    entries = [{"name": name, "about": catalogue.about(group, name), **_more(group, name)} for name in names(group)]
    if as_json:
        print(json.dumps(entries, indent=1))
    else:
        width = max((len(entry["name"]) for entry in entries), default=0)
        for entry in entries:
            print(f"{entry['name']:{width}}  {_first_sentence(entry['about'])}{_published(entry)}")
    return 0


def _more(group: str, name: str) -> dict[str, Any]:
    """Of a method: the paper, its year, and what it asks of the network."""
    if group != "method":
        return {}
    made = catalogue.method(name, catalogue.spec(group, name))
    return {"paper": made.paper, "year": made.year, "passes": made.passes, "control": made.control}


def _published(entry: Mapping[str, Any]) -> str:
    """In brackets behind a method's line: paper (which ends in its year) and pass type."""
    found = [entry.get("paper"), entry.get("passes")]
    return f" [{'; '.join(part for part in found if part)}]" if any(found) else ""


def _first_sentence(about: str) -> str:
    """What fits a line of it; --json has all."""
    return textwrap.shorten(re.split(r"\.\s(?=[A-Z])|; ", about)[0], 110, placeholder=" ...")
