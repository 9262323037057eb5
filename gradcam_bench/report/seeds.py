"""Seeds on the page: mean IoU over the background's level, and the IoU of each class at the protocol's own level."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gradcam_bench.analysis.reductions import Cell, ious, mean_iou, pooled
from gradcam_bench.analysis.summary import cell_of
from gradcam_bench.cells import Rows
from gradcam_bench.report.curves import Floats, Setting, scored

KEYS = ["dataset", "model", "stage", "metric", "protocol"]
MISSING = "–"


@dataclass(frozen=True)
class Sweep:
    """Mean IoU [T] in [0, 1] of each method over the background levels [T]."""

    setting: Setting
    metric: str
    protocol: str
    levels: Floats
    methods: Mapping[str, Floats]


@dataclass(frozen=True)
class Classes:
    """IoU of each class, background first, by each method: cells are percent as printed, `best` marks a line's best."""

    setting: Setting
    protocol: str
    methods: tuple[str, ...]
    lines: tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]


def sweeps(rows: Rows, protocols: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[Sweep]:
    """The mean IoU at all levels of each (setting, metric, protocol) that tries several."""
    for setting, metric, protocol, axes, part in _cells(rows, protocols, "background_levels"):
        found = {method: mean_iou(_pooled(cell)) for method, cell in _by_method(rows, part, axes)}
        levels = np.array(sorted(set(axes["background_levels"])))
        yield Sweep(setting, metric, protocol, levels, found)


def classes(
    rows: Rows, protocols: Mapping[str, Mapping[str, Mapping[str, Any]]], cases: pd.DataFrame, methods: Collection[str]
) -> Iterator[Classes]:
    """The IoU of every class under each protocol with a fixed level that the mean IoU was scored by."""
    for setting, metric, protocol, axes, part in _cells(rows, protocols, "background"):
        if metric != "seed_miou":
            continue
        names = dict(zip(cases["class_index"].astype(str), cases["class_name"].astype(str), strict=True))
        found: dict[str, dict[str, float]] = {}
        for method, cell in _by_method(rows, part, axes):
            labels = ["", *np.unique(cell.classes)]
            found[method] = dict(zip(labels, ious(_pooled(cell))[:, 0].tolist(), strict=True))
        order = [method for method in methods if method in found]
        labels = sorted({label for one in found.values() for label in one}, key=lambda label: int(label or -1))
        lines = [(names.get(label, label) if label else "background", _line(label, order, found)) for label in labels]
        yield Classes(setting, protocol, tuple(order), tuple(lines))


def _line(label: str, order: Collection[str], found: Mapping[str, Mapping[str, float]]) -> tuple[tuple[str, bool], ...]:
    shares = [found[method].get(label, float("nan")) for method in order]
    printed = [MISSING if np.isnan(share) else f"{100 * share:.1f}" for share in shares]
    top = f"{100 * np.nanmax(shares):.1f}" if not np.isnan(shares).all() else None
    differ = len(set(printed) - {MISSING}) > 1
    return tuple((text, differ and text == top) for text in printed)


def _cells(
    rows: Rows, protocols: Mapping[str, Mapping[str, Mapping[str, Any]]], axis: str
) -> Iterator[tuple[Setting, str, str, Mapping[str, Any], pd.DataFrame]]:
    """The scored rows of each (setting, metric, protocol) that reads an axis."""
    for key, part in scored(rows.frame).groupby(KEYS, sort=False, observed=True, dropna=False):
        dataset, model, stage, metric, protocol = (str(name) for name in key)
        axes = protocols.get(metric, {}).get(protocol, {}).get("axes", {})
        if axis in axes and len(part):
            yield Setting(dataset, model, stage), metric, protocol, axes, part


def _by_method(rows: Rows, part: pd.DataFrame, axes: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    for method, mine in part.groupby("method", sort=False, observed=True):
        yield str(method), cell_of(rows.with_curves(mine), axes)


def _pooled(cell: Cell) -> Floats:
    return pooled(cell)(np.ones((len(cell.classes), 1)))[..., 0]
