"""Published numbers beside ours, and a verdict on each.

The verdict is `agrees`, `differs`, or `cannot be judged: why`. It is not judged where our run is not the paper's (see
`fidelity`), where the data are a part of the paper's, or where the published number is from memory. Else a number
agrees that differs by no more than the tolerance its experiment states; where that states none, one that differs by no
more than the paper's rounding, or that lies within our 95 % interval widened by that rounding. For data that a paper
drew at random and did not name, our draw and theirs differ by chance, and the interval is the measure; on the same data
it is a generous one. A claim (`above`, `below`) agrees where the whole interval lies on its side, differs where the
whole of it lies on the other, and is not judged where the interval holds both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from gradcam_bench.analysis.bootstrap import clopper_pearson
from gradcam_bench.analysis.paired import difference
from gradcam_bench.analysis.summary import cell_of, over_draws
from gradcam_bench.cells import Rows
from gradcam_bench.experiments import Cell, PaperRun, Quantity
from gradcam_bench.fidelity import reason

COLUMNS = ["quantity", "published", "source", "confidence", "ours", "ci_low", "ci_high", "verdict"]
FURTHER = ["difference", "unit", "tolerance", "n", "protocol", "run", "id", "cell"]
CLASSIFIER = {"classification_error_top1": "top1", "classification_error_top5": "top5"}  # read off the cases
NOTHING = float("nan")


@dataclass(frozen=True)
class Ours:
    """A number of ours in the run's own unit (shares in [0, 1]), with its 95 % interval and what is behind it."""

    value: float = NOTHING
    low: float = NOTHING
    high: float = NOTHING
    n: int = 0
    protocol: str = ""
    why: str = ""


@dataclass(frozen=True)
class Done:
    """A finished run. changed: by quantity, what the user made otherwise (`fidelity.departures`)."""

    folder: Path
    run: PaperRun
    changed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    vouched: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "run.json").read_text(encoding="utf-8")))


def compare(quantities: Sequence[Quantity], done: Mapping[str, Done]) -> pd.DataFrame:
    """COLUMNS and FURTHER, a line a quantity whose runs are done; numbers in the paper's unit."""
    return pd.DataFrame([_line(one, done) for one in quantities], columns=[*COLUMNS, *FURTHER])


def _line(one: Quantity, done: Mapping[str, Done]) -> dict[str, Any]:
    mine = done[one.cell.run]
    facts, found = mine.facts, _ours(one, done)
    row = one.published
    scale, unit = (row.scale, row.unit) if row else (1.0, "")
    value, low, high = (scale * number for number in (found.value, found.low, found.high))
    if one.complement:
        value, low, high = scale - value, scale - high, scale - low
    asked = _claimed(one) if row is None else row.value
    number = row.number if row else None
    return {
        "quantity": one.name,
        "published": asked,
        "source": row.source if row else one.claim[1],
        "confidence": row.confidence if row else "claim",
        "ours": value,
        "ci_low": low,
        "ci_high": high,
        "verdict": verdict(one, (value, low, high), mine, facts, found),
        "id": row.id if row else "",
        "cell": str(one.cell),
        "unit": unit,
        "difference": value - number if number is not None else NOTHING,
        "tolerance": one.tolerance if one.tolerance is not None else (row.rounding if row else NOTHING),
        "n": found.n,
        "protocol": found.protocol,
        "run": mine.folder.name,
    }


def _claimed(one: Quantity) -> str:
    """What a claim says of the number shown: of a difference between two cells, that it lies above or below 0."""
    bound = 0.0 if isinstance(one.bound, Cell) else one.bound
    return f"{'>' if one.above else '<'} {bound:g}"


def verdict(
    one: Quantity, ours: tuple[float, float, float], mine: Done, facts: Mapping[str, Any], found: Ours
) -> str:
    """`agrees`, `differs`, or why it cannot be judged; the rule is in the module's docstring."""
    if math.isnan(ours[0]):
        return f"cannot be judged: nothing was scored{f' ({found.why})' if found.why else ''}"
    why = reason(mine.run, one, mine.changed.get(one.identity, {}), facts, mine.vouched)
    if why:
        return f"cannot be judged: {why}"
    if one.cases is not None and found.n != one.cases:
        return f"cannot be judged: {found.n} of {one.cases} cases were scored"
    if one.published is None:
        return _of_claim(one, ours)
    if one.published.confidence == "remembered":
        return "cannot be judged: the published number is from memory"
    if one.published.number is None:
        return "cannot be judged: no plain number is published"
    return "agrees" if _close(one, one.published.number, ours) else "differs"


