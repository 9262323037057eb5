"""From rows to the summary table: one number a cell, and no cell mixes protocols, methods or models."""

import numpy as np
import pandas as pd
import pytest

from gradcam_bench.analysis.accuracy import classifiers
from gradcam_bench.analysis.summary import COLUMNS, summarize
from gradcam_bench.catalogue import metric, spec
from gradcam_bench.cells import Rows


def card(label: str, **axes) -> dict:
    one = metric(label, spec("metric", label))
    return {"axes": axes, "reduce": one.reduce, "higher_is_better": one.higher_is_better}


CARDS = {
    "pointing_game": {"default": card("pointing_game"), "custom-1": card("pointing_game")},
    "energy_pointing_game": {"default": card("energy_pointing_game")},
    "localization_error_top1": {"default": card("localization_error_top1")},
    "max_box_acc": {
        "v1": card("max_box_acc", iou_threshold=(0.5,)),
        "v2": card("max_box_acc", iou_threshold=(0.3, 0.7)),
    },
}


def row(
    case_id: str, value, metric="pointing_game", protocol="default", method="cam", curve=None, problem=None, **more
):
    return {
        "image_id": case_id.rpartition("#")[0],
        "case_id": case_id,
        "dataset": "voc",
        "model": "net",
        "stage": "trained",
        "draw": 0,
        "method": method,
        "metric": metric,
        "protocol": protocol,
        "value": value,
        "curve": curve,
        "problem": problem,
    } | more


def table(*rows) -> pd.DataFrame:
    return summarize(Rows.of(pd.DataFrame(rows)), CARDS)


def test_a_table_by_hand() -> None:
    found = table(
        row("a#1", 1.0),
        row("a#2", 0.0),
        row("b#1", 0.0),
        row("c#3", None, problem="difficult"),
        row("a#1", 0.25, "energy_pointing_game"),
        row("b#1", 0.75, "energy_pointing_game"),
        row("b#1", 1.0, "localization_error_top1"),
    )
    assert list(found.columns) == COLUMNS
    assert found["metric"].tolist() == ["pointing_game", "energy_pointing_game", "localization_error_top1"]
    assert found["value"].tolist() == [(0.5 + 0) / 2, 0.5, 1]  # the first is a mean over classes
    assert found["n"].tolist() == [3, 2, 1]
    assert found["higher_is_better"].tolist() == [True, True, False]
    # of two images one draw in four is a alone, one b alone; of one image nothing can be drawn
    assert found["ci_low"].tolist() == pytest.approx([0, 0.25, np.nan], nan_ok=True)
    assert found["ci_high"].tolist() == pytest.approx([0.5, 0.75, np.nan], nan_ok=True)


@pytest.mark.parametrize("column", ["dataset", "model", "stage", "method", "protocol"])
def test_what_differs_in_a_column_is_never_pooled(column: str) -> None:
    others = {"dataset": "coco", "model": "other", "stage": "down/1", "method": "grad_cam", "protocol": "custom-1"}
    found = table(row("a#1", 1.0), row("a#1", 0.0, **{column: others[column]}))
    assert found["value"].tolist() == [1, 0]
    assert found["n"].tolist() == [1, 1]


def test_curves_reduce_under_their_own_protocols_axes() -> None:
    curves = [np.float32([0.6, 0.2]), np.float32([0.4, 0.9])]
    rows = [
        row(f"{image}#0", None, "max_box_acc", protocol, curve=curve)
        for protocol in ("v1", "v2")
        for image, curve in zip("ab", curves)
    ]
    found = table(*rows).set_index("protocol")["value"]
    assert found["v1"] == 0.5
    assert found["v2"] == pytest.approx((1 + 0.5) / 2)  # level 0 at .3, level 1 at .7


def test_classes_are_what_follows_the_last_number_sign() -> None:
    found = table(row("a#b#1", 1.0), row("a#c#1", 0.0), row("a#b#2", 1.0))
    assert found["value"].tolist() == [0.75]


def test_a_cell_without_a_scored_unit_leaves_no_line() -> None:
    found = table(row("a#1", None, problem="no box"))
    assert len(found) == 0
    assert list(found.columns) == COLUMNS
    assert found["ci_low"].dtype == float


def test_accuracies_by_hand() -> None:
    columns = ["dataset", "model", "view", "image_id", "correct_top1", "correct_top5"]
    rows = [
        ("voc", "net", "x", "a", True, True),
        ("voc", "net", "x", "a", False, False),  # a second class of the same image: one of them is enough
        ("voc", "net", "x", "b", False, True),
        ("voc", "net", "x", "c", False, False),
        ("voc", "net", "y", "a", False, False),
        ("voc", "none", "x", "a", None, None),
    ]
    found = classifiers(pd.DataFrame(rows, columns=columns))
    assert found == [
        {
            "dataset": "voc",
            "model": "net",
            "view": "x",
            "images": 3,
            "top1": pytest.approx(1 / 3),
            "top5": pytest.approx(2 / 3),
        },
        {"dataset": "voc", "model": "net", "view": "y", "images": 1, "top1": 0, "top5": 0},
    ]
    assert classifiers(pd.DataFrame(rows[-1:], columns=columns)) == []
