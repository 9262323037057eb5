"""Reductions by hand, with weights as multiplicities."""

import numpy as np
import pytest
from drawn_curves import curves

from gradcam_bench.analysis.reductions import REDUCTIONS, Cell, ious, mean_iou, number, pooled


def cell(values=None, curves=None, classes=None, **axes) -> Cell:
    count = len(values if values is not None else curves)
    return Cell(
        np.full(count, np.nan) if values is None else np.array(values, np.float64),
        None if curves is None else np.array(curves, np.float32),
        np.array(classes if classes is not None else ["0"] * count),
        np.arange(count),
        axes,
    )


def test_means_by_hand() -> None:
    made = cell([1, 0, 0, 1, 1], classes=["3", "3", "3", "3", "7"])
    assert number(made, "mean") == 0.6
    assert number(made, "class_mean") == (0.5 + 1) / 2
    assert number(made, "mean", np.array([0, 1, 1, 0, 2])) == 0.5
    assert number(made, "class_mean", np.array([0, 1, 1, 0, 2])) == (0 + 1) / 2
    assert number(made, "class_mean", np.array([2, 1, 1, 0, 0])) == 0.5  # a class without a unit does not count


CURVES = [
    [0.9, 0.4, 0.1],
    [0.3, 0.6, 0.1],
    [0.2, 0.7, 0.7],
]


def test_maxima_by_hand() -> None:
    made = cell(curves=CURVES, iou_threshold=(0.3, 0.5, 0.7))
    # at .3: levels have 2, 3, 1 of 3; at .5: 1, 2, 1; at .7: 1, 1, 1
    assert number(made, "mean_of_max") == pytest.approx((1 + 2 / 3 + 1 / 3) / 3)
    assert number(made, "max_over_curve") == pytest.approx((0.4 + 0.6 + 0.7) / 3)
    # each IoU has a level of its own: without the second unit the best at .3 stays 1, at .7 it is 1/2
    weights = np.array([1, 0, 1])
    assert number(made, "mean_of_max", weights) == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert number(made, "max_over_curve", weights) == pytest.approx(0.55)


def test_one_threshold_for_all_units_not_each_its_own() -> None:
    made = cell(curves=[[1, 0], [0, 1]], iou_threshold=(0.5,))
    assert number(made, "mean_of_max") == 0.5


@pytest.mark.parametrize("demanded", [0.3, 0.5, 0.7, 0.1, 0.6])
def test_an_iou_of_exactly_what_is_demanded_counts(demanded: float) -> None:
    exact = np.float32(demanded)
    assert number(cell(curves=[[exact]], iou_threshold=(demanded,)), "mean_of_max") == 1
    below = np.nextafter(exact, np.float32(0))
    assert number(cell(curves=[[below]], iou_threshold=(demanded,)), "mean_of_max") == 0


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_weights_are_multiplicities(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, 15).astype(str)
    made = cell(rng.random(15), curves(name, rng, 15), classes, iou_threshold=(0.3, 0.5, 0.7))
    weights = rng.multinomial(15, np.full(15, 1 / 15))  # a bootstrap's draw
    rows = np.repeat(np.arange(15), weights)
    repeated = Cell(made.values[rows], made.curves[rows], made.classes[rows], made.images[rows], made.axes)
    assert number(made, name, weights) == pytest.approx(number(repeated, name), rel=1e-6)
    assert number(made, name, np.full(15, 3.0)) == pytest.approx(number(made, name), rel=1e-6)
    both = np.stack([weights, np.ones(15)], axis=1).astype(np.float32)  # several at once
    expected = [number(made, name, weights), number(made, name)]
    assert REDUCTIONS[name](made)(both) == pytest.approx(expected, rel=1e-5)
    assert REDUCTIONS[name](made, near=True)(both) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_the_order_of_units_does_not_matter(name: str) -> None:
    rng = np.random.default_rng(0)
    made = cell(rng.random(15), curves(name, rng, 15, 2), rng.integers(0, 4, 15).astype(str), iou_threshold=(0.3, 0.7))
    order = rng.permutation(15)
    turned = Cell(made.values[order], made.curves[order], made.classes[order], made.images[order], made.axes)
    assert number(made, name) == pytest.approx(number(turned, name), rel=1e-6)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_no_units_give_no_number(name: str) -> None:
    drawn = curves(name, np.random.default_rng(0), 2, 1)
    made = cell([0.5, 1], drawn, iou_threshold=(0.5,))
    assert np.isnan(number(made, name, np.zeros(2)))
    nobody = cell(np.empty(0), drawn[:0], np.empty(0, str), iou_threshold=(0.5,))
    assert np.isnan(number(nobody, name))


@pytest.mark.parametrize("reduce", sorted(set(REDUCTIONS) - {"mean", "class_mean"}))
def test_without_curves_there_is_no_maximum(reduce: str) -> None:
    assert np.isnan(number(cell([1, 0], iou_threshold=(0.5,)), reduce))


def test_a_harmonic_mean_is_of_the_means() -> None:
    made = cell([0, 0], [[0.5, 1.0], [0.7, 0.2]])
    assert number(made, "harmonic_of_means") == pytest.approx(2 / (1 / 0.6 + 1 / 0.6))
    assert number(made, "harmonic_of_means", np.array([3.0, 1.0])) == pytest.approx(2 / (1 / 0.55 + 1 / 0.8))
    assert number(cell([0], [[0.0, 1.0]]), "harmonic_of_means") == 0


# Two levels; a case: three counts of its class at each, then those of the background on the image's first case.
PIXELS = [
    [4, 2, 1, 0, 1, 3, 5, 9, 1, 2, 2, 0],  # image 0, class 7
    [2, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0],  # image 0, class 8
    [0, 3, 0, 1, 4, 1, 6, 6, 3, 2, 0, 1],  # image 1, class 7
]


def test_pooled_counts_by_hand() -> None:
    made = cell(curves=PIXELS, classes=["7", "8", "7"])
    counts = pooled(made)(np.ones((3, 1)))[..., 0]
    assert counts[0].tolist() == [[11, 15], [4, 4], [2, 1]]
    assert counts[1].tolist() == [[4, 5], [1, 1], [5, 4]]
    assert counts[2].tolist() == [[2, 2], [2, 1], [0, 0]]
    assert ious(counts).tolist() == [[11 / 17, 15 / 20], [4 / 10, 5 / 10], [2 / 4, 2 / 3]]
    best = (15 / 20 + 5 / 10 + 2 / 3) / 3  # the second level
    assert number(made, "miou_pooled") == pytest.approx(best)
    assert number(made, "precision_pooled") == pytest.approx((15 / 19 + 5 / 6 + 2 / 3) / 3)
    assert number(made, "recall_pooled") == pytest.approx((15 / 16 + 5 / 9 + 1) / 3)
    assert number(made, "false_positives_pooled") == pytest.approx((1 / 10 + 1 / 3) / 2)
    assert number(made, "false_negatives_pooled") == pytest.approx((4 / 10 + 0) / 2)


def test_a_class_that_is_not_drawn_does_not_count() -> None:
    made = cell(curves=PIXELS, classes=["7", "8", "7"])
    counts = pooled(made)(np.array([[0.0], [0], [2]]))[..., 0]  # image 1 twice
    assert np.isnan(ious(counts)[2]).all()
    assert mean_iou(counts).tolist() == pytest.approx([(6 / 9 + 0 / 4) / 2, (6 / 9 + 3 / 5) / 2])
