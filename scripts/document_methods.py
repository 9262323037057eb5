"""Writes docs/methods.md from conf/method and the functions' docstrings: python scripts/document_methods.py"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradcam_bench import catalogue
from gradcam_bench.catalogue import PASSES, Method

OUT = Path(__file__).parent.parent / "docs" / "methods.md"
HEAD = """# Methods

Each is one function and one file in `conf/method/`; this page is made from them by `scripts/document_methods.py`.
*Asks* is what a method needs of the network; everything of one kind is shared by all methods of a run that need it.
A heatmap is what a method gives before the last step of its paper (*then*: `relu`, `abs` or none), which the protocol
axis `rectify` can replace. Several published definitions of one name are several labels. Controls know nothing of the
network. In formulas A [C,h,w] are the target layer's activations, G the gradient of the case's score S there, k runs
over channels, i and j over places, x is the image as it is fed.

Where the implementations of pytorch-grad-cam, torchcam and captum compute something else under the same name, the tests
in `tests/parity/` say which equation each of them computes.
"""


def function_of(method: Method) -> Callable[..., Any]:
    found = method.function
    return found.func if isinstance(found, functools.partial) else found


def first_line(method: Method) -> str:
    """The formula: the docstring's first paragraph."""
    text = inspect.getdoc(function_of(method)) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def section(title: str, methods: list[Method]) -> str:
    lines = [
        f"\n## {title[0].upper()}{title[1:]}\n",
        "| label | what | formula | paper | then |",
        "|---|---|---|---|---|",
    ]
    for method in methods:
        about = method.about.replace("|", "\\|")
        lines.append(f"| `{method.label}` | {about} | {first_line(method)} | {method.paper} | {method.rectify} |")
    return "\n".join(lines) + "\n"


def document() -> str:
    """The whole page."""
    methods = [catalogue.method(label, catalogue.spec("method", label)) for label in catalogue.names("method")]
    groups = {words: [m for m in methods if not m.control and m.passes == words] for words in reversed(PASSES.values())}
    groups["controls"] = [m for m in methods if m.control]
    return HEAD + "".join(section(title, found) for title, found in groups.items() if found)


if __name__ == "__main__":
    OUT.write_text(document(), encoding="utf-8")
    print(OUT)
