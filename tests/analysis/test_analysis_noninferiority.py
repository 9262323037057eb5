"""Losses and verdicts: by hand, against scipy's t-tests, and how often the bounds hold."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from gradcam_bench.analysis.noninferiority import (
    PASS,
    REGRESSION,
    UNDECIDED,
    Check,
    Judged,
    Judgement,
    Loss,
    judge,
    losses,
    needed,
)
from gradcam_bench.analysis.reductions import Cell, number


def cell(values, images=None, curves=None) -> Cell:
    count = len(values)
    return Cell(
        np.asarray(values, np.float64),
        None if curves is None else np.asarray(curves, np.float32),
        np.asarray(["0"] * count),
        np.array([f"{n:04d}" for n in (range(count) if images is None else images)]),
        {"iou_threshold": (0.5,)},
    )


def loss(delta: float, error: float, df: float = np.inf, images: int = 100, identical: bool = False) -> Loss:
    return Loss(0.5, 0.5 - delta, delta, error, df, images, identical=identical)


def verdicts(*found: Loss, margin: float = 0.02, alpha: float = 0.05) -> list[str]:
    return [
        one.verdict for one in judge(dict(enumerate(found)), dict.fromkeys(range(len(found)), margin), alpha).values()
    ]


def test_bounds_are_those_of_the_normal_distribution() -> None:
    found = loss(0.01, 0.02)
    assert found.upper(0.05) == pytest.approx(0.01 + 1.6448536 * 0.02)
    assert found.lower(0.05) == pytest.approx(0.01 - 1.6448536 * 0.02)
    assert found.p == pytest.approx(0.3085375)  # of half a standard error
    assert loss(0.01, 0.02, df=4).upper(0.05) == pytest.approx(0.01 + 2.1318468 * 0.02)


def test_without_spread_the_bounds_are_the_loss() -> None:
    assert (loss(0.01, 0).lower(0.05), loss(0.01, 0).upper(0.05), loss(0.01, 0).p) == (0.01, 0.01, 0)
    assert loss(0, 0).p == 1


@pytest.mark.parametrize(
    ("delta", "error", "verdict"),
    [
        (0.0, 0.01, PASS),  # at most 0.0164
        (0.0, 0.0125, UNDECIDED),  # at most 0.0206
        (-0.1, 0.05, PASS),  # better by two standard errors
        (0.01, 0.005, PASS),  # a loss beyond doubt, and beyond doubt a tolerated one
        (0.01, 0.007, UNDECIDED),  # at least -0.0015, at most 0.0215
        (0.02, 0.01, REGRESSION),  # at least 0.0036
        (0.05, 0.04, UNDECIDED),  # at least -0.0158
    ],
)
def test_the_rule_by_hand(delta: float, error: float, verdict: str) -> None:
    assert verdicts(loss(delta, error)) == [verdict]


def test_regressions_are_corrected_for_their_number_and_passes_are_not() -> None:
    two = loss(0.03, 0.03 / 1.8)  # p = 0.036
    assert verdicts(two) == [REGRESSION]
    assert verdicts(two, loss(0, 0.001)) == [UNDECIDED, PASS]  # 2 * 0.036 > 0.05
    sure = loss(0.1, 0.01)
    assert verdicts(two, sure) == [REGRESSION, REGRESSION]  # Holm: once that is rejected, 0.036 stands alone
    assert verdicts(two, sure, loss(0, 0.001)) == [UNDECIDED, REGRESSION, PASS]
    assert verdicts(*[loss(0, 0.01)] * 50) == [PASS] * 50


def test_lower_bounds_agree_with_holm_s_verdicts() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        found = {n: loss(rng.normal(0.03, 0.03), 0.01 + 0.01 * rng.random(), 30) for n in range(6)}
        for one in judge(found, dict.fromkeys(found, 0.0), 0.05).values():
            assert (one.lower > 0) == (one.verdict == REGRESSION)


def test_identical_units_pass_whatever_the_margin_and_unknown_ones_do_not() -> None:
    assert verdicts(loss(0, 0, identical=True), margin=0) == [PASS]
    assert verdicts(loss(0, 0), margin=0) == [UNDECIDED]
    assert verdicts(loss(0, np.nan)) == [UNDECIDED]
    assert verdicts(loss(0, np.nan), loss(0.03, 0.03 / 1.8)) == [UNDECIDED, REGRESSION]  # it does not count as a test


def test_the_exit_code_is_the_worst_of_the_verdicts() -> None:
    def code(*names: str) -> int:
        return Judgement(tuple(Check("m", "p", "c", 0.02, None, Judged(name, 0, 0)) for name in names)).code

    def judged(*found: Judged) -> Judgement:
        return Judgement(tuple(Check("m", "p", "c", 0.02, None, one) for one in found))

    tolerated, open_ = Judged(PASS, 0.001, 0.01), Judged(UNDECIDED, -0.01, 0.03)
    assert judged(tolerated).code == 0
    assert judged(tolerated, open_).code == 1  # a lower bound above 0 where not all pass
    assert len(judged(tolerated, open_).tolerated) == 1
    assert judged(Judged(PASS, -0.001, 0.01), open_).code == 2
    assert judged(open_, Judged(UNDECIDED, np.nan, np.nan)).code == 2
    assert code(PASS, PASS) == 0
    assert code(PASS, UNDECIDED) == 2
    assert code(UNDECIDED, REGRESSION, PASS) == 1
    assert code() == 2


def test_a_number_that_cannot_improve_is_worse_only_beyond_its_least() -> None:
    """As the size of a change, whose loss is above 0 even where it is rounding's."""
    rounding, moved, unclear = (replace(loss(delta, 0.001), least=0.02) for delta in (0.005, 0.03, 0.0205))
    assert verdicts(rounding, moved, unclear) == [PASS, REGRESSION, UNDECIDED]
    judged = judge({"rounding": rounding}, {"rounding": 0.02}, 0.05)["rounding"]
    assert judged.lower > 0
    passed = Check("m", "p", "c", 0.02, rounding, judged)
    assert Judgement((passed, Check("m", "p", "d", 0.02, None, Judged(UNDECIDED, -0.01, 0.03)))).code == 2
    assert not Judgement((passed,)).tolerated