def _close(one: Quantity, number: float, ours: tuple[float, float, float]) -> bool:
    value, low, high = ours
    slack = 1e-9
    if one.tolerance is not None:
        return abs(value - number) <= one.tolerance + slack
    rounding = one.published.rounding if one.published else 0.0
    return abs(value - number) <= rounding + slack or low - rounding <= number <= high + rounding


def _of_claim(one: Quantity, ours: tuple[float, float, float]) -> str:
    bound = 0.0 if isinstance(one.bound, Cell) else float(one.bound or 0.0)
    _, low, high = ours
    if math.isnan(low):
        return "cannot be judged: too few images for an interval"
    if low > bound or high < bound:
        return "agrees" if (low > bound) == one.above else "differs"
    return f"cannot be judged: the interval holds {bound:g}"


def _ours(one: Quantity, done: Mapping[str, Done]) -> Ours:
    if not isinstance(one.bound, Cell):
        return _number(one.cell, done[one.cell.run].folder)
    if one.bound.run not in done:
        return Ours(why=f"run {one.bound.run} is not done")
    return _gap(one.cell, one.bound, done)


def _number(cell: Cell, folder: Path) -> Ours:
    """The cell's line of the run's summary."""
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if cell.metric in CLASSIFIER:
        return _classifier(cell, facts)
    summary = pd.read_csv(folder / "summary.csv")
    ids = _protocols(cell, facts)
    mine = summary[(summary["method"] == cell.method) & (summary["metric"] == cell.metric)]
    mine = mine[mine["protocol"].isin(ids)]
    stage = _stage(cell, list(dict.fromkeys(mine.get("stage", pd.Series(dtype=str)).dropna())))
    mine = mine[mine["stage"] == stage] if stage else mine
    if not len(mine):
        return Ours(why=facts.get("refused", {}).get(cell.method, ""))
    line = mine.iloc[0]
    return Ours(
        *(float(line[name]) for name in ("value", "ci_low", "ci_high")), int(line["n"]), str(line["protocol"])
    )


def _classifier(cell: Cell, facts: Mapping[str, Any]) -> Ours:
    """A classifier's error over the images, under the view of the preset (the first, where several are looked at)."""
    entries = facts.get("accuracy") or []
    if not entries:
        return Ours(why="no classifier took part")
    images = int(entries[0]["images"])
    wrong = round(images * (1 - float(entries[0][CLASSIFIER[cell.metric]])))
    low, high = clopper_pearson(wrong, images, 0.95)
    return Ours(wrong / images, low, high, images, "classifier")


def _protocols(cell: Cell, facts: Mapping[str, Any]) -> list[str]:
    return [id for id, card in facts["protocols"].get(cell.metric, {}).items() if card["preset"] == cell.preset]


def _stage(cell: Cell, stages: Sequence[str]) -> str | None:
    """The stage of the run that the cell means; None where the summary names none."""
    if not stages or cell.stage == "trained":
        return "trained" if "trained" in stages else None
    first = stages[0].partition("/")[0]
    return [stage for stage in stages if stage.partition("/")[0] == first][-1]


def _gap(a: Cell, b: Cell, done: Mapping[str, Done]) -> Ours:
    """How much cell a lies above cell b, image by image."""
    cells, reduces, protocol = [], [], ""
    for cell in (a, b):
        folder = done[cell.run].folder
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        rows = Rows.open(folder / "rows.parquet")
        ids = _protocols(cell, facts)
        frame = rows.frame[rows.frame["problem"].isna()]
        mine = frame[(frame["method"] == cell.method) & (frame["metric"] == cell.metric)]
        mine = mine[mine["protocol"].isin(ids)]
        stage = _stage(cell, [str(name) for name in mine["stage"].unique()])
        mine = mine[mine["stage"] == stage] if stage else mine
        if not len(mine):
            return Ours(why=facts.get("refused", {}).get(cell.method, f"{cell.method} in {folder.name}"))
        protocol = str(mine["protocol"].iloc[0])
        card = facts["protocols"][cell.metric][protocol]
        mine = mine[mine["protocol"] == protocol]
        cells.append(cell_of(over_draws(rows.with_curves(mine)), card["axes"]))
        reduces.append(card["reduce"])
    gap = difference(cells[0], cells[1], reduces[0], permutations=100)
    return Ours(gap.difference, gap.low, gap.high, gap.n, protocol)
