"""Which cases a gallery shows: a method's best, its worst and those in the middle, and those on which methods disagree
most, chosen by one metric's score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from gradcam_bench.cells import Rows
from gradcam_bench.report import curves

GROUPS = ("best", "median", "worst", "disagreed")


class Choice(NamedTuple):
    """A case, why it is shown (one of GROUPS), and its score."""

    case_id: str
    group: str
    score: float


def scores(rows: Rows, method: str, metric: str, protocol: str) -> tuple[pd.Series, int | None]:
    """The score of each case (float, indexed by case_id, sorted by it), and the level it was read at.

    A row's value where it has one (level None); else its curve at the level that is best for the whole of the data
    at IoU 0.5. Cases with a problem are left out; a case with several rows (draws) counts with their mean.
    """
    named = {"method": method, "metric": metric, "protocol": protocol}
    mine = curves.scored(rows.frame)
    for column, name in named.items():
        mine = mine[mine[column].astype(str) == name]
    mine = rows.with_curves(mine)
    mine = mine[mine["value"].notna() | mine["curve"].notna()]
    values, level = mine["value"].to_numpy(dtype=float, copy=True), None
    bare = np.isnan(values)
    if bare.any():
        read = curves.stack(mine[bare])
        level = curves.oracle_level(read)
        values[bare] = read[:, level]
    found = pd.Series(values, index=mine["case_id"].astype(str), dtype=float)
    return found.groupby(level=0).mean(), level


def choose(
    rows: Rows,
    method: str,
    metric: str,
    protocol: str,
    per_group: int = 6,
    higher_is_better: bool = True,
) -> list[Choice]:
    """Up to `per_group` cases of each group, no case twice: best first, then the middle ones, then worst first.

    Equal scores are ordered by case_id. Fewer than 3 * per_group cases are shared out evenly.
    """
    found = scores(rows, method, metric, protocol)[0]
    sign = -1.0 if higher_is_better else 1.0
    ranked = sorted(found.items(), key=lambda pair: (sign * pair[1], str(pair[0])))
    count = len(ranked)
    share = min(per_group, max(count // 3, 1))
    middle = (count - share) // 2
    parts = {
        "best": ranked[:share],
        "median": ranked[middle : middle + share] if count >= 3 else [],
        "worst": ranked[: -share - 1 : -1] if count >= 2 else [],
    }
    return [Choice(str(case), group, float(score)) for group in parts for case, score in parts[group]]


def disagreed(found: Mapping[str, pd.Series], count: int) -> list[Choice]:
    """The `count` cases on which methods' scores lie furthest apart: the largest standard deviation over the methods,
    of cases that all of them scored. found: each method's scores by case_id. Equal ones are ordered by case_id; cases
    on which all agree are not chosen."""
    if len(found) < 2:
        return []
    spread = pd.concat(found, axis=1, join="inner").std(axis=1, ddof=0)
    ranked = sorted(spread[spread > 0].items(), key=lambda pair: (-pair[1], str(pair[0])))
    return [Choice(str(case), "disagreed", float(apart)) for case, apart in ranked[:count]]
