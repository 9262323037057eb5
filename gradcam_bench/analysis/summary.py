"""From rows to the summary: a number a (dataset, model, stage, method, metric, protocol); protocols stay apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from gradcam_bench.analysis.bootstrap import intervals
from gradcam_bench.analysis.reductions import Cell, number
from gradcam_bench.cells import Rows

KEYS = ["dataset", "model", "stage", "method", "metric", "protocol"]
COLUMNS = [*KEYS, "n", "value", "ci_low", "ci_high", "higher_is_better", "resampled"]
RESAMPLED = {False: "images", True: "images within classes"}
Key = tuple[str, ...]
Cards = Mapping[str, Mapping[str, Mapping[str, Any]]]  # metric -> protocol id -> what is behind it


def summarize(rows: Rows, cards: Cards, resamples: int = 2000, stratified: bool = False) -> pd.DataFrame:
    """The summary table, COLUMNS. n: units scored (rows without a problem; the draws of a case count once). cards:
    metric -> protocol id -> what is behind it: `axes`, `reduce`, `higher_is_better`. ci_low, ci_high: 95 % interval,
    see `bootstrap.intervals`. stratified: images are drawn within each class; resampled says so."""
    records: dict[Key, dict[str, Any]] = {}
    for group in groups(rows, cards):
        named = {key: (cell, card["reduce"]) for key, (cell, card) in group.items()}
        between = intervals(named, resamples, stratified=stratified)
        for key, (cell, card) in group.items():
            low, high = between[key]
            records[key] = dict(zip(KEYS, key, strict=True)) | {
                "n": len(cell.images),
                "value": number(cell, card["reduce"]),
                "ci_low": low,
                "ci_high": high,
                "higher_is_better": card["higher_is_better"],
                "resampled": RESAMPLED[stratified],
            }
    order = [_names(key) for key, _ in _scored(rows).groupby(KEYS, sort=False, observed=True)]
    table = pd.DataFrame([records[key] for key in order], columns=COLUMNS)
    return table.astype({"ci_low": float, "ci_high": float})


def groups(rows: Rows, cards: Cards) -> Iterator[dict[Key, tuple[Cell, Mapping[str, Any]]]]:
    """The cells of one metric and protocol at a time, all methods together: they share the draws of their images, and
    the curves of so many fit into memory."""
    for (metric, protocol), group in _scored(rows).groupby(["metric", "protocol"], sort=False, observed=True):
        card = cards[str(metric)][str(protocol)]
        yield {
            _names(key): (cell_of(over_draws(rows.with_curves(mine)), card["axes"]), card)
            for key, mine in group.groupby(KEYS, sort=False, observed=True)
        }


def cells(
    rows: Rows, cards: Cards, wanted: Callable[[Mapping[str, Any]], bool] = lambda card: True
) -> Iterator[tuple[Key, Cell, Mapping[str, Any], pd.DataFrame]]:
    """One cell at a time of the metrics and protocols whose card is wanted: its names (KEYS), its scored units, its
    card, and the units' rows, without curves."""
    for key, group in _scored(rows).groupby(KEYS, sort=False, observed=True):
        names = _names(key)
        card = cards[names[KEYS.index("metric")]][names[KEYS.index("protocol")]]
        if wanted(card):
            yield names, cell_of(rows.with_curves(group), card["axes"]), card, group


def _scored(rows: Rows) -> pd.DataFrame:
    return rows.frame[rows.frame["problem"].isna()]


def _names(key: Any) -> Key:
    return tuple(str(value) for value in key)


def over_draws(group: pd.DataFrame) -> pd.DataFrame:
    """A cell's rows with the draws of random weights averaged within each case, so that a case counts once."""
    if len(group["draw"].unique()) < 2:
        return group
    cases = group.groupby(["image_id", "case_id"], sort=False, observed=True)
    averaged = cases.first()
    averaged["value"] = cases["value"].mean()
    if group["curve"].notna().all():
        averaged["curve"] = cases["curve"].agg(lambda curves: np.mean(np.stack(curves.to_list()), axis=0))
    return averaged.reset_index()


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
