"""Intervals: against closed forms, scipy, an obvious loop, and by how often they hold the truth."""

import functools

import numpy as np
import pytest
from scipy import stats

from gradcam_bench.analysis.bootstrap import clopper_pearson, draws, intervals, percentiles
from gradcam_bench.analysis.reductions import REDUCTIONS, Cell, number


def cell(values, curves=None, classes=None, images=None, **axes) -> Cell:
    values = np.asarray(values, np.float64)
    count = len(values)
    return Cell(
        values,
        None if curves is None else np.asarray(curves, np.float32),
        np.asarray(["0"] * count if classes is None else classes),
        np.array([f"{n:05d}" for n in (range(count) if images is None else images)]),
        {"iou_threshold": (0.3, 0.5, 0.7)} | axes,
    )


def one(made: Cell, reduce: str, **settings) -> tuple[float, float]:
    return intervals({"it": (made, reduce)}, **settings)["it"]


def test_a_mean_s_draws_have_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    drawn = draws({"it": (cell(values), "mean")}, 20_000)["it"]
    assert drawn.mean() == pytest.approx(values.mean(), abs=4 * values.std() / 20 / np.sqrt(20_000))
    assert drawn.std() == pytest.approx(values.std() / np.sqrt(400), rel=0.02)


def test_the_percentiles_agree_with_scipy() -> None:
    values = np.random.default_rng(1).exponential(size=150)
    ours = one(cell(values), "mean", resamples=20_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_bias_correction_by_hand_and_without_bias() -> None:
    drawn = np.arange(1, 10_001) / 10_000
    assert percentiles(drawn, 0.5) == pytest.approx(percentiles(drawn), abs=1e-3)  # no bias: as many below as above
    # 84.13 % of the draws lie below: z0 = 1, so the tails are Phi(2 - 1.96) and Phi(2 + 1.96)
    low, high = percentiles(drawn, stats.norm.cdf(1))
    assert low == pytest.approx(stats.norm.cdf(2 - 1.95996), abs=1e-3)
    assert high == pytest.approx(stats.norm.cdf(2 + 1.95996), abs=1e-3)
    assert np.isnan(percentiles(np.full(5, np.nan))).all()


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (3, 20), (150, 200)])
def test_shares_have_the_exact_interval(hits: int, count: int) -> None:
    values = np.zeros(count)
    values[:hits] = 1
    expected = stats.binomtest(hits, count).proportion_ci(0.95, "exact")
    assert one(cell(values), "mean") == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert clopper_pearson(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("reduce", sorted(REDUCTIONS))
def test_every_reduction_equals_an_obvious_loop_over_the_same_draws(reduce: str) -> None:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 30, 60)
    made = cell(rng.random(60), rng.random((60, 12)), rng.integers(0, 5, 60).astype(str), images)
    ones = cell(np.ones(60), made.curves, made.classes, images)
    counts = cell(np.bincount(images, minlength=30)[images], None, made.classes, images)
    drawn = draws({"it": (made, reduce), "ones": (ones, "mean"), "counts": (counts, "mean")}, 200)
    assert (drawn["ones"] == 1).all()
    names = np.unique(made.images)
    weights = _weights_seen(len(names), 200)
    for resample in range(0, 200, 40):
        times = dict(zip(names, weights[resample].astype(int), strict=True))
        rows = np.repeat(np.arange(60), [times[image] for image in made.images])
        taken = Cell(made.values[rows], made.curves[rows], made.classes[rows], made.images[rows], made.axes)
        assert drawn["it"][resample] == pytest.approx(number(taken, reduce), rel=1e-5)


def _weights_seen(images: int, resamples: int) -> np.ndarray:
    """How often each image was drawn: the mean of an indicator times how many units there are."""
    cells = {n: (cell(np.arange(images) == n), "mean") for n in range(images)}
    found = draws(cells, resamples)
    return np.stack([np.rint(found[n] * images) for n in range(images)], axis=1)


def test_cells_of_the_same_images_share_their_draws_whatever_their_order_and_number() -> None:
    rng = np.random.default_rng(3)
    values = rng.random(50)
    order = rng.permutation(50)
    turned = cell(values[order], images=order)
    together = draws({"a": (cell(values), "mean"), "b": (cell(values + 1), "mean")}, 100)
    assert together["b"] - together["a"] == pytest.approx(np.ones(100), abs=1e-5)
    assert draws({"a": (turned, "mean")}, 100)["a"] == pytest.approx(together["a"], abs=1e-6)


def test_images_are_drawn_not_cases() -> None:
    """Ten cases of one image tell no more than one."""
    rng = np.random.default_rng(4)
    values = rng.normal(size=100)
    single, tenfold = cell(values), cell(np.repeat(values, 10), images=np.repeat(np.arange(100), 10))
    assert one(tenfold, "mean", resamples=4000) == pytest.approx(one(single, "mean", resamples=4000), abs=1e-4)


def test_stratified_draws_keep_each_class_count() -> None:
    classes = np.repeat(["3", "7"], [10, 30])
    made = cell(classes == "3", classes=classes)
    assert draws({"it": (made, "mean")}, 50, stratified=True)["it"] == pytest.approx(np.full(50, 0.25))
    assert draws({"it": (made, "mean")}, 50)["it"].std() > 0.02


def test_one_image_has_no_interval() -> None:
    assert np.isnan(one(cell([0.5]), "mean")).all()
    assert np.isnan(one(cell([0.5, 0.7], images=[1, 1]), "mean")).all()


SIMULATED = 4000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["share", "mean", "clustered", "class_mean", "mean_of_max"])
def test_ninety_five_percent_hold_the_truth(kind: str) -> None:
    """Nominal 95 % covers 93.5 to 96.5 % of simulated data sets (of which the standard error is 0.35 %)."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(SIMULATED):
        made, reduce, truth = DRAWN[kind](rng)
        low, high = one(made, reduce, resamples=1000, seed=int(rng.integers(2**31)))
        held += low <= truth <= high
    assert 0.935 <= held / SIMULATED <= 0.965, held / SIMULATED


def _share(rng):
    return cell(rng.random(2000) < 0.7), "mean", 0.7


def _mean(rng):
    return cell(rng.beta(2, 3, 300)), "mean", 0.4


def _clustered(rng):
    means = rng.normal(size=200)
    images = np.repeat(np.arange(200), 3)
    return cell(means[images] + rng.normal(size=600), images=images), "mean", 0.0


def _class_mean(rng):
    shares = np.linspace(0.2, 0.9, 10)
    classes = np.repeat(np.arange(10), 40)
    return cell(rng.random(400) < shares[classes], classes=classes.astype(str)), "class_mean", shares.mean()


def _mean_of_max(rng):
    return cell(np.full(500, np.nan), _curves(rng)), "mean_of_max", _true_maximum()


def _curves(rng):
    """Best IoUs along 40 levels with a level that is best in truth."""
    levels = np.linspace(0, 1, 40)
    quality = rng.beta(4, 3, (500, 1))
    return np.clip(quality * (1 - 1.5 * (levels - 0.3 - 0.2 * rng.normal(size=(500, 1))) ** 2), 0, 1)


@functools.cache
def _true_maximum() -> float:
    rng = np.random.default_rng(6)
    curves = np.concatenate([_curves(rng) for _ in range(400)])
    return number(cell(np.full(len(curves), np.nan), curves), "mean_of_max")


DRAWN = {
    "share": _share,
    "mean": _mean,
    "clustered": _clustered,
    "class_mean": _class_mean,
    "mean_of_max": _mean_of_max,
}
