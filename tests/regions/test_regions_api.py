"""By hand: what the rules mean, what is refused, and that no spelling of the same input changes the answer."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import region_maps as maps

from gradcam_bench.regions import boxes
from gradcam_bench.regions.boxes import best_iou, boxes_at, regions

#   A ring with a tail around a brighter pixel, and a separate pixel.
RING = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 5, 5, 5, 5, 0, 0, 0],
        [0, 5, 0, 0, 5, 5, 0, 9],
        [0, 5, 0, 0, 5, 0, 0, 0],
        [0, 5, 5, 5, 5, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ],
    np.uint8,
)
NOTHING = [0, 0, 1, 1]
TRUTH = np.array([[1.0, 1.0, 6.0, 5.0]])


def test_components_are_tight_half_open_boxes():
    assert sorted(boxes_at(RING, 4, "components").tolist()) == [[1, 1, 6, 5], [7, 2, 8, 3]]
    assert boxes_at(RING, 5, "components").tolist() == [[7, 2, 8, 3]]
    assert boxes_at(RING, 9, "components").shape == (0, 4)


def test_largest_component_has_most_pixels_and_the_first_wins():
    assert boxes_at(RING, 4, "largest_component").tolist() == [[1, 1, 6, 5]]
    equal = np.array([[0, 3, 0, 3, 3, 0, 3, 3]], np.uint8)
    assert boxes_at(equal, 2, "largest_component").tolist() == [[3, 0, 5, 1]]


def test_connectivity_joins_corners_or_not():
    corners = np.array([[1, 0], [0, 1]], np.uint8)
    assert len(boxes_at(corners, 0, "components", connectivity=8)) == 1
    assert len(boxes_at(corners, 0, "components", connectivity=4)) == 2


def test_wsol_v1_takes_the_largest_polygon_a_pixel_too_large_away_from_the_frame():
    assert boxes_at(RING, 4, "wsol_v1").tolist() == [[1, 1, 7, 6]]
    assert boxes_at(RING, 5, "wsol_v1").tolist() == [[7, 2, 8, 4]]
    assert boxes_at(RING, 9, "wsol_v1").tolist() == [NOTHING]


def test_wsol_v2_takes_the_hole_too():
    assert sorted(boxes_at(RING, 4, "wsol_v2").tolist()) == [[1, 1, 6, 6], [1, 1, 7, 6], [7, 2, 8, 4]]


def test_polygon_areas():
    found = regions(RING, "wsol_v2")
    at_four = (found.first <= 4) & (found.last >= 4)
    # the ring: 3 x 3 between centres, half a square on each side of the tail; the hole: 3 x 3 less four half corners
    assert sorted(found.area[at_four]) == [0, 7, 10]


def test_equal_polygons_the_last_wins():
    lines = np.array([[7, 7, 0, 0], [0, 0, 0, 0], [0, 7, 0, 0], [0, 0, 7, 0]], np.uint8)
    assert boxes_at(lines, 0, "wsol_v1").tolist() == [[1, 2, 4, 4]]  # two pixels that touch at a corner
    assert regions(lines, "wsol_v1").area.tolist() == [0, 0]


def test_regions_tell_from_where_to_where_a_box_stands():
    found = regions(RING, "largest_component")
    order = np.argsort(found.first)
    assert found.first[order].tolist() == [0, 5]
    assert found.last[order].tolist() == [4, 8]
    assert found.area[order].tolist() == [13, 1]
    assert (found.boxes.dtype, found.area.dtype, found.first.dtype) == (np.float32, np.float64, np.int16)


def test_at_agrees_with_boxes_at():
    levels = maps.noise(np.random.default_rng(0), (20, 30), values=9)
    for rule in ("components", "largest_component", "wsol_v1", "wsol_v2"):
        found = regions(levels, rule)
        for threshold in (0, 30, 100, 200, 254, 255):
            assert sorted(found.at(threshold).tolist()) == sorted(boxes_at(levels, threshold, rule).tolist())


def test_best_iou_by_hand():
    curve = best_iou(RING, TRUTH, "largest_component")
    assert (curve.shape, curve.dtype) == ((256,), np.float32)
    assert curve[:5].tolist() == [1.0] * 5
    assert not curve[5:].any()
    assert best_iou(RING, TRUTH, "wsol_v1")[0] == np.float32(20 / 30)
    assert best_iou(RING, np.array([[0.5, 1.0, 3.5, 5.0]]), "components")[0] == np.float32(10 / 22)


def test_the_best_of_boxes_and_of_truths_counts():
    far = np.array([[0.0, 5.0, 1.0, 6.0]])
    both = best_iou(RING, np.concatenate([far, TRUTH]), "components")
    np.testing.assert_array_equal(both, best_iou(RING, TRUTH, "components"))


@pytest.mark.parametrize("rule", ["components", "largest_component", "wsol_v1", "wsol_v2"])
@pytest.mark.parametrize("truth", [np.zeros((0, 4)), [[2, 2, 2, 5]], [[5, 5, 2, 2]], [[np.nan, 0, 5, 5]]])
def test_nothing_to_find_is_zero_and_never_nan(rule, truth):
    np.testing.assert_array_equal(best_iou(RING, np.array(truth, np.float64), rule), np.zeros(256, np.float32))


def test_without_foreground_only_the_evaluator_answers():
    black = np.zeros((4, 4), np.uint8)
    corner = np.array([[0.0, 0.0, 2.0, 1.0]])
    assert (best_iou(black, corner, "wsol_v1") == 0.5).all()
    assert (best_iou(black, corner, "wsol_v2") == 0.5).all()
    assert not best_iou(black, corner, "components").any()
    assert not best_iou(black, corner, "largest_component").any()


def test_memory_layout_and_dtypes_do_not_matter():
    rng = np.random.default_rng(1)
    levels, truth = maps.blurred(rng, (40, 60), 2.0), np.array([[3.0, 4.0, 30.0, 31.0]])
    expected = best_iou(levels, truth, "wsol_v1")
    frozen = levels.copy()
    frozen.flags.writeable = False
    for same in (frozen, np.asfortranarray(levels), np.repeat(levels, 2, axis=1)[:, ::2]):
        before = same.copy()
        np.testing.assert_array_equal(best_iou(same, truth.astype(np.float32), "wsol_v1"), expected)
        np.testing.assert_array_equal(same, before)


def test_threads():
    rng = np.random.default_rng(2)
    levels = np.stack([maps.blurred(rng, (50, 50), 3.0) for _ in range(6)])
    truths = [rng.integers(0, 20, (n, 4)) + np.array([0.0, 0, 25, 25]) for n in (1, 2, 0, 3, 1, 1)]
    expected = [best_iou(one, truth, "wsol_v2") for one, truth in zip(levels, truths)]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda one, truth: best_iou(one, truth, "wsol_v2"), levels, truths))
    np.testing.assert_array_equal(threaded, expected)


@pytest.mark.parametrize(
    "rules", [("wsol_v1", "wsol_v2"), ("wsol_v2", "wsol_v1"), ("wsol_v1", "components", "wsol_v2")]
)
def test_rules_that_share_a_pass_find_what_each_finds_alone(rules, monkeypatch):
    rng = np.random.default_rng(3)
    for number in range(20):
        levels = maps.blurred(rng, (60, 50), 1.0 + number % 4)
        truth = rng.integers(0, 20, (2, 4)) + np.array([0.0, 0, 25, 25])
        alone = [best_iou(levels, truth, rule) for rule in reversed(rules)][::-1]
        boxes._RECENT.clear()
        passes = {}
        together = [best_iou(levels, truth, rule, passes=passes) for rule in rules]
        np.testing.assert_array_equal(together, alone)
        boxes._RECENT.clear()
        with monkeypatch.context() as patched:
            patched.delattr(boxes, "component_records")  # what was found is not looked for again
            again = [best_iou(levels, truth, rule, passes=passes) for rule in rules]
        np.testing.assert_array_equal(again, alone)


@pytest.mark.parametrize(
    ("levels", "rule", "connectivity", "complaint"),
    [
        (RING, "wsol", 8, "wsol_v1"),
        (RING, "components", 6, "4 or 8"),
        (RING, "wsol_v1", 4, "8-connected"),
        (RING / 9, "components", 8, "uint8"),
        (RING[None], "components", 8, r"\[1, 6, 8\]"),
        (RING[:0], "components", 8, r"\[0, 8\]"),
    ],
)
def test_refusals(levels, rule, connectivity, complaint):
    with pytest.raises(ValueError, match=complaint):
        best_iou(levels, TRUTH, rule, connectivity)


def test_refuses_other_mistakes():
    with pytest.raises(ValueError, match=r"0\.\.255"):
        boxes_at(RING, 256, "components")
    with pytest.raises(ValueError, match=r"\[G,4\]"):
        best_iou(RING, np.zeros((4, 2)), "components")
