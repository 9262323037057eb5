"""From rows to the summary: a number a (dataset, model, stage, method, metric, protocol); protocols stay apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from gradcam_bench.analysis.reductions import REDUCTIONS, Cell
from gradcam_bench.cells import Rows

KEYS = ["dataset", "model", "stage", "method", "metric", "protocol"]
COLUMNS = [*KEYS, "n", "value", "ci_low", "ci_high", "higher_is_better"]


def summarize(rows: Rows, cards: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> pd.DataFrame:
    """The summary table, COLUMNS. n: units scored (rows without a problem; the draws of a case count once). cards:
    metric -> protocol id -> what is behind it: `axes`, `reduce`, `higher_is_better`. Intervals are empty: no statistics
    are computed here."""
    records = []
    scored = rows.frame[rows.frame["problem"].isna()]
    for key, group in scored.groupby(KEYS, sort=False, observed=True):
        named = {name: str(value) for name, value in zip(KEYS, key, strict=True)}
        card = cards[named["metric"]][named["protocol"]]
        group = over_draws(rows.with_curves(group))
        value = REDUCTIONS[card["reduce"]](cell_of(group, card["axes"]), np.ones(len(group)))
        records.append(named | {"n": len(group), "value": value, "higher_is_better": card["higher_is_better"]})
    table = pd.DataFrame(records, columns=COLUMNS)
    return table.astype({"ci_low": float, "ci_high": float})


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