def test_the_images_that_would_decide() -> None:
    z = 1.6448536 + 0.8416212
    assert needed(loss(0, 0.02, images=100), 0.02, 0.05, 0.05) == int(np.ceil(100 * z**2))
    assert needed(loss(0.03, 0.03, images=100), 0.02, 0.05, 0.05) == int(np.ceil(100 * z**2))
    nearer = needed(
        loss(0.015, 0.03, images=100), 0.02, 0.05, 0.05
    )  # to show a loss is less than to show 0.005 to spare
    assert nearer == int(np.ceil(100 * (z * 2) ** 2))
    assert needed(loss(0, 0.01, images=100), 0.0, 0.05, 0.05) is None
    undecided = [Check("m", "p", "c", 0.02, None, Judged(UNDECIDED, 0, 0, n)) for n in (500, 200)]
    assert Judgement(tuple(undecided)).needed == 500
    assert Judgement((*undecided, Check("m", "p", "c", 0.02, None, Judged(UNDECIDED, 0, 0)))).needed is None


def test_with_so_many_images_it_is_decided_as_often_as_said() -> None:
    """delta 0, margin 6 points, values of spread 0.3: of samples of `needed` images, four in five pass."""
    rng = np.random.default_rng(0)

    def judged(count: int, lost: float) -> Judged:
        before = rng.random(count)
        made = losses(
            {"m": cell(before - lost + rng.normal(0, 0.3, count))}, {"m": cell(before)}, "mean", True, True, 200
        )
        return judge(made, {"m": 0.06}, 0.05)["m"]

    first = losses({"m": cell(np.tile([0.2, 0.8], 20))}, {"m": cell(np.full(40, 0.5))}, "mean", True)["m"]
    count = judge({"m": first}, {"m": 0.06}, 0.05)["m"].needed  # of a loss of 0 whose spread is 0.3
    assert count == pytest.approx((1.645 + 0.842) ** 2 * 0.3**2 / 0.06**2, rel=0.1)
    passed = [judged(count, 0.0).verdict == PASS for _ in range(200)]
    assert np.mean(passed) == pytest.approx(0.8, abs=0.08)  # the standard error is 0.025
    failed = [judged(count, 0.12).verdict == REGRESSION for _ in range(100)]
    assert np.mean(failed) > 0.9  # a loss of twice the margin is decided too, more surely
    assert np.mean([judged(count, 0.06).verdict == PASS for _ in range(200)]) <= 0.1  # at the margin: 0.05


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_mean_s_paired_bound_is_the_t_test_s(higher_is_better: bool) -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(40), rng.random(40)
    found = losses({"m": cell(after)}, {"m": cell(before)}, "mean", higher_is_better, resamples=20_000)["m"]
    gaps = (before - after) * (1 if higher_is_better else -1)
    expected = stats.ttest_1samp(gaps, 0, alternative="greater")
    assert found.delta == pytest.approx(gaps.mean())
    assert found.error == pytest.approx(gaps.std(ddof=1) / np.sqrt(40), rel=0.02)
    assert found.p == pytest.approx(expected.pvalue, abs=0.01)
    assert found.lower(0.05) == pytest.approx(expected.confidence_interval(0.95).low, abs=0.003)


