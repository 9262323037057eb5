"""Whether a number has become worse than it was: by less than a margin, by more than nothing, or not known.

The loss of a run against a baseline is the difference of their numbers, positive where the run is worse. Two questions
are asked of it, each by a one-sided bound. Non-inferiority (a loss smaller than the margin: Piaggio et al. 2012) has to
hold for every check before all pass, so each is tested at the full level (an intersection-union test; Berger 1982). A
regression is claimed where any check shows one, so those claims are corrected for their number by Holm 1979.

Bounds are delta -+ t * error: the error is the spread of the bootstrap's draws of images, both numbers under the same
draws where the cases are the same, t is Student's with one degree of freedom less than there are images (Welch's for
two samples). For a mean of paired differences that is the paired t-test but for the resampling's noise. Percentiles
would need more draws than there are, at the levels that Holm's correction comes to.

Where few images have changed, t promises too much: three of which each became worse come by chance one time in eight,
and t calls that 4 %. So a regression of paired cases needs the permutation test of the images as well (`exchange`), and
its lower bound lies at 0 at most where that test does not reject.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

from gradcam_bench.analysis.bootstrap import RESAMPLES, draws
from gradcam_bench.analysis.exchange import above
from gradcam_bench.analysis.paired import POWER, holm, matched
from gradcam_bench.analysis.reductions import Cell, number

PASS, REGRESSION, UNDECIDED = "pass", "regression", "undecided"
SURE = 1e-6  # an error below this is the arithmetic's: all units of a sample are equal
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Loss:
    """baseline, run: the two numbers. delta: how much worse the run is, in the metric's own unit. error: its standard
    error, NaN below two images. df: degrees of freedom. images: how many were compared (of two samples the smaller).
    apart: units of either side without a partner on the other. identical: all units are there and equal. exchanged:
    one-sided p of the permutation test, 0 for two samples. least: what a regression has to exceed beyond doubt, 0
    but of a number that cannot improve, as the size of a change, whose loss lies above 0 by rounding alone."""

    baseline: float
    run: float
    delta: float
    error: float
    df: float
    images: int
    apart: int = 0
    identical: bool = False
    exchanged: float = 0.0
    least: float = 0.0

    @property
    def p(self) -> float:
        """One-sided, that the loss is no larger than `least`."""
        if self.error == 0:
            return max(float(self.delta <= self.least), self.exchanged)
        return max(float(stats.t.sf((self.delta - self.least) / self.error, self.df)), self.exchanged)

    def lower(self, alpha: float) -> float:
        """The loss is below this with probability alpha at most."""
        bound = self.delta - self._reach(alpha)
        return min(bound, 0.0) if self.exchanged > alpha else bound

    def upper(self, alpha: float) -> float:
        """The loss is above this with probability alpha at most."""
        return self.delta + self._reach(alpha)

    def _reach(self, alpha: float) -> float:
        return float(stats.t.isf(alpha, self.df)) * self.error if self.error else 0.0


@dataclass(frozen=True)
class Judged:
    """lower: the bound at the level that Holm's correction gives it; upper: at alpha. needed: the number of images
    with which this would be decided (with probability 0.8, if the loss is what it seems), None where it is or where no
    number would do."""

    verdict: str
    lower: float
    upper: float
    needed: int | None = None


@dataclass(frozen=True)
class Check:
    """One metric, protocol and method of a baseline, judged. loss None: there was nothing to compare, see reason."""

    metric: str
    protocol: str
    method: str
    margin: float
    loss: Loss | None
    judged: Judged
    reason: str = ""

    @property
    def name(self) -> str:
        return f"{self.metric} ({self.protocol}) of {self.method}"

    @property
    def worse(self) -> bool:
        """Beyond doubt, be it by less than the margin."""
        return self.judged.lower > (self.loss.least if self.loss else 0)


@dataclass(frozen=True)
class Judgement:
    """All checks of a run, and what else is to be known of it."""

    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        """0: all pass; 1: not all do and something has become worse beyond doubt, be it a loss that is tolerated by
        itself; 2: else, or there is nothing to judge."""
        if self.checks and all(check.judged.verdict == PASS for check in self.checks):
            return 0
        return 1 if any(check.judged.verdict == REGRESSION or check.worse for check in self.checks) else 2

    @property
    def tolerated(self) -> tuple[Check, ...]:
        """Checks that pass although they are worse beyond doubt: their loss is smaller than its margin."""
        return tuple(check for check in self.checks if check.judged.verdict == PASS and check.worse)

    @property
    def needed(self) -> int | None:
        """The images with which all that is undecided now would be decided; None where no number would do."""
        open_ones = [check.judged for check in self.checks if check.judged.verdict == UNDECIDED]
        wanted = [one.needed for one in open_ones if one.needed is not None]
        return max(wanted) if wanted and len(wanted) == len(open_ones) else None


def losses(
    run: Mapping[K, Cell],
    baseline: Mapping[K, Cell],
    reduce: str,
    higher_is_better: bool,
    paired: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[K, Loss]:
    """The loss of each cell that both have, all under one reduction. paired: on the cases that both have, under shared
    draws; else the two are independent samples. error and delta are NaN where no case is in both."""
    both = {key: (matched(run[key], baseline[key]) if paired else (run[key], baseline[key])) for key in run}
    found = {key: _unchanged(pair, run[key], baseline[key], reduce) for key, pair in both.items() if paired}
    left = {key: pair for key, pair in both.items() if found.get(key) is None and _images(*pair) > 1}
    now = draws({key: (pair[0], reduce) for key, pair in left.items()}, resamples, seed)
    then = draws({key: (pair[1], reduce) for key, pair in left.items()}, resamples, seed if paired else seed + 1)
    done: dict[K, Loss] = {}
    for key, (mine, theirs) in both.items():
        known = found.get(key)
        if known is not None:
            done[key] = known
            continue
        numbers, images = (number(theirs, reduce), number(mine, reduce)), _images(mine, theirs)
        error, df, exchanged = np.nan, np.nan, 0.0
        if key in left and paired:
            error, df = _sure(_corrected(now[key] - then[key], images), numbers[0] - numbers[1], images), images - 1.0
            exchanged = above(*((theirs, mine) if higher_is_better else (mine, theirs)), reduce, seed=seed)
        elif key in left:
            error, df = _welch(*(_alone(d[key], c) for d, c in ((now, mine), (then, theirs))))
        apart, delta = _apart(run[key], baseline[key], mine) if paired else 0, numbers[0] - numbers[1]
        done[key] = Loss(*numbers, delta if higher_is_better else -delta, error, df, images, apart, False, exchanged)
    return done


def judge(found: Mapping[K, Loss], margins: Mapping[K, float], alpha: float) -> dict[K, Judged]:
    """The verdict on each loss: `pass` if its upper bound lies below its margin, else `regression` if its lower bound,
    corrected for the number of losses, lies above its `least`, else `undecided`."""
    keys = [key for key, loss in found.items() if np.isfinite(loss.error)]
    ps = [found[key].p for key in keys]
    corrected = dict(zip(keys, holm(ps), strict=True))
    rejected = sum(p <= alpha for p in corrected.values())
    rank = {keys[place]: n for n, place in enumerate(np.argsort(ps, kind="stable"))}
    judged = {}
    for key, loss in found.items():
        if key not in rank:
            judged[key] = Judged(UNDECIDED, np.nan, np.nan)
            continue
        level = alpha / (len(keys) - min(rank[key], rejected))
        lower, upper = loss.lower(level), loss.upper(alpha)
        if loss.identical or upper < margins[key]:
            judged[key] = Judged(PASS, lower, upper)
        elif corrected[key] <= alpha:
            judged[key] = Judged(REGRESSION, lower, upper)
        else:
            judged[key] = Judged(UNDECIDED, lower, upper, needed(loss, margins[key], alpha, level))
    return judged


def needed(loss: Loss, margin: float, alpha: float, level: float) -> int | None:
    """The images with which the upper bound would fall below the margin (at alpha) or the lower one rise above `least`
    (at level), whichever needs fewer, with probability 0.8, if delta is the true loss and the error falls with their
    root."""
    ways = []
    for room, tail in ((margin - loss.delta, alpha), (loss.delta - loss.least, level)):
        if room > 0:
            ways.append(loss.images * ((stats.norm.isf(tail) + stats.norm.ppf(POWER)) * loss.error / room) ** 2)
    return max(int(np.ceil(min(ways))), loss.images + 1) if ways else None


def _unchanged(pair: tuple[Cell, Cell], run: Cell, baseline: Cell, reduce: str) -> Loss | None:
    """The loss of units that are all equal. Where some have no partner, those who have might be the lucky ones: an
    error of one image in all stands for that."""
    mine, theirs = pair
    if not len(mine.images) or not _equal(mine, theirs):
        return None
    value, images, apart = number(mine, reduce), _images(mine, theirs), _apart(run, baseline, mine)
    if not apart:
        return Loss(value, value, 0.0, 0.0, images - 1.0, images, identical=True)
    return Loss(value, value, 0.0, _one_image(value, images), images - 1.0, images, apart) if images > 1 else None


def _equal(a: Cell, b: Cell) -> bool:
    if (a.curves is None) != (b.curves is None) or not np.array_equal(a.values, b.values, equal_nan=True):
        return False
    return a.curves is None or b.curves is None or np.array_equal(a.curves, b.curves)


def _apart(run: Cell, baseline: Cell, common: Cell) -> int:
    return len(run.images) + len(baseline.images) - 2 * len(common.images)


def _images(a: Cell, b: Cell) -> int:
    return min(len(np.unique(a.images)), len(np.unique(b.images)))


def _corrected(drawn: np.ndarray, images: int) -> float:
    """The draws' spread, as of a sample of so many rather than of a population."""
    return float(np.nanstd(drawn)) * float(np.sqrt(images / (images - 1)))


def _alone(drawn: np.ndarray, cell: Cell) -> tuple[float, int]:
    """The error of one sample's number, and its images."""
    images = len(np.unique(cell.images))
    return _sure(_corrected(drawn, images), float(np.nanmean(drawn)), images), images


def _sure(error: float, value: float, images: int) -> float:
    """An error that is not 0: a sample whose units are all equal has drawn none of the others, and one image stands
    for them."""
    return error if error > SURE else _one_image(value, images)


def _one_image(value: float, images: int) -> float:
    return max(1.0, abs(value)) / images


def _welch(one: tuple[float, int], other: tuple[float, int]) -> tuple[float, float]:
    """The error of a difference of two samples' numbers and its degrees of freedom. Welch 1947."""
    squares = [error**2 for error, _ in (one, other)]
    spread = sum(square**2 / (images - 1) for square, (_, images) in zip(squares, (one, other), strict=True))
    return float(np.sqrt(sum(squares))), float(sum(squares) ** 2 / spread)
