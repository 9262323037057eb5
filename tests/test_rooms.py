"""Who may import whom: a file imports from lower ranks or its own room; siblings in some rooms never."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gradcam_bench"
RANKS = {
    0: ("errors", "frozen", "geometry", "layouts", "ledger", "schemas", "terminal", "drawing", "machine"),
    1: (
        "arguments",
        "borrowed",
        "cases",
        "axes",
        "files",
        "labels",
        "resampling",
        "resume",
        "tape",
        "places",
        "similarity",
        "flags",
        "witness",
        "language",
        "targets",
    ),
    2: ("choices",),
    3: (
        "calls",
        "cells",
        "completion",
        "samples",
        "heatmaps",
        "probe",
        "rules",
        "terms",
    ),
    4: (
        "store",
        "analysis",
        "head",
        "ask",
        "attending",
        "building",
        "loading",
        "candidates",
        "reading",
        "relevance",
        "units",
    ),
    5: (
        "catalogue",
        "trial",
        "regions",
        "annotations",
        "attentions",
        "augment",
        "perturb",
        "pixels",
        "derivatives",
        "randomize",
    ),
    6: ("models", "datasets", "methods", "supplies", "questions", "seed_files"),
    7: ("metrics", "answers", "plan", "record", "twins", "published"),
    8: ("explain", "rows"),
    9: ("states", "witnesses", "attack", "rehearsal"),
    10: ("scoring",),
    11: ("staging",),
    12: ("pipeline", "setup", "replay", "report", "listing", "finished"),
    13: ("illustrate", "failures", "api", "provenance", "export_seeds", "rescore", "shift", "data", "runs"),
    14: ("overrides", "training", "baseline", "reporting"),
    15: ("commands",),
    16: ("experiments", "comparable", "compare", "diff", "multiverse"),
    17: ("gate", "fidelity"),
    18: ("comparison", "needs"),
    19: ("reproduce",),
    20: ("cli", "pytest_gate"),
    21: ("__init__", "__main__"),
}
RANK = {room: rank for rank, rooms in RANKS.items() for room in rooms}
STRANGERS = ("methods", "metrics", "datasets")  # rooms whose modules never import one another
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> list[str]:
    """Dotted names of all that a file imports, at its top or inside, `from . import x` resolved."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            here = ["gradcam_bench", *path.relative_to(PACKAGE).parts[: -node.level]] if node.level else []
            base = ".".join([*here, *filter(None, [node.module])])
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_from_lower_ranks_only(path: Path) -> None:
    mine = room(path)
    assert mine in RANK, f"{mine}: give the new room a rank"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] in ("hydra", "omegaconf"):
            assert mine == "overrides", f"only overrides.py knows Hydra: {name}"
        if parts[0] != "gradcam_bench":
            continue
        theirs = parts[1] if parts[1:2] and parts[1] in RANK else "__init__"
        if theirs == mine:
            assert mine not in STRANGERS, f"modules of {mine}/ do not import one another: {name}"
        else:
            assert RANK[theirs] < RANK[mine], f"{mine} (rank {RANK[mine]}) imports {name} (rank {RANK[theirs]})"


def test_every_ranked_room_is_there() -> None:
    assert set(RANK) == {room(path) for path in FILES}


def test_no_file_has_a_name_that_says_nothing() -> None:
    for path in FILES:
        assert not {"utils", "util", "helpers", "helper", "base", "manager", "common", "misc"} & set(
            path.relative_to(PACKAGE).with_suffix("").parts
        ), path
