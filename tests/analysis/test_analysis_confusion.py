"""Classifier against place, counted by hand; and that the counts are those of the localization errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gradcam_bench.analysis.confusion import COUNTS, confusion
from gradcam_bench.cells import Rows

ERROR = {"p": {"reduce": "mean", "higher_is_better": False, "axes": {"iou_threshold": [0.5]}}}
BOXES = {"q": {"reduce": "mean_of_max", "higher_is_better": True, "axes": {"iou_threshold": [0.3, 0.5]}}}
SHARE = {"p": {"reduce": "mean", "higher_is_better": True, "axes": {}}}
RANKS = [0, 0, 0, 2, 1, None]  # of the case's class among the answers; the last is of a class that the network lacks
WRONG = [0, 1, 0, 0, 1, 0]


def rows(metric: str, protocol: str, values, curves=None) -> pd.DataFrame:
    frame = pd.DataFrame({"case_id": [f"i{n}#1" for n in range(6)], "value": values})
    frame["image_id"], frame["curve"] = [f"i{n}" for n in range(6)], curves
    named = {"dataset": "d", "model": "m", "stage": "trained", "method": "cam", "view": "v", "draw": 0, "problem": None}
    return frame.assign(metric=metric, protocol=protocol, **named)


@pytest.fixture
def cases() -> pd.DataFrame:
    frame = pd.DataFrame({"case_id": [f"i{n}#1" for n in range(6)], "rank": RANKS})
    return frame.assign(view="v", target="gt")


def test_by_hand(cases: pd.DataFrame) -> None:
    errors = Rows.of(rows("localization_error_gt_known", "p", WRONG))
    (line,) = confusion(errors, {"localization_error_gt_known": ERROR}, cases).to_dict("records")
    assert [line[name] for name in COUNTS] == [2, 1, 1, 1]
    assert line["rule"] == "a box of IoU 0.5 or more"


def test_curves_are_read_at_the_level_that_suits_the_data(cases: pd.DataFrame) -> None:
    curves = [np.array([0.6, 0.2, 0.5], np.float32)] * 3 + [np.array([0.0, 0.4, 0.5], np.float32)] * 3
    found = confusion(Rows.of(rows("max_box_acc", "q", [np.nan] * 6, curves)), {"max_box_acc": BOXES}, cases)
    assert found[COUNTS].to_numpy().tolist() == [[3, 0, 2, 0]]  # at the last level all reach 0.5
    assert "best threshold" in found["rule"][0]


def test_what_says_nothing_of_a_case_is_left_out(cases: pd.DataFrame) -> None:
    table = Rows.of(rows("energy_pointing_game", "p", [0.5] * 6))
    assert confusion(table, {"energy_pointing_game": SHARE}, cases).empty
    errors = Rows.of(rows("localization_error_gt_known", "p", WRONG))
    cards = {"localization_error_gt_known": ERROR}
    assert confusion(errors, cards, cases.assign(rank=None)).empty  # no classifier
    assert confusion(errors, cards, cases.assign(target="predicted")).empty  # whose class is its own first answer
