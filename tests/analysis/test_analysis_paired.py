"""Paired comparisons: by hand, by enumerating, against scipy and statsmodels, and under no difference at all."""

import itertools

import numpy as np
import pytest
from drawn_curves import curves
from scipy import stats

from gradcam_bench.analysis.exchange import permutation
from gradcam_bench.analysis.paired import all_pairs, difference, holm, matched, mcnemar
from gradcam_bench.analysis.reductions import REDUCTIONS, Cell, number


def cell(values, curves=None, classes=None, images=None) -> Cell:
    count = len(values)
    return Cell(
        np.asarray(values, np.float64),
        None if curves is None else np.asarray(curves, np.float32),
        np.asarray(["0"] * count if classes is None else classes),
        np.array([f"{n:04d}" for n in (range(count) if images is None else images)]),
        {"iou_threshold": (0.3, 0.7)},
    )


def test_units_are_matched_by_image_and_class_and_the_rest_is_counted() -> None:
    a = cell([1, 2, 3, 4], classes=["5", "6", "5", "5"], images=[0, 0, 1, 2])
    b = cell([10, 20, 30], classes=["5", "5", "6"], images=[1, 0, 3])
    mine, theirs = matched(a, b)
    assert mine.values.tolist() == [1, 3]
    assert theirs.values.tolist() == [20, 10]
    found = difference(a, b, "mean")
    assert (found.n, found.only_a, found.only_b) == (2, 2, 1)
    assert (found.a, found.b, found.difference) == (2, 15, -13)


def test_nothing_in_common_is_no_number() -> None:
    found = difference(cell([1.0, 0.0]), cell([1.0], images=[7]), "mean")
    assert np.isnan(found.difference)
    assert np.isnan(found.p)
    assert (found.n, found.only_a, found.only_b) == (0, 2, 1)


def test_two_units_of_one_case_are_refused() -> None:
    with pytest.raises(ValueError, match="two units of one case"):
        matched(cell([1, 2], images=[0, 0]), cell([1]))


@pytest.mark.parametrize("reduce", sorted(REDUCTIONS))
def test_the_permutation_test_equals_all_exchanges_enumerated(reduce: str) -> None:
    rng = np.random.default_rng(0)
    classes = ["1", "2", "1", "2", "1", "2", "2", "1"]
    images = [0, 0, 1, 2, 3, 4, 5, 6]  # image 0 has two cases, which are exchanged together
    a, b = (cell(rng.random(8) ** (1 + n), curves(reduce, rng, 8, 2), classes, images) for n in range(2))
    observed = abs(number(a, reduce) - number(b, reduce))
    extreme = 0
    for coins in itertools.product((0, 1), repeat=7):
        kept = np.array(coins)[images].astype(bool)
        swapped = [
            Cell(
                np.where(kept, x.values, y.values),
                np.where(kept[:, None], x.curves, y.curves),
                x.classes,
                x.images,
                x.axes,
            )
            for x, y in ((a, b), (b, a))
        ]
        extreme += abs(number(swapped[0], reduce) - number(swapped[1], reduce)) >= observed - 1e-12
    assert permutation(a, b, reduce, 20_000) == pytest.approx(extreme / 2**7, abs=0.012)


