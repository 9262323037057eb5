"""Which cases are shown, worked out by hand in conftest: the oracle level of grad_cam is 50 (3 of 6 at IoU 0.5)."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gradcam_bench.cells import Rows
from gradcam_bench.report import pictures, thumbnails
from gradcam_bench.report.gallery import choose, disagreed, scores
from gradcam_bench.report.inputs import Inputs, Overlay
from tests.report.conftest import whole

BOX = ("max_box_acc", "wsol_2020_v2")
ERROR = ("localization_error_gt_known", "custom-1a2b3c4d")
POINT = ("pointing_game", "excitation_bp_2016")


def test_scores_are_read_at_the_oracle_level(inputs: Inputs) -> None:
    found, level = scores(inputs.rows, "grad_cam", *BOX)
    assert level == 50
    assert found.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.45, 0.2, 0.0])
    assert list(found.index) == ["i0#0", "i1#1", "i2#0", "i3#1", "i4#0", "i5#1"]
    assert scores(inputs.rows, "layer_cam", *BOX)[1] == 0


def test_best_median_worst(inputs: Inputs) -> None:
    chosen = choose(inputs.rows, "grad_cam", *BOX)
    assert [(c.case_id, c.group) for c in chosen] == [
        ("i0#0", "best"),
        ("i1#1", "best"),
        ("i2#0", "median"),
        ("i3#1", "median"),
        ("i5#1", "worst"),
        ("i4#0", "worst"),
    ]
    one = choose(inputs.rows, "grad_cam", *BOX, per_group=1)
    assert [(c.case_id, round(c.score, 2)) for c in one] == [("i0#0", 0.9), ("i2#0", 0.7), ("i5#1", 0.0)]


def test_values_rank_by_direction_and_ties_by_case(inputs: Inputs) -> None:
    up = choose(inputs.rows, "grad_cam", *ERROR)
    assert [c.case_id for c in up if c.group == "best"] == ["i3#1", "i4#0"]
    down = choose(inputs.rows, "grad_cam", *ERROR, higher_is_better=False)
    assert [c.case_id for c in down] == ["i0#0", "i1#1", "i2#0", "i3#1", "i5#1", "i4#0"]
    assert scores(inputs.rows, "grad_cam", *ERROR)[1] is None


def test_order_of_rows_changes_nothing(inputs: Inputs) -> None:
    shuffled = Rows.of(whole(inputs.rows).sample(frac=1, random_state=0))
    for metric in (BOX, ERROR, POINT):
        assert choose(shuffled, "center", *metric) == choose(inputs.rows, "center", *metric)


def test_problems_are_left_out(inputs: Inputs) -> None:
    chosen = choose(inputs.rows, "grad_cam", *POINT)
    assert "i5#1" not in [c.case_id for c in chosen]
    assert len(chosen) == 3  # five cases: one a group


@pytest.mark.parametrize(("count", "groups"), [(0, []), (1, ["best"]), (2, ["best", "worst"])])
def test_few_cases(inputs: Inputs, count: int, groups: list[str]) -> None:
    frame = whole(inputs.rows)
    rows = Rows.of(frame[frame["case_id"].isin([f"i{k}#{k % 2}" for k in range(count)])])
    assert [c.group for c in choose(rows, "grad_cam", *BOX)] == groups


def test_equal_scores_share_no_case(inputs: Inputs) -> None:
    chosen = choose(Rows.of(whole(inputs.rows).assign(value=0.5, problem=None)), "grad_cam", *ERROR)
    assert sorted(c.case_id for c in chosen) == sorted(set(inputs.rows.frame["case_id"]))


def test_draws_count_with_their_mean(inputs: Inputs) -> None:
    once = whole(inputs.rows)
    again = once.assign(value=1 - once["value"])
    found, _ = scores(Rows.of(pd.concat([once, again])), "grad_cam", *ERROR)
    np.testing.assert_array_equal(found, [0.5] * 6)


def test_the_budget_starves_no_group(inputs: Inputs) -> None:
    whole, none = thumbnails.groups(inputs.gallery, inputs.methods)
    assert none == 0
    assert [(g.name, len(g.thumbnails)) for g in whole] == [("best", 2), ("median", 2), ("worst", 2), ("disagreed", 1)]
    limit = sum(group.thumbnails[0].weight for group in whole)
    short, left_out = thumbnails.groups(inputs.gallery, inputs.methods, budget=limit)
    assert [len(g.thumbnails) for g in short] == [1, 1, 1, 1]
    assert left_out == 3


def test_most_disagreed_by_hand() -> None:
    found = {
        "one": pd.Series({"a": 0.0, "b": 0.5, "c": 0.2, "d": 1.0}),
        "two": pd.Series({"a": 1.0, "b": 0.5, "c": 0.4}),  # d it did not score
        "three": pd.Series({"a": 0.0, "b": 0.5, "c": 0.6, "d": 1.0}),
    }
    chosen = disagreed(found, 5)
    assert [choice.case_id for choice in chosen] == ["a", "c"]  # on b they agree
    assert chosen[0].score == pytest.approx(np.sqrt(2 / 9))
    assert {choice.group for choice in chosen} == {"disagreed"}
    assert disagreed(found, 1) == chosen[:1]
    assert disagreed({"one": found["one"]}, 5) == []


def test_a_mask_is_drawn_as_its_border() -> None:
    mask = np.zeros((20, 30), bool)
    mask[5:15, 5:25] = True
    data = base64.b64decode(pictures.outline(mask).partition(",")[2])
    drawn = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert drawn.shape == (20, 30, 4)
    assert drawn[5, 10].tolist() == [255, 255, 255, 255]
    assert drawn[4, 10, 3] > 0
    assert drawn[10, 15, 3] == 0  # within it is clear, as it is without
    assert drawn[0, 0, 3] == 0
    assert (drawn[..., 0] == 255).sum() == 2 * 10 + 2 * 18


def test_of_a_map_in_specks_the_largest_boxes_are_drawn() -> None:
    corners = np.arange(100.0)
    boxes = np.stack([corners, corners, corners + 1 + corners % 50, corners + 2], 1)  # widths 1 to 50, twice
    drawn, caption = thumbnails.predicted(Overlay(np.zeros((4, 4)), boxes, 0.5, "IoU"))
    assert (len(drawn), caption) == (20, "IoU, the largest 20 of 100 boxes")
    assert [width for _, _, width, _ in drawn] == [*range(41, 51)] * 2
    few, caption = thumbnails.predicted(Overlay(np.zeros((4, 4)), boxes[:20], None, ""))
    assert (len(few), caption) == (20, "")