def test_two_samples_have_welch_s_bound() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.random(60), 0.5 * rng.random(25)
    found = losses({"m": cell(after)}, {"m": cell(before)}, "mean", True, paired=False, resamples=20_000)["m"]
    expected = stats.ttest_ind(before, after, equal_var=False, alternative="greater")
    assert found.df == pytest.approx(expected.df, rel=0.05)
    assert found.error == pytest.approx(found.delta / expected.statistic, rel=0.02)
    assert found.images == 25


def test_the_draws_of_two_samples_are_two() -> None:
    """Equal values under shared draws would cancel."""
    values = np.random.default_rng(0).random(50)
    found = losses({"m": cell(values)}, {"m": cell(values)}, "mean", True, paired=False)["m"]
    assert found.error == pytest.approx(values.std(ddof=1) / np.sqrt(50) * np.sqrt(2), rel=0.1)


def test_equal_units_are_identical_only_if_all_are_there() -> None:
    values = np.random.default_rng(0).random(50)
    whole = losses({"m": cell(values)}, {"m": cell(values)}, "mean", True)["m"]
    assert whole.identical
    assert (whole.delta, whole.error) == (0, 0)
    part = losses({"m": cell(values[:20])}, {"m": cell(values)}, "mean", True)["m"]
    assert (part.identical, part.images, part.apart, part.delta) == (False, 20, 30, 0)
    assert part.error == pytest.approx(1 / 20)
    one = losses({"m": cell(values[:1])}, {"m": cell(values)}, "mean", True)["m"]
    assert np.isnan(one.error)
    curves = np.ones((50, 3))
    other = losses({"m": cell(values, curves=curves)}, {"m": cell(values, curves=curves * 0.9)}, "max_over_curve", True)
    assert not other["m"].identical
    assert other["m"].delta == pytest.approx(-0.1)


def test_nothing_in_common_is_no_loss() -> None:
    found = losses({"m": cell([1, 2])}, {"m": cell([1, 2], images=[7, 8])}, "mean", True)["m"]
    assert np.isnan(found.error)
    assert found.images == 0


def test_a_sample_of_nothing_but_hits_is_not_taken_for_certain() -> None:
    found = losses({"m": cell(np.ones(50))}, {"m": cell(np.ones(40))}, "mean", True, paired=False)["m"]
    assert found.error == pytest.approx(np.hypot(1 / 50, 1 / 40))
    assert verdicts(found) == [UNDECIDED]


def test_the_threshold_is_chosen_anew_on_both_sides() -> None:
    """A run whose curves are the baseline's, one level further on, has lost nothing."""
    rng = np.random.default_rng(0)
    curves = rng.random((200, 12)).astype(np.float32) * np.linspace(0, 1, 12, dtype=np.float32)
    nothing = np.full(200, np.nan)
    found = losses(
        {"m": cell(nothing, curves=np.roll(curves, 3, axis=1))},
        {"m": cell(nothing, curves=curves)},
        "mean_of_max",
        True,
    )["m"]
    assert found.delta == 0
    assert found.error == pytest.approx(1 / 200)  # no draw differs: one image stands for those that would
    assert not found.identical


def changed(hits: int, losses_: int, gains: int) -> tuple[Cell, Cell]:
    """A run and its baseline of zeros and ones: so many are right in both, in the baseline alone, in the run alone."""
    before = np.repeat([1.0, 1.0, 0.0], [hits, losses_, gains])
    after = np.repeat([1.0, 0.0, 1.0], [hits, losses_, gains])
    return cell(after), cell(before)


