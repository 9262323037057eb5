"""The box of CAM's generator against the whole of it done slowly, and by hand."""

import numpy as np
import pytest
import region_maps as maps
import slow_boxes

from gradcam_bench.regions.boxes import best_iou, boxes_at, regions
from gradcam_bench.regions.cam_2016 import cam_2016_box


def expected(levels):
    """The slow program's first box, x + width and y + height its last pixels, as the evaluation reads it."""
    found = slow_boxes.cam_2016(levels)
    if not found:
        return None
    x, y, w, h = found[0]
    return x, y, x + w + 1, y + h + 1


def some_maps():
    rng = np.random.default_rng(0)
    yield from maps.special().values()
    for _ in range(120):
        yield maps.small(rng)
    for n in range(60):
        size = tuple(int(side) for side in rng.integers(15, 45, 2))
        yield maps.blurred(rng, size, 2.0 + n % 3)
    for grid in (7, 14):
        for size in ((40, 56), (61, 33)):
            yield maps.upsampled(rng, grid, size)


@pytest.mark.parity
def test_the_first_box_of_the_slow_program():
    answers = []
    for levels in some_maps():
        found = cam_2016_box(levels)
        assert found == expected(levels), levels
        answers.append(found)
    assert len(set(answers)) > 60


def test_by_hand():
    levels = np.zeros((40, 60), np.uint8)
    levels[5:25, 10:40] = 21
    levels[10:15, 20:25] = 255
    # distances reach 10: a pixel at distance 1 has 25.5 of 255 and stays, so nothing is worn away
    assert cam_2016_box(levels) == (10, 5, 41, 26)
    assert cam_2016_box((levels > 0).astype(np.uint8) * 20) is None  # 20 is not above 20
    wide = np.zeros((90, 120), np.uint8)
    wide[4:80, 6:110] = 30  # distances reach 38: of the outermost pixels 1 / 38 of 255, 6.7, is worn away, 2 / 38 stays
    assert cam_2016_box(wide) == (7, 5, 110, 80)


def test_the_border_is_cleared_and_five_pixels_are_kept_off():
    full = np.full((30, 50), 200, np.uint8)
    assert cam_2016_box(full) == (1, 1, 46, 26)  # from pixel 1, x + width = 45 and y + height = 25
    assert cam_2016_box(np.full((2, 2), 200, np.uint8)) is None


def test_one_box_at_all_thresholds():
    levels = maps.blurred(np.random.default_rng(1), (40, 50), 3.0)
    box = cam_2016_box(levels)
    found = regions(levels, "cam_2016_code")
    assert (found.first.tolist(), found.last.tolist()) == ([0], [255])
    assert found.boxes.tolist() == [list(box)]
    for threshold in (0, 51, 255):
        assert boxes_at(levels, threshold, "cam_2016_code").tolist() == [list(box)]
    curve = best_iou(levels, np.array([box], float), "cam_2016_code")
    assert curve.tolist() == [1.0] * 256
    black = np.zeros((8, 9), np.uint8)
    assert best_iou(black, np.array([[0.0, 0, 2, 2]]), "cam_2016_code").tolist() == [0.0] * 256
    assert boxes_at(black, 0, "cam_2016_code").shape == (0, 4)
