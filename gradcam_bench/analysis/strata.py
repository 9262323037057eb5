"""The summary's numbers again, for the cases of one kind: by the size of the object, by class, by kind of class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradcam_bench.analysis.reductions import Cell, number
from gradcam_bench.analysis.summary import KEYS, Cards, cells
from gradcam_bench.cells import Rows

# columns of cases.parquet
BY = {"size": "summary_by_size.csv", "class_name": "summary_by_class.csv", "kind": "summary_by_kind.csv"}


def strata(
    rows: Rows, cards: Cards, cases: pd.DataFrame, columns: Sequence[str] = tuple(BY)
) -> dict[str, pd.DataFrame]:
    """For each column of the cases a table (KEYS, that column, n, value, higher_is_better): the metric's own reduction
    of the scored units whose case has that value there, of the network as trained. Cases without one are left out (no
    box, no size); so are columns that no case has a value in."""
    columns = [name for name in columns if name in cases and cases[name].notna().any()]
    known = cases.drop_duplicates(["case_id", "view"]).set_index(["case_id", "view"])[list(columns)].astype(object)
    found: dict[str, list[dict[str, Any]]] = {column: [] for column in columns}
    for key, cell, card, units in cells(rows, cards):
        named = dict(zip(KEYS, key, strict=True))
        if named["stage"] != "trained":
            continue
        of_units = known.reindex(pd.MultiIndex.from_frame(units[["case_id", "view"]].astype(str)))
        for column in columns:
            values = of_units[column]
            for stratum in sorted(values.dropna().unique()):
                part = _part(cell, (values == stratum).to_numpy())
                counted = {column: stratum, "n": len(part.images), "value": number(part, card["reduce"])}
                found[column].append(named | counted | {"higher_is_better": card["higher_is_better"]})
    names = ["n", "value", "higher_is_better"]
    return {column: pd.DataFrame(lines, columns=[*KEYS, column, *names]) for column, lines in found.items()}


def _part(cell: Cell, chosen: NDArray[np.bool_]) -> Cell:
    curves = None if cell.curves is None else cell.curves[chosen]
    return Cell(cell.values[chosen], curves, cell.classes[chosen], cell.images[chosen], cell.axes)
