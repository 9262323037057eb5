"""What there is to choose from, by name, with a line of description each."""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradcam_bench.errors import unknown
from gradcam_bench.labels import about, names, spec

LISTED = ("method", "metric", "dataset", "model", "preset", "recipe", "experiment", "data")


def listing(what: str, as_json: bool) -> int:
    """One name a line with its description, or a JSON list of objects."""
    group = what.removesuffix("s")
    if group not in LISTED:
        raise unknown("list", what, [name if name == "data" else f"{name}s" for name in LISTED])
    entries = [{"name": name, "about": about(group, name), **_more(group, name)} for name in names(group)]
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
    from gradcam_bench.catalogue import passes

    told = spec(group, name)
    asks = passes(_parameters(str(told["_target_"])))
    return {
        "paper": str(told.get("paper", "")),
        "year": told.get("year"),
        "passes": asks,
        "control": bool(told.get("control")),
    }


def _parameters(dotted: str) -> list[str]:
    """The names of a function's parameters, read off its source: importing it would take torch and seconds."""
    module, _, name = dotted.rpartition(".")
    source = Path(__file__).parent.parent.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    found = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name)
    return [argument.arg for argument in (*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs)]


def _published(entry: Mapping[str, Any]) -> str:
    """In brackets behind a method's line: paper (which ends in its year) and pass type."""
    found = [entry.get("paper"), entry.get("passes")]
    return f" [{'; '.join(part for part in found if part)}]" if any(found) else ""


def _first_sentence(about: str) -> str:
    """What fits a line of it; --json has all."""
    return textwrap.shorten(re.split(r"\.\s(?=[A-Z])|; ", about)[0], 110, placeholder=" ...")
