"""The pointing game with rejection: by hand, and against every threshold tried."""

import numpy as np
import pytest
import torch
from drawn_trials import trial

from gradcam_bench.analysis import reductions
from gradcam_bench.analysis.reductions import Cell
from gradcam_bench.metrics.rejection import max_pointing_game_rejection, pointing_game_rejection

BOXES = [(0, (0, 0, 4, 4), False), (1, (20, 20, 24, 24), False)]
AXES = {"tolerance": 0, "normalize": "max"}


def peak(y: int, x: int, top: float) -> torch.Tensor:
    heatmap = torch.zeros(30, 30)
    heatmap[y, x] = top
    return heatmap


MAPS = [peak(1, 1, 5.0), peak(9, 9, 3.0), peak(9, 9, 2.0), peak(1, 1, 4.0)]  # classes 0, 1 present; 7, 8 not
ASKED = [0, 1, 7, 8]


def test_by_hand_at_fixed_thresholds() -> None:
    """Class 0 is found, 1 is missed, 7 and 8 are not there: right to reject them, whatever their maps point to."""
    for rejection, expected in ((0, [1, 0, 0, 0]), (2.5, [1, 0, 1, 0]), (4.5, [1, 0, 1, 1]), (6, [0, 0, 1, 1])):
        made = trial(MAPS, BOXES, AXES | {"rejection": rejection}, classes=ASKED)
        assert pointing_game_rejection(made).tolist() == expected
    equal = trial(MAPS[:1], BOXES, AXES | {"rejection": 5.0}, classes=[0])
    assert pointing_game_rejection(equal).tolist() == [1]  # at the threshold a map is kept


def test_what_is_stored_has_the_maximum_before_normalising() -> None:
    _, curve = max_pointing_game_rejection(trial(MAPS, BOXES, AXES, classes=ASKED))
    assert curve.tolist() == [[5, 1, 0], [3, 0, 0], [2, 0, 1], [4, 0, 1]]


def reduced(curve, weights=None) -> float:
    curve = np.asarray(curve, np.float32)
    cell = Cell(np.full(len(curve), np.nan), curve, np.zeros(len(curve), str), np.arange(len(curve)), {})
    return reductions.number(cell, "max_over_rejection", weights)


def test_the_best_threshold_by_hand() -> None:
    assert reduced([[5, 1, 0], [3, 0, 0], [2, 0, 1], [4, 0, 1]]) == 3 / 4  # between 4 and 5
    assert reduced([[2, 1, 0], [2, 0, 1]]) == 1 / 2  # no threshold parts equals
    assert reduced([[2, 0, 1], [3, 0, 1]]) == 1  # all rejected
    assert reduced([[2, 1, 0], [3, 1, 0]]) == 1  # none


@pytest.mark.parametrize("seed", range(3))
def test_the_best_threshold_is_the_best_of_all_tried(seed: int) -> None:
    rng = np.random.default_rng(seed)
    curve = np.stack([rng.integers(0, 9, 40), *rng.integers(0, 2, (2, 40))], axis=1)
    weights = rng.multinomial(40, np.full(40, 1 / 40))
    tried = [
        np.average(np.where(curve[:, 0] < threshold, curve[:, 2], curve[:, 1]), weights=weights)
        for threshold in np.arange(-0.5, 10)
    ]
    assert reduced(curve, weights) == pytest.approx(max(tried))


def test_absent_classes_alone_are_not_scored() -> None:
    """Without boxes, or masks, of an image only classes that are not there could be judged: all would be rejected."""
    made = trial(MAPS, BOXES, AXES | {"region": "mask"}, classes=ASKED)
    assert pointing_game_rejection(made).isnan().all()
    assert made.notes[2] == "no mask of any class in the image"
    made = trial(MAPS[2:], [], AXES, classes=ASKED[2:])
    assert max_pointing_game_rejection(made)[1].isnan().all()
    assert made.notes[0] == "no box of any class in the image"


def test_a_class_that_is_there_somewhere_is_not_scored() -> None:
    made = trial(MAPS[:2], BOXES[:1], AXES, classes=[0, 3], **{})
    given = trial(MAPS[:2], [*BOXES[:1], (2, (0, 0, 1, 1), True)], AXES, classes=[3, 2])
    assert pointing_game_rejection(made).tolist() == [1, 0]
    assert pointing_game_rejection(given)[0] == 0
    assert pointing_game_rejection(given)[1].isnan()
    assert given.notes == {1: "difficult"}
