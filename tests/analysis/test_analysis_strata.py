"""Numbers of kinds of cases, by hand."""

import numpy as np
import pandas as pd
import pytest

from gradcam_bench.analysis.strata import strata
from gradcam_bench.cells import Rows


def row(case, value, curve=None, metric="hits", view="v", problem=None):
    named = {"image_id": case.split("#")[0], "case_id": case, "dataset": "d", "model": "m", "stage": "trained"}
    named |= {"method": "cam", "metric": metric, "protocol": "p", "view": view, "problem": problem}
    return named | {"value": value, "curve": None if curve is None else np.float32(curve)}


CASES = pd.DataFrame(
    [
        ("a#0", "v", "small", "cat"), ("a#1", "v", "large", "dog"), ("b#0", "v", "small", "cat"),
        ("c#0", "v", None, "cat"), ("a#0", "w", "large", "cat"),
    ],
    columns=["case_id", "view", "size", "class_name"],
)  # fmt: skip
CARDS = {
    "hits": {"p": {"axes": {}, "reduce": "mean", "higher_is_better": True}},
    "boxes": {"p": {"axes": {"iou_threshold": (0.5,)}, "reduce": "mean_of_max", "higher_is_better": True}},
}


def test_numbers_by_size_and_class() -> None:
    rows = [row("a#0", 1.0), row("a#1", 0.0), row("b#0", 0.0), row("c#0", 1.0), row("b#1", None, problem="no box")]
    rows += [row(c, None, u, "boxes") for c, u in (("a#0", [0.9, 0.1]), ("b#0", [0.1, 0.9]), ("a#1", [0.9, 0.1]))]
    found = strata(Rows.of(pd.DataFrame(rows)), CARDS, CASES)
    sizes = found["size"].set_index(["metric", "size"])[["n", "value"]]
    assert sizes.loc[("hits", "small")].tolist() == [2, 0.5]
    assert sizes.loc[("hits", "large")].tolist() == [1, 0]
    assert sizes.loc[("boxes", "small")].tolist() == [2, 0.5]  # the best threshold of that stratum
    assert sizes.loc[("boxes", "large")].tolist() == [1, 1]
    assert len(sizes) == 4
    classes = found["class_name"].set_index(["metric", "class_name"])[["n", "value"]]
    assert classes.loc[("hits", "cat")].tolist() == [3, pytest.approx(2 / 3)]
    assert classes.loc[("hits", "dog")].tolist() == [1, 0]


def test_a_case_is_looked_up_under_its_own_view() -> None:
    found = strata(Rows.of(pd.DataFrame([row("a#0", 1.0, view="w")])), CARDS, CASES)
    assert found["size"]["size"].tolist() == ["large"]


def test_nothing_scored_gives_empty_tables() -> None:
    found = strata(Rows.of(pd.DataFrame([row("a#0", None, problem="no box")])), CARDS, CASES)
    assert [len(table) for table in found.values()] == [0, 0]
    assert list(found["size"].columns)[-4:] == ["size", "n", "value", "higher_is_better"]