@pytest.mark.parametrize("reduce", ["mean", "class_mean"])
def test_few_changed_cases_raise_an_alarm_in_one_of_twenty_at_most(reduce: str) -> None:
    """d of 60 images have changed, each for the worse or the better by coin: all 2^d outcomes, by their number."""
    for changes in range(1, 13):
        alarm = 0.0
        for lost in range(changes + 1):
            run, baseline = changed(60 - changes, lost, changes - lost)
            found = losses({"m": run}, {"m": baseline}, reduce, True, resamples=200)
            if judge(found, {"m": 0.0}, 0.05)["m"].verdict == REGRESSION:
                alarm += float(stats.binom.pmf(lost, changes, 0.5))
        assert alarm <= 0.05, changes
        assert alarm > 0 or changes < 5, changes  # five of five is 1 in 32: it is seen


def test_of_zeros_and_ones_the_permutation_test_is_the_sign_test() -> None:
    for lost, gained in ((5, 1), (3, 0), (2, 4), (30, 14)):
        run, baseline = changed(40, lost, gained)
        found = losses({"m": run}, {"m": baseline}, "mean", True, resamples=200)["m"]
        expected = stats.binomtest(lost, lost + gained, alternative="greater").pvalue
        assert found.exchanged == pytest.approx(expected, rel=1e-9 if lost + gained <= 12 else 0.2)
        assert found.p >= found.exchanged
        error = losses({"m": baseline}, {"m": run}, "mean", False, resamples=200)["m"]  # of which less is better
        assert error.exchanged == pytest.approx(expected, rel=1e-9 if lost + gained <= 12 else 0.2)


def test_exchanges_choose_the_threshold_anew() -> None:
    """Against every exchange of the whole cells, by an obvious loop."""
    rng = np.random.default_rng(2)
    nothing = np.full(8, np.nan)
    before, after = rng.random((8, 5)), rng.random((8, 5)) * 0.9
    for reduce in ("mean_of_max", "max_over_curve"):
        made = losses({"m": cell(nothing, None, after)}, {"m": cell(nothing, None, before)}, reduce, True, resamples=99)
        gaps = []
        for coins in itertools.product((True, False), repeat=8):
            kept = np.array(coins)[:, None]
            sides = (np.where(kept, before, after), np.where(kept, after, before))
            one, other = (number(cell(nothing, None, side), reduce) for side in sides)
            gaps.append(one - other)
        assert made["m"].exchanged == pytest.approx(np.mean(np.array(gaps) >= gaps[0] - 1e-9))


def test_two_images_that_agree_prove_nothing() -> None:
    lost = losses({"m": cell([0, 0])}, {"m": cell([1, 1])}, "mean", True)["m"]
    gained = losses({"m": cell([0.9, 0.5])}, {"m": cell([0.5, 0.1])}, "mean", True)["m"]
    for found in (lost, gained):
        assert found.error == pytest.approx(0.5)
        assert verdicts(found) == [UNDECIDED]


def test_the_lower_bound_is_no_loss_where_the_permutation_test_does_not_reject() -> None:
    three = Loss(1.0, 0.9, 0.1, 0.01, np.inf, 30, exchanged=0.125)
    assert three.lower(0.05) == 0
    assert three.lower(0.13) > 0
    assert verdicts(three) == [UNDECIDED]


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
def test_bounds_hold_as_often_as_they_say(paired: bool) -> None:
    """Of samples with a known loss of 3 points, the lower bound lies above it in 5 % and the upper one below it."""
    rng = np.random.default_rng(0)
    misses = np.zeros(2)
    for _ in range(1000):
        before = (rng.random(150) < 0.7).astype(float)
        other = before if paired else (rng.random(150) < 0.7).astype(float)
        after = np.where(rng.random(150) < 0.03 / 0.7, 0.0, other)
        after = np.where(rng.random(150) < 0.1, rng.random(150) < 0.67, after)  # a tenth is drawn anew
        found = losses({"m": cell(after)}, {"m": cell(before)}, "mean", True, paired, resamples=400)["m"]
        misses += [found.lower(0.05) > 0.03, found.upper(0.05) < 0.03]
    assert (misses / 1000 < 0.075).all()
    assert (misses / 1000 > 0.02).all()
