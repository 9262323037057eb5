"""A paper's experiment: runs with the exact protocol, and the published numbers beside ours.

An experiment is a file conf/experiment/paper/<name>.yaml: `runs` (the overrides of one `gradcam-bench run` each, {root}
standing for dataset.root) and `quantities` (which cell of which run's summary stands beside which published number,
with its source, its confidence and the difference that still agrees).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gradcam_bench import catalogue
from gradcam_bench.commands import run
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.store import atomically
from gradcam_bench.terminal import say

COLUMNS = ["quantity", "published", "source", "confidence", "ours", "ci_low", "ci_high", "verdict"]
FURTHER = ["difference", "tolerance", "n", "protocol", "run"]
CONFIDENCE = ("verified", "secondary", "computed", "remembered")
Configure = Callable[[Sequence[str]], dict[str, Any]]


@dataclass(frozen=True)
class Quantity:
    """A published number, and where ours is: the cell (run, method, metric, preset) of a summary.

    published, tolerance: in `unit`s (percent). confidence: verified (seen with the authors), secondary (quoted by
    others), computed (from the published annotations, by the published rule), remembered (shown, judges nothing).
    n: how many cases the whole of the data has; fewer are not judged.
    """

    quantity: str
    run: str
    method: str
    metric: str
    preset: str
    published: float
    tolerance: float
    source: str
    confidence: str
    n: int


@dataclass(frozen=True)
class Experiment:
    name: str
    about: str
    needs: str
    runs: Mapping[str, tuple[str, ...]]
    quantities: tuple[Quantity, ...]


def names() -> list[str]:
    """The papers' experiments."""
    return [name.removeprefix("paper/") for name in catalogue.names("experiment") if name.startswith("paper/")]


def experiment(name: str) -> Experiment:
    """The experiment of that name, as its file says."""
    name = name.removeprefix("paper/")
    if name not in names():
        raise unknown("experiment", name, names())
    spec = catalogue.spec("experiment", f"paper/{name}")
    try:
        runs = {key: tuple(overrides) for key, overrides in spec["runs"].items()}
        quantities = tuple(Quantity(**entry) for entry in spec["quantities"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"experiment {name}: its YAML file is not as it should be ({error})") from None
    for one in quantities:
        for what, value, valid in (("run", one.run, runs), ("confidence", one.confidence, CONFIDENCE)):
            if value not in valid:
                raise unknown(f"{what} of '{one.quantity}' in experiment {name}", value, valid)
    return Experiment(
        name, catalogue.about("experiment", f"paper/{name}"), str(spec.get("needs", "")), runs, quantities
    )


def reproduce(
    name: str, overrides: Sequence[str], configure: Configure, only: str | None = None, force: bool = False
) -> int:
    """Runs an experiment (only: one of its runs) and writes <results>/<name>/reproduction.csv: COLUMNS, then FURTHER.

    overrides: the user's, for every run; dataset.root is where the experiment's data lie.
    """
    chosen = experiment(name)
    if only is not None and only not in chosen.runs:
        raise unknown(f"run of {name}", only, chosen.runs)
    configured = {key: configure(_overrides(chosen, key, overrides)) for key in chosen.runs if only in (None, key)}
    found: dict[str, Path] = {}
    for key, config in configured.items():
        say(f"{name}, {key} ({len(found) + 1} of {len(configured)})")
        folder = run(config | {"experiment": name}, force, f"-{key}")
        if folder is None:  # a rank of torchrun that does not report
            return 0
        found[key] = folder
    table = compare([one for one in chosen.quantities if one.run in found], found)
    path = Path(str(next(iter(configured.values()))["results"])).expanduser() / name / "reproduction.csv"
    if only is not None and path.is_file():  # the other runs' lines stay
        before = pd.read_csv(path)
        before = before[~before["quantity"].isin(table["quantity"])]
        table = pd.concat([table, before], ignore_index=True) if len(before) else table
    atomically(path, lambda file: table.to_csv(file, index=False))
    print(_text(table))
    print(f"table: {path}")
    return 0


def _overrides(chosen: Experiment, key: str, given: Sequence[str]) -> list[str]:
    """One run's overrides: the experiment's, then the user's, {root} filled in."""
    root = next((word.partition("=")[2] for word in reversed(given) if word.startswith("dataset.root=")), None)
    own = [word for word in given if not word.startswith("dataset.root=")]
    if root is None and any("{root}" in word for word in chosen.runs[key]):
        raise UserError(f"reproduce {chosen.name}: dataset.root=DIR is missing. {chosen.needs}")
    return [word.replace("{root}", str(Path(root or "").expanduser())) for word in chosen.runs[key]] + own


def compare(quantities: Sequence[Quantity], folders: Mapping[str, Path]) -> pd.DataFrame:
    """COLUMNS and FURTHER, a line a quantity, from the finished runs' summaries; numbers in percent."""
    lines = []
    for one in quantities:
        folder = folders[one.run]
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        summary = pd.read_csv(folder / "summary.csv")
        ids = [id for id, card in facts["protocols"].get(one.metric, {}).items() if card["preset"] == one.preset]
        mine = summary[(summary["method"] == one.method) & (summary["metric"] == one.metric)]
        mine = mine[mine["protocol"].isin(ids)]
        cell = {str(k): v for k, v in mine.iloc[0].items()} if len(mine) else {}
        ours = 100 * float(cell["value"]) if cell else float("nan")
        lines.append(
            {
                "quantity": one.quantity,
                "published": one.published,
                "source": one.source,
                "confidence": one.confidence,
                "ours": ours,
                "ci_low": 100 * cell.get("ci_low", float("nan")),
                "ci_high": 100 * cell.get("ci_high", float("nan")),
                "verdict": verdict(one, ours, facts, int(cell.get("n", 0))),
                "difference": ours - one.published,
                "tolerance": one.tolerance,
                "n": cell.get("n", 0),
                "protocol": cell.get("protocol", ""),
                "run": folder.name,
            }
        )
    return pd.DataFrame(lines, columns=[*COLUMNS, *FURTHER])


def verdict(one: Quantity, ours: float, facts: Mapping[str, Any], n: int) -> str:
    """`agrees`, `differs`, or why it cannot be judged."""
    if ours != ours:
        return "cannot be judged: nothing was scored"
    if facts["skipped"]:
        return f"cannot be judged: {len(facts['skipped'])} images could not be used"
    if n != one.n:
        return f"cannot be judged: a part of the data, {n} of {one.n} cases"
    if one.confidence == "remembered":
        return "cannot be judged: the published number is from memory"
    return "agrees" if abs(ours - one.published) <= one.tolerance else "differs"


def _text(table: pd.DataFrame) -> str:
    shown = table[["quantity", "published", "ours", "difference", "verdict"]]
    return shown.to_string(index=False, float_format=lambda value: f"{value:.2f}")
