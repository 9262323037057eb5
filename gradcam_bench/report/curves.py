"""The stored curves: the best IoU of a case at each threshold, read as accuracies, the best level and IoUs there; and
the network's answers as pixels go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradcam_bench.cells import Rows

Floats = NDArray[np.floating[Any]]
COUNTED = ("ratio", "ap_pooled")  # reductions of curves that hold counts, not what is reached at each level


class Setting(NamedTuple):
    """What two numbers must share to stand in one table: the data and the model that was asked."""

    dataset: str
    model: str
    stage: str


@dataclass(frozen=True)
class Curves:
    """The curves of one metric under one protocol. methods: what reads curves [n,T] float32 in [0, 1] (best IoUs, or
    answers) of each method's cases, one method's at a time, as together they may be too large for the memory."""

    setting: Setting
    metric: str
    protocol: str
    axes: Mapping[str, Any]
    methods: Mapping[str, Callable[[], Floats]]


def thresholds(axes: Mapping[str, Any]) -> Floats:
    """The thresholds [T] that a curve's levels stand for, as fractions of the map's maximum."""
    if axes.get("quantize") == "percent":
        return np.arange(100) / 100
    return np.arange(256) / 255


def accuracy(curves: Floats, demanded: float) -> Floats:
    """The share [T] of cases whose best IoU reaches `demanded`; float32 against float32, as in the reductions."""
    return (curves >= np.float32(demanded)).mean(0)


def oracle_level(curves: Floats, demanded: float = 0.5) -> int:
    """The level at which most cases reach `demanded`: the lowest of equals."""
    return int(accuracy(curves, demanded).argmax())


def exceedance(values: Floats) -> tuple[Floats, Floats]:
    """(x [m], share of values >= x [m]) for x on a grid of 0.01 over [0, 1]."""
    x = np.arange(101) / 100
    ordered = np.sort(values.astype(np.float32))
    below = np.searchsorted(ordered, x.astype(np.float32), side="left")
    return x, 1 - below / max(len(ordered), 1)


def scored(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without a problem."""
    return rows[rows["problem"].isna()]


def stack(rows: pd.DataFrame, length: int | None = None) -> Floats:
    """The curves [n,T] float32 of rows that all have one, cut to `length` levels."""
    return np.stack([np.asarray(curve, dtype=np.float32)[:length] for curve in rows["curve"]])


def box_curves(rows: Rows, protocols: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[Curves]:
    """The curves of each (setting, metric, protocol) whose protocol says which IoU it demands, in the rows' order."""
    return _curves(rows, protocols, "iou_threshold", lambda axes: len(thresholds(axes)))


def answer_curves(rows: Rows, protocols: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[Curves]:
    """The curves of each (setting, metric, protocol) of the network's answers, in [0, 1], as pixels go step by step."""
    found = _curves(rows, protocols, "perturb_steps", lambda axes: int(axes["perturb_steps"]) + 1)
    return (one for one in found if one.axes["answer"] != "logit")


def _curves(
    rows: Rows,
    protocols: Mapping[str, Mapping[str, Mapping[str, Any]]],
    axis: str,
    length_of: Callable[[Mapping[str, Any]], int],
) -> Iterator[Curves]:
    """Those of each (setting, metric, protocol) that reads the axis."""
    keys = ["dataset", "model", "stage", "metric", "protocol"]
    for key, part in scored(rows.frame).groupby(keys, sort=False, observed=True, dropna=False):
        dataset, model, stage, metric, protocol = (str(name) for name in key)
        card = protocols.get(metric, {}).get(protocol, {})
        axes = card.get("axes", {})
        if axis not in axes or card.get("reduce") in COUNTED:
            continue
        length = length_of(axes)
        methods = {
            str(method): partial(_read, rows, mine, length)
            for method, mine in part.groupby("method", sort=False, observed=True)
            if _has_curves(rows, mine)
        }
        if methods:
            yield Curves(Setting(dataset, model, stage), metric, protocol, axes, methods)


def _has_curves(rows: Rows, mine: pd.DataFrame) -> bool:
    return bool(rows.with_curves(mine.head(1))["curve"].notna().all())


def _read(rows: Rows, mine: pd.DataFrame, length: int) -> Floats:
    whole = rows.with_curves(mine)
    return stack(whole[whole["curve"].notna()], length)
