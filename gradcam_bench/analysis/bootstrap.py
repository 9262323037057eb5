"""How far a number may be off: intervals of the summary's numbers, by resampling images.

Images are drawn, not cases, as the cases of one image go together (a cluster bootstrap; Efron and Tibshirani 1993, sec.
8.3; Field and Welsh 2007). Cells of the same images share their draws, so that differences between methods can be
taken draw by draw. What a number was maximised over (a threshold) is maximised over again in every draw.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gradcam_bench.analysis.reductions import REDUCTIONS, Cell, Floats, number

RESAMPLES, LEVEL = 2000, 0.95
CHUNK = 2**23  # entries of a matrix of weights
SAME = 1e-6  # draws that are no further apart are one number, but for float32's sums
MAXIMISED = ("max_over_curve", "mean_of_max", "max_over_rejection", "max_miou_pooled")
K = TypeVar("K", bound=Hashable)


def intervals(
    cells: Mapping[K, tuple[Cell, str]],
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    stratified: bool = False,
) -> dict[K, tuple[float, float]]:
    """(low, high) of each cell's number under its named reduction; NaN where fewer than two images were scored.

    Shares (a mean of zeros and ones, one unit an image) have the exact interval of Clopper and Pearson 1934; means the
    percentiles of the bootstrap; what is maximised its bias-corrected percentiles (Efron and Tibshirani 1993, sec.
    14.3), since a resample's maximum lies above the sample's more often than not. Where all draws of a share, of
    whatever kind, are the same (12 of 12 hit), nothing of what else there may be was drawn: as many images of 0 or 1
    have the exact interval. stratified: images are drawn within each class, and no share but such a one is exact.
    """
    found, left = {}, {}
    for key, (cell, reduce) in cells.items():
        images = len(np.unique(cell.images))
        if images < 2:
            found[key] = (np.nan, np.nan)
        elif not stratified and reduce == "mean" and images == len(cell.images) and np.isin(cell.values, (0, 1)).all():
            found[key] = clopper_pearson(int(cell.values.sum()), images, level)
        else:
            left[key] = (cell, reduce)
    for key, drawn in draws(left, resamples, seed, stratified).items():
        cell, reduce = left[key]
        value = number(cell, reduce)
        if _is_share(cell, value) and np.ptp(drawn) < SAME:
            images = len(np.unique(cell.images))
            found[key] = clopper_pearson(value * images, images, level)
        else:
            found[key] = percentiles(drawn, value if reduce in MAXIMISED else None, level)
    return {key: found[key] for key in cells}


def _is_share(cell: Cell, value: float) -> bool:
    """Of zeros and ones, or where there are only curves (of accuracies or IoUs) of nothing or all."""
    return bool(np.isin(cell.values, (0, 1)).all() or (np.isnan(cell.values).all() and value in (0, 1)))


def draws(
    cells: Mapping[K, tuple[Cell, str]], resamples: int = RESAMPLES, seed: int = 0, stratified: bool = False
) -> dict[K, Floats]:
    """Each cell's number in `resamples` bootstrap draws of its images, [R]; the same draws for the same images."""
    groups: dict[bytes, list[K]] = {}
    for key, (cell, _) in cells.items():
        together = np.unique(cell.images).astype(str)
        groups.setdefault("\n".join(together).encode(), []).append(key)
    found: dict[K, Floats] = {}
    for keys in groups.values():
        parts = _resampled([cells[key] for key in keys], resamples, seed, stratified)
        found |= {key: np.concatenate(part) for key, part in zip(keys, zip(*parts, strict=True), strict=True)}
    return found


def percentiles(drawn: Floats, about: float | None = None, level: float = LEVEL) -> tuple[float, float]:
    """The central share `level` of the draws [R]; about: the sample's own number, to correct for the draws' bias."""
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return np.nan, np.nan
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if about is not None:
        below = ((drawn < about).mean() + (drawn <= about).mean()) / 2  # ties count half
        shift = stats.norm.ppf(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
        tails = stats.norm.cdf(2 * shift + stats.norm.ppf(tails))
    low, high = np.quantile(drawn, tails)
    return float(low), float(high)


def clopper_pearson(hits: float, count: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a share of `hits` in `count` independent units; hits may be a fraction, as of classes."""
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, hits, count - hits + 1) if hits else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)


def _resampled(
    cells: Sequence[tuple[Cell, str]], resamples: int, seed: int, stratified: bool
) -> Iterator[list[Floats]]:
    """For a chunk of resamples after the other, each cell's numbers. The cells are of the same images."""
    names, first = np.unique(cells[0][0].images, return_index=True)
    strata = cells[0][0].classes[first] if stratified else np.zeros(len(names))
    rows = [np.searchsorted(names, cell.images) for cell, _ in cells]
    plain = [np.array_equal(row, np.arange(len(names))) for row in rows]
    size = max(CHUNK // len(names), 1)
    numbers = [REDUCTIONS[reduce](cell, near=True) for cell, reduce in cells]
    counts = [min(size, resamples - start) for start in range(0, resamples, size)]
    seeds = np.random.SeedSequence(seed).spawn(len(counts))

    def chunk(count: int, own: np.random.SeedSequence) -> list[Floats]:
        weights = _weights(np.random.default_rng(own), count, strata)
        return [of(weights if same else weights[row]) for of, row, same in zip(numbers, rows, plain, strict=True)]

    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(chunk, counts, seeds)


def _weights(rng: np.random.Generator, count: int, strata: NDArray[Any]) -> Floats:
    """How often each image is drawn in `count` resamples [n,count] float32, each stratum being drawn from by itself."""
    weights = np.empty((len(strata), count), np.float32)
    for stratum in np.unique(strata):
        mine = np.flatnonzero(strata == stratum)
        drawn = rng.integers(0, len(mine), (count, len(mine)), dtype=np.int32)
        drawn += np.arange(count, dtype=np.int32)[:, None] * len(mine)
        weights[mine] = np.bincount(drawn.ravel(), minlength=count * len(mine)).reshape(count, len(mine)).T
    return weights
