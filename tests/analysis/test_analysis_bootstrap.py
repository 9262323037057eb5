"""Intervals: against closed forms, scipy, an obvious loop, and by how often they hold the truth."""

import functools

import numpy as np
import pytest
from drawn_curves import curves
from scipy import stats

from gradcam_bench.analysis.bootstrap import clopper_pearson, draws, intervals, percentiles
from gradcam_bench.analysis.paired import difference
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


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("reduce", ["mean", "class_mean"])
def test_nothing_but_hits_is_no_certainty(reduce: str, value: float) -> None:
    images, classes = [0, 0, *range(1, 11)], [*"ab", *"abcabcabca"]  # an image of two cases: eleven in all
    expected = stats.binomtest(int(value * 11), 11).proportion_ci(0.95, "exact")
    for stratified in (False, True):
        found = one(cell(np.full(12, value), classes=classes, images=images), reduce, stratified=stratified)
        assert found == pytest.approx((expected.low, expected.high))


def test_classes_that_agree_in_themselves_are_no_certainty() -> None:
    """One class all right, one all wrong: every draw that has both is a half."""
    made = cell(np.repeat([1.0, 0.0], 8), classes=np.repeat(["a", "b"], 8))
    expected = stats.binomtest(8, 16).proportion_ci(0.95, "exact")
    assert one(made, "class_mean", stratified=True) == pytest.approx((expected.low, expected.high))
    assert one(made, "mean", stratified=True) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("reduce", ["mean_of_max", "max_over_curve"])
def test_curves_that_are_all_at_the_end_are_no_certainty(reduce: str) -> None:
    for value in (0.0, 1.0):
        made = cell(np.full(20, np.nan), np.full((20, 5), value))
        assert one(made, reduce) == pytest.approx(clopper_pearson(int(20 * value), 20))


def test_the_draws_of_classes_are_not_exact() -> None:
    """Half of the variance lies between two classes: drawn within them, the interval is the narrower one."""
    classes = np.repeat(["a", "b"], 100)
    made = cell(np.random.default_rng(7).random(200) < np.repeat([0.95, 0.05], 100), classes=classes)
    within, plain = one(made, "mean", stratified=True), one(made, "mean")
    assert within[1] - within[0] < 0.6 * (plain[1] - plain[0])


@pytest.mark.parametrize("reduce", sorted(REDUCTIONS))
def test_every_reduction_equals_an_obvious_loop_over_the_same_draws(reduce: str) -> None:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 30, 60)
    made = cell(rng.random(60), curves(reduce, rng, 60), rng.integers(0, 5, 60).astype(str), images)
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


def _few(chance):
    return lambda rng: (cell(rng.random(25) < chance), "mean", chance)


def _few_in_classes(rng):
    """Five classes of five images; the truth is the mean of the classes' shares."""
    classes, shares = np.repeat(np.arange(5), 5), np.array([1.0, 1.0, 0.98, 0.95, 0.9])
    return cell(rng.random(25) < shares[classes], classes=classes.astype(str)), "class_mean", shares.mean()


def _few_in_clusters(rng):
    """Pairs of cases of one image, which are alike in half of the images."""
    images = np.repeat(np.arange(25), 2)
    hits = rng.random(50) < 0.97
    alike = np.repeat(rng.random(25) < 0.5, 2)
    return cell(np.where(alike, np.repeat(hits[::2], 2), hits), images=images), "mean", 0.97


def _curves(rng, count=500):
    """Best IoUs along 40 levels with a level that is best in truth."""
    levels = np.linspace(0, 1, 40)
    quality = rng.beta(4, 3, (count, 1))
    return np.clip(quality * (1 - 1.5 * (levels - 0.3 - 0.2 * rng.normal(size=(count, 1))) ** 2), 0, 1)


def _pixels(rng, count=300):
    """Pixels of the object, then of the background, at each of 12 levels: the object's lie higher."""
    quality, size = rng.beta(3, 2, (count, 1)), rng.integers(20, 400, (count, 1))
    levels = np.arange(12)
    true = np.exp(0.4 * quality * levels)
    false = np.exp(-0.3 * quality * levels)
    return np.concatenate([size * true / true.sum(1, keepdims=True), 400 * false / false.sum(1, keepdims=True)], axis=1)