def test_against_scipy_s_paired_permutation_and_t() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(0.2, 1, 60)
    b = rng.normal(0, 1, 60)
    found = difference(cell(a), cell(b), "mean", resamples=20_000)
    theirs = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", rng=0)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.015)
    assert found.effect == pytest.approx((a - b).mean() / (a - b).std(), rel=0.03)
    interval = stats.bootstrap((a - b,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.02)


def test_wilcoxon_equals_all_signs_enumerated() -> None:
    """The smaller of the two sums of ranks, over all 2^9 signs: an image of no difference takes no part, and the rank
    is that of an image's mean difference."""
    gaps = np.array([0.31, -0.02, 0.17, 0.05, -0.11, 0.23, 0.08, 0.29, 0.14])
    classes, images = ["0"] * 10 + ["1"], [*range(10), 0]  # image 0 has two cases, image 9 the same in both
    a = cell([*gaps, 0.4, gaps[0] + 0.2], classes=classes, images=images)
    b = cell([0.2] + [0.0] * 8 + [0.4, 0.0], classes=classes, images=images)  # of image 0: 0.11 and 0.51, mean 0.31
    order = sorted(abs(gaps))
    ranks = np.array([order.index(abs(gap)) + 1 for gap in gaps])
    least = min(ranks[gaps > 0].sum(), ranks[gaps < 0].sum())
    sums = [
        sum(r for r, kept in zip(ranks, signs, strict=True) if kept) for signs in itertools.product((0, 1), repeat=9)
    ]
    assert least == 1 + 4
    expected = 2 * np.mean(np.array(sums) <= least)
    assert difference(a, b, "mean", permutations=10).wilcoxon == pytest.approx(expected)


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    """Of samples of 50 images whose true difference is what `detectable` says of such samples."""
    rng = np.random.default_rng(6)

    def sample(shift: float) -> tuple[Cell, Cell]:
        base = rng.random(50)
        return cell(base + rng.normal(shift, 0.3, 50)), cell(base)

    quick = {"resamples": 200, "permutations": 400}
    size = float(np.mean([difference(*sample(0.0), "mean", **quick).detectable for _ in range(30)]))
    seen = [difference(*sample(size), "mean", **quick).p <= 0.05 for _ in range(400)]
    assert 0.73 <= np.mean(seen) <= 0.87  # 0.8, of which the standard error is 0.02
    half = [difference(*sample(size / 2), "mean", **quick).p <= 0.05 for _ in range(200)]
    assert np.mean(half) < 0.5


def test_mcnemar_by_hand_and_against_statsmodels() -> None:
    a, b = cell([1, 1, 1, 1, 0, 1, 0, 1]), cell([0, 0, 0, 1, 1, 0, 0, 0])
    # a alone 5, b alone 1: 2 (1 + 6) / 64
    assert mcnemar(a, b) == pytest.approx(14 / 64)
    assert mcnemar(a, a) == 1
    assert np.isnan(mcnemar(a, cell([0.5] * 8)))
    assert np.isnan(mcnemar(cell([1, 0], images=[0, 0], classes="ab"), cell([1, 1], images=[0, 0], classes="ab")))
    tables = pytest.importorskip("statsmodels.stats.contingency_tables", reason="statsmodels is not installed")
    assert mcnemar(a, b) == pytest.approx(tables.mcnemar([[1, 5], [1, 1]], exact=True).pvalue)


def test_holm_by_hand_and_against_statsmodels() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([0.02, np.nan, 0.03]) == pytest.approx([0.04, np.nan, 0.04], nan_ok=True)
    assert holm([]) == []
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not installed")
    ps = np.random.default_rng(2).random(20) ** 3
    assert holm(ps) == pytest.approx(multitest.multipletests(ps, method="holm")[1])


def test_all_pairs_are_corrected_together() -> None:
    rng = np.random.default_rng(3)
    base = rng.random(80)
    cells = {"a": cell(base), "b": cell(base + 0.5), "c": cell(base + rng.normal(0, 0.1, 80))}
    found = all_pairs(cells, "mean")
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found["a", "b"][0].difference == pytest.approx(-0.5)
    assert found["a", "b"][0].low == pytest.approx(-0.5)  # every image says the same
    assert [corrected for _, corrected in found.values()] == holm([one.p for one, _ in found.values()])


@pytest.mark.slow
@pytest.mark.parametrize("reduce", ["mean", "class_mean", "mean_of_max"])
def test_without_a_difference_one_in_twenty_is_found(reduce: str) -> None:
    rng = np.random.default_rng(4)
    ps = []
    for _ in range(1000):
        quality = rng.random((40, 1))
        drawn = []
        for _ in range(2):
            curves = np.clip(quality + 0.3 * rng.normal(size=(40, 6)), 0, 1)
            drawn.append(cell(curves.mean(1), curves, (np.arange(40) % 4).astype(str)))
        ps.append(permutation(*drawn, reduce, 400, seed=int(rng.integers(2**31))))
    assert 0.03 <= np.mean(np.array(ps) <= 0.05) <= 0.07
