"""The verb `data`: prepare and check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gradcam_bench.data.sources import quoted
from gradcam_bench.errors import UserError, unknown

ROOTS = ("root=", "dataset.root=")


def data(
    action: str,
    name: str,
    overrides: Sequence[str],
    configure: Callable[[Sequence[str]], dict[str, Any]],
    root: str | None = None,
    parts: Sequence[str] = (),
    yes: bool = False,
    quick: bool = False,
    json: bool = False,
    out: str | None = None,
) -> int:
    """`data prepare NAME` or `data check NAME`; returns the exit code. A root may be given as --root, root= or
    dataset.root=."""
    if action not in ("prepare", "check"):
        raise unknown("data", action, ("prepare", "check"))
    words = [f"dataset.{word}" if word.startswith("root=") else word for word in overrides]
    if root:
        words.append(quoted("dataset.root", root))
    if action == "check":
        from gradcam_bench.data.check import check

        return check(name, words, configure, quick, json, out)
    from gradcam_bench.data.prepare import prepare

    for word in words:
        if not word.startswith("dataset.root="):
            raise UserError(f"data prepare takes a root alone (root=DIR); '{word}' is for `data check`")
    given = words[-1].partition("=")[2].strip("'\"") if words else None
    return prepare(name, given, parts, yes, configure)
