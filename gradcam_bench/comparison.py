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

from gradcam_bench.analysis.bootstrap import clopper_pearson
from gradcam_bench.analysis.paired import difference
from gradcam_bench.analysis.summary import cell_of, over_draws
from gradcam_bench.cells import Rows, lost
from gradcam_bench.choices import View
from gradcam_bench.experiments import Cell, PaperRun, Quantity
from gradcam_bench.fidelity import reason
from gradcam_bench.plan import view_id

COLUMNS = ["quantity", "published", "source", "confidence", "ours", "ci_low", "ci_high", "verdict"]
FURTHER = ["difference", "unit", "tolerance", "n", "protocol", "network", "data", "run", "id", "cell"]
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
    """A finished run. changed: by quantity, what the user made otherwise (`fidelity.departures`). missing: why it
    could not be done, if it could not; then there is no folder."""

    folder: Path
    run: PaperRun
    changed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    vouched: bool = False
    missing: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        if self.missing:
            return {}
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
        "network": facts.get("model", ""),
        "data": facts.get("dataset", ""),
        "run": mine.folder.name,
    }


def _claimed(one: Quantity) -> str:
    """What a claim says of the number shown: of a difference between two cells, that it lies above or below 0."""
    bound = 0.0 if isinstance(one.bound, Cell) else one.bound
    return f"{'>' if one.above else '<'} {bound:g}"


def verdict(one: Quantity, ours: tuple[float, float, float], mine: Done, facts: Mapping[str, Any], found: Ours) -> str:
    """`agrees`, `differs`, or why it cannot be judged; the rule is in the module's docstring."""
    if mine.missing:
        return f"cannot be judged: not run ({mine.missing.partition(';')[0]})"
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
    if done[one.cell.run].missing:
        return Ours()
    if not isinstance(one.bound, Cell):
        return _number(one.cell, done[one.cell.run])
    if one.bound.run not in done or done[one.bound.run].missing:
        return Ours(why=f"run {one.bound.run} is not done")
    return _gap(one.cell, one.bound, done)


def _number(cell: Cell, mine: Done) -> Ours:
    """The cell's line of the run's summary."""
    facts = mine.facts
    if cell.metric in CLASSIFIER:
        return _classifier(cell, facts)
    summary = _of_cell(pd.read_csv(mine.folder / "summary.csv"), cell, facts)
    if not len(summary):
        return Ours(why=_unscored(cell, mine))
    line = {str(key): value for key, value in summary.iloc[0].items()}
    value, low, high = (float(line[name]) for name in ("value", "ci_low", "ci_high"))
    return Ours(value, low, high, int(line["n"]), str(line["protocol"]))


def _unscored(cell: Cell, mine: Done) -> str:
    """Why nothing of a cell was scored: the method was refused, or what its cases lacked."""
    facts, path = mine.facts, mine.folder / "rows.parquet"
    who = f"{cell.method}, {cell.metric}, run {cell.run}"
    refused = facts.get("refused", {}).get(cell.method)
    if refused:
        return f"{who}: {refused}"
    why = lost(_of_cell(Rows.open(path).frame, cell, facts)) if path.is_file() else ""
    if facts["skipped"] and not why:
        why = f"{len(facts['skipped'])} images could not be used: {facts['skipped'][0]['reason']}"
    return f"{who}: {why or 'no image has a case'}"


def _of_cell(table: pd.DataFrame, cell: Cell, facts: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a table (summary or rows) that belong to a cell."""
    ids = [id for id, card in facts["protocols"].get(cell.metric, {}).items() if card["preset"] == cell.preset]
    mine = table[(table["method"] == cell.method) & (table["metric"] == cell.metric)]
    mine = mine[mine["protocol"].isin(ids[:1])]
    stages = [str(name) for name in mine["stage"].dropna().unique()]
    first = [name for name in stages if name.partition("/")[0] == stages[0].partition("/")[0]]
    if len(stages) < 2 or (cell.stage == "trained" and "trained" not in stages):
        return mine
    place = min(int(cell.stage), len(first)) - 1 if cell.stage.isdecimal() else -1
    return mine[mine["stage"].astype(str) == ("trained" if cell.stage == "trained" else first[place])]


def _classifier(cell: Cell, facts: Mapping[str, Any]) -> Ours:
    """A classifier's error over the images, under the view of the cell's preset."""
    cards = [card for ids in facts["protocols"].values() for card in ids.values() if card["preset"] == cell.preset]
    views = {view_id(View(**card["view"])) for card in cards}
    entries = [entry for entry in facts.get("accuracy") or [] if entry["view"] in views]
    if not entries:
        return Ours(why="no classifier took part")
    images = int(entries[0]["images"])
    wrong = round(images * (1 - float(entries[0][CLASSIFIER[cell.metric]])))
    low, high = clopper_pearson(wrong, images)
    return Ours(wrong / images, low, high, images, "classifier")


def _gap(a: Cell, b: Cell, done: Mapping[str, Done]) -> Ours:
    """How much cell a lies above cell b, image by image."""
    found = []
    for cell in (a, b):
        facts = done[cell.run].facts
        rows = Rows.open(done[cell.run].folder / "rows.parquet")
        mine = _of_cell(rows.frame[rows.frame["problem"].isna()], cell, facts)
        if not len(mine):
            return Ours(why=_unscored(cell, done[cell.run]))
        protocol = str(mine["protocol"].iloc[0])
        card = facts["protocols"][cell.metric][protocol]
        found.append((cell_of(over_draws(rows.with_curves(mine)), card["axes"]), card["reduce"], protocol))
    gap = difference(found[0][0], found[1][0], found[0][1], permutations=100)
    return Ours(gap.difference, gap.low, gap.high, gap.n, found[0][2])
