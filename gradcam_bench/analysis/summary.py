"""From rows to the summary: a number a (dataset, model, stage, method, metric, protocol); protocols stay apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from gradcam_bench.analysis.bootstrap import intervals
from gradcam_bench.analysis.reductions import Cell, number
from gradcam_bench.cells import Rows

KEYS = ["dataset", "model", "stage", "method", "metric", "protocol"]
COLUMNS = [*KEYS, "n", "value", "ci_low", "ci_high", "higher_is_better"]
Key = tuple[str, ...]


def summarize(rows: Rows, cards: Mapping[str, Mapping[str, Mapping[str, Any]]], resamples: int = 2000) -> pd.DataFrame:
    """The summary table, COLUMNS. n: units scored (rows without a problem). cards: metric -> protocol id -> what is
    behind it: `axes`, `reduce`, `higher_is_better`. ci_low, ci_high: the 95 % interval, see `bootstrap.intervals`."""
    records: dict[Key, dict[str, Any]] = {}
    for group in _groups(rows, cards):
        between = intervals({key: (cell, card["reduce"]) for key, (cell, card) in group.items()}, resamples)
        for key, (cell, card) in group.items():
            low, high = between[key]
            records[key] = dict(zip(KEYS, key, strict=True)) | {
                "n": len(cell.images),
                "value": number(cell, card["reduce"]),
                "ci_low": low,
                "ci_high": high,
                "higher_is_better": card["higher_is_better"],
            }
    order = [_names(key) for key, _ in _scored(rows).groupby(KEYS, sort=False, observed=True)]
    table = pd.DataFrame([records[key] for key in order], columns=COLUMNS)
    return table.astype({"ci_low": float, "ci_high": float})


def _groups(
    rows: Rows, cards: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> Iterator[dict[Key, tuple[Cell, Mapping[str, Any]]]]:
    """The cells of one metric and protocol at a time, all methods together: they share the draws of their images, and
    the curves of so many fit into memory."""
    for (metric, protocol), group in _scored(rows).groupby(["metric", "protocol"], sort=False, observed=True):
        card = cards[str(metric)][str(protocol)]
        yield {
            _names(key): (cell_of(rows.with_curves(mine), card["axes"]), card)
            for key, mine in group.groupby(KEYS, sort=False, observed=True)
        }


def _scored(rows: Rows) -> pd.DataFrame:
    return rows.frame[rows.frame["problem"].isna()]


def _names(key: Any) -> Key:
    return tuple(str(value) for value in key)


def cell_of(group: pd.DataFrame, axes: Mapping[str, Any]) -> Cell:
    """The scored rows of one cell as arrays; the class of a case is what follows the last # of its id."""
    curves = group["curve"]
    stacked = None if curves.isna().any() else np.stack(curves.to_list()).astype(np.float32)
    return Cell(
        group["value"].to_numpy(dtype=np.float64, na_value=np.nan),
        stacked,
        group["case_id"].astype(str).str.rsplit("#", n=1).str[-1].to_numpy(),
        group["image_id"].to_numpy(),
        axes,
    )
