"""Every box at every threshold against the slow implementation."""

import numpy as np
import pytest
import region_maps as maps
import slow_boxes
from slow_boxes import best_iou as slow_best_iou

from gradcam_bench.regions.boxes import best_iou, regions

pytestmark = pytest.mark.parity

RULES = [
    ("wsol_v1", 8),
    ("wsol_v2", 8),
    ("components", 8),
    ("components", 4),
    ("largest_component", 8),
    ("largest_component", 4),
    ("largest_rectangle", 8),
    ("largest_rectangle", 4),
    ("layer_cam_2021", 8),
]


def half_open(found):
    return sorted((x0, y0, x1 + 1, y1 + 1, area) for x0, y0, x1, y1, area in found)


def some_truth(rng, levels, count=2):
    """Boxes of whole pixels, last pixel included: int [count,4]."""
    x = np.sort(rng.integers(0, levels.shape[1], (count, 2)))
    y = np.sort(rng.integers(0, levels.shape[0], (count, 2)))
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def compare(levels, rule, connectivity, truth, thresholds=None):
    """Boxes, areas and best IoUs of one map. Between the levels that occur nothing changes."""
    found = regions(levels, rule, connectivity)
    curve = best_iou(levels, truth + np.array([0, 0, 1, 1]), rule, connectivity)
    table = np.column_stack([found.boxes, found.area])
    occurring = np.union1d(levels, [0, 254, 255]) if thresholds is None else thresholds
    for threshold in occurring.tolist():
        expected = slow_boxes.boxes(levels, threshold, rule, connectivity)
        here = table[(found.first <= threshold) & (threshold <= found.last)]
        assert sorted(map(tuple, here.tolist())) == half_open(expected), (rule, connectivity, threshold, levels)
        assert curve[threshold] == slow_best_iou(expected, truth), (rule, connectivity, threshold, levels)
    for after, before in zip(occurring[1:].tolist(), occurring.tolist()):
        if thresholds is None:
            assert (curve[before:after] == curve[before]).all()


@pytest.mark.parametrize(("rule", "connectivity"), RULES)
@pytest.mark.parametrize("name", maps.special())
def test_special_maps(name, rule, connectivity):
    levels = maps.special()[name]
    compare(levels, rule, connectivity, some_truth(np.random.default_rng(0), levels), np.arange(256))


@pytest.mark.parametrize(("rule", "connectivity"), RULES)
def test_small_maps(rule, connectivity):
    rng = np.random.default_rng(1)
    for _ in range(300):
        levels = maps.small(rng)
        compare(levels, rule, connectivity, some_truth(rng, levels))


@pytest.mark.parametrize("rule", ["wsol_v1", "wsol_v2"])
def test_pixel_noise_where_equal_areas_abound(rule):
    rng = np.random.default_rng(2)
    for _ in range(150):
        levels = maps.noise(rng, (24, 24), values=int(rng.choice([2, 5, 256])))
        compare(levels, rule, 8, some_truth(rng, levels))


@pytest.mark.parametrize("rule", ["wsol_v1", "wsol_v2"])
@pytest.mark.parametrize("grid", [7, 14, 28])
def test_upsampled_grids(rule, grid):
    rng = np.random.default_rng(grid)
    for size in ((224, 224), (120, 250)):
        levels = maps.upsampled(rng, grid, size)
        compare(levels, rule, 8, some_truth(rng, levels))


@pytest.mark.parametrize("rule", ["wsol_v1", "wsol_v2"])
def test_blurred_noise(rule):
    rng = np.random.default_rng(3)
    for sigma in (2.0, 6.0):
        levels = maps.blurred(rng, (150, 200), sigma)
        compare(levels, rule, 8, some_truth(rng, levels))


@pytest.mark.parametrize(("rule", "connectivity"), RULES[2:])
def test_components_of_upsampled_grids(rule, connectivity):
    rng = np.random.default_rng(4)
    levels = maps.upsampled(rng, 14, (90, 70))
    compare(levels, rule, connectivity, some_truth(rng, levels))


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "connectivity"), RULES)
def test_many_small_maps(rule, connectivity):
    rng = np.random.default_rng(5)
    for _ in range(5000):
        levels = maps.small(rng)
        compare(levels, rule, connectivity, some_truth(rng, levels))
