"""Classifier right or wrong against place right or wrong, as tables: methods down, the four kinds of cases across."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from gradcam_bench.analysis.confusion import COUNTS
from gradcam_bench.report.table import MISSING

HEADS = {
    "both": "class right, place right",
    "class_alone": "class right, place wrong",
    "place_alone": "class wrong, place right",
    "neither": "class wrong, place wrong",
}


@dataclass(frozen=True)
class Line:
    """One method. counts, shares (in percent): of the four kinds, in the order of HEADS; given: percent localized where
    the class is right, and where it is wrong, as printed."""

    method: str
    counts: tuple[int, ...]
    shares: tuple[float, ...]
    given: tuple[str, str]


@dataclass(frozen=True)
class Confusion:
    """One metric under one protocol in one setting. rule: what `place right` means. n: cases of the first method."""

    title: str
    rule: str
    n: int
    lines: tuple[Line, ...]


def tables(found: pd.DataFrame, order: list[str]) -> list[Confusion]:
    """A table for each setting, metric and protocol of `analysis.confusion`, its methods in the given order."""
    made, place = [], {method: n for n, method in enumerate(order)}
    for key, part in found.groupby(["dataset", "model", "metric", "protocol"], sort=False):
        dataset, model, metric, protocol = map(str, key)
        rows = sorted(part.to_dict("records"), key=lambda row: place.get(str(row["method"]), len(place)))
        lines = tuple(_line(str(row["method"]), tuple(int(row[name]) for name in COUNTS)) for row in rows)
        title = f"{metric}, {protocol} ({dataset} · {model})"
        made.append(Confusion(title, str(part["rule"].iloc[0]), sum(lines[0].counts), lines))
    return made


def _line(method: str, counts: tuple[int, ...]) -> Line:
    both, class_alone, place_alone, neither = counts
    total = max(sum(counts), 1)
    given = _share(both, both + class_alone), _share(place_alone, place_alone + neither)
    return Line(method, counts, tuple(100 * count / total for count in counts), given)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else MISSING
