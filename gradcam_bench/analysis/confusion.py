"""Whether the classifier is right against whether the method points at the object: four kinds of cases.

A map may find the object of a class that the network does not see, and miss that of one it does. The top-1
localization error counts only the first of the four kinds as right, the error with known ground truth the two in which
the place is right (Russakovsky et al. 2015, sec. 4.2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradcam_bench.analysis.reductions import Cell
from gradcam_bench.analysis.summary import KEYS, Cards, cells
from gradcam_bench.cells import Rows

COUNTS = ["both", "class_alone", "place_alone", "neither"]
COLUMNS = [*KEYS, "rule", *COUNTS]
BOX, DEMANDED = "max_box_acc", 0.5
PLAIN = {  # value of a case that is localized, and what that means
    "localization_error_gt_known": (0, "a box of IoU {iou:g} or more"),
    "cor_loc": (1, "a box of IoU {iou:g} or more"),
    "pointing_game": (1, "the peak hits the object"),
}


def confusion(rows: Rows, cards: Cards, cases: pd.DataFrame) -> pd.DataFrame:
    """COLUMNS: how many cases are of the class that the network answers first (class right), and are localized (place
    right), by every metric that says so of each case: `both`, `class_alone`, `place_alone`, `neither`. rule: what
    localized means. Only cases of annotated classes count; empty where no classifier took part."""
    asked = cases[(cases["target"].astype(str) == "gt") & cases["rank"].notna()]
    known = asked.drop_duplicates(["case_id", "view"]).set_index(["case_id", "view"])["rank"] == 0
    lines = []
    for key, cell, card, units in cells(rows, cards):
        named = dict(zip(KEYS, key, strict=True))
        judged = localized(named["metric"], cell, card) if named["stage"] == "trained" and len(known) else None
        if judged is None:
            continue
        right = known.reindex(pd.MultiIndex.from_frame(units[["case_id", "view"]].astype(str)))
        there = right.notna().to_numpy()
        counts = _counts(right[there].to_numpy(dtype=bool), judged[0][there])
        if sum(counts):
            lines.append((*key, judged[1], *counts))
    return pd.DataFrame(lines, columns=COLUMNS)


def localized(metric: str, cell: Cell, card: Any) -> tuple[NDArray[np.bool_], str] | None:
    """Whether each unit is localized, and what that means: no error, a hit, or (of MaxBoxAcc's curves) an IoU of at
    least 0.5 at the threshold that suits these data best. None for a metric that does not say so of a case."""
    if metric in PLAIN and np.isin(cell.values, (0, 1)).all():
        value, words = PLAIN[metric]
        return cell.values == value, words.format(iou=float((card["axes"].get("iou_threshold") or [DEMANDED])[0]))
    if metric == BOX and cell.curves is not None:
        hits = cell.curves >= np.float32(DEMANDED)
        best = int(hits.mean(0).argmax())
        return hits[:, best], f"a box of IoU {DEMANDED:g} or more at each method's best threshold"
    return None


def _counts(right: NDArray[np.bool_], placed: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    return (
        int((right & placed).sum()),
        int((right & ~placed).sum()),
        int((~right & placed).sum()),
        int((~right & ~placed).sum()),
    )