def _labels(rng, count=300):
    """True positives, false positives and false negatives at each of 6 background levels, of the case's class and of
    the background: a higher level paints less, and the level in the middle suits most pictures."""
    at, size = np.arange(6), rng.integers(50, 400, (count, 1))
    best = 2.5 + rng.normal(size=(count, 1))
    hit = size * np.clip(0.9 - 0.12 * (at - best), 0, 1)
    spilt = size * np.clip(0.6 - 0.2 * (at - best), 0, 2)
    mine = np.stack([hit, spilt, size - hit], axis=1)
    back = np.stack([1000 - size - spilt, size - hit, spilt], axis=1)
    return np.concatenate([mine.reshape(count, -1), back.reshape(count, -1)], axis=1)


def _of_curves(reduce, draw):
    """Data sets of random curves, the truth being the number of very many."""

    def drawn(rng, count=None):
        made = draw(rng) if count is None else np.concatenate([draw(rng) for _ in range(count)])
        classes = (np.arange(len(made)) % 3).astype(str)
        return cell(np.full(len(made), np.nan), made, classes)

    truth = functools.cache(lambda: number(drawn(np.random.default_rng(6), 400), reduce))
    return lambda rng: (drawn(rng), reduce, truth())


def _difference(rng, count=400):
    """Two methods on the same images, one of them better by a little; thresholds of their own."""
    made = _curves(rng, count)
    other = np.clip(made + 0.05 + 0.1 * rng.normal(size=(count, 1)), 0, 1)
    nothing = np.full(count, np.nan)
    return cell(nothing, other), cell(nothing, made)


@functools.cache
def _true_difference() -> float:
    pair = _difference(np.random.default_rng(6), 200_000)
    return number(pair[0], "mean_of_max") - number(pair[1], "mean_of_max")


MADE = {
    "mean_of_max": _of_curves("mean_of_max", _curves),
    "max_over_curve": _of_curves("max_over_curve", _curves),
    "pr_pooled": _of_curves("pr_pooled", _pixels),
    "max_miou_pooled": _of_curves("max_miou_pooled", _labels),
    "difference": lambda rng: (_difference(rng), "mean_of_max", _true_difference()),
}
DRAWN = {
    "share": _share,
    "mean": _mean,
    "clustered": _clustered,
    "class_mean": _class_mean,
    "few_near_one": _few(0.97),
    "few_near_zero": _few(0.02),
    "few_in_classes": _few_in_classes,
    "few_in_clusters": _few_in_clusters,
    **MADE,
}


SIMULATED = 4000  # data sets of a kind that is quickly drawn
COSTLY = {"pr_pooled": 1500, "max_miou_pooled": 1500, "difference": 1500}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["share", "mean", "clustered", "class_mean", *MADE])
def test_ninety_five_percent_hold_the_truth(kind: str) -> None:
    """Nominal 95 % covers 93.5 to 96.5 % of simulated data sets (of which the standard error is 0.35 to 0.55 %)."""
    covered = _covered(kind)
    assert 0.935 <= covered <= 0.965, covered


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["few_near_one", "few_near_zero", "few_in_classes", "few_in_clusters"])
def test_shares_near_the_end_are_held_more_often_rather_than_less(kind: str) -> None:
    """Of 25 images a share near 0 or 1 takes few values, and an exact interval of those covers more than it says."""
    assert _covered(kind) >= 0.935


def _covered(kind: str) -> float:
    """The share of simulated data sets whose interval holds the truth."""
    rng, held = np.random.default_rng(5), 0
    count = COSTLY.get(kind, SIMULATED)
    for _ in range(count):
        made, reduce, truth = DRAWN[kind](rng)
        settings = {"resamples": 1000, "seed": int(rng.integers(2**31))}
        if isinstance(made, tuple):
            found = difference(*made, reduce, permutations=1, **settings)
            low, high = found.low, found.high
        else:
            low, high = one(made, reduce, **settings)
        held += low <= truth <= high
    return held / count
