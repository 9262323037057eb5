"""Whether two numbers truly differ: both on the same cases, image by image.

Two methods see the same images, easy ones and hard ones, so their numbers go up and down together, and what tells them
apart is the difference on each image. A cell's unit is paired with the other's of the same image and class; what one of
them alone has scored is left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gradcam_bench.analysis.bootstrap import LEVEL, MAXIMISED, RESAMPLES, draws, percentiles
from gradcam_bench.analysis.exchange import PERMUTATIONS, permutation
from gradcam_bench.analysis.reductions import Cell, Floats, number

POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """a - b under one reduction, on the n units in I images that both cells have.

    a, b: the two numbers. low, high: the 95 % interval of a - b (bootstrap of images, both under the same draws).
    p: of the permutation test that exchanges the two on each image, two-sided. mcnemar: exact, where the units are
    zeros and ones, one an image; wilcoxon: of the signed ranks of images' differences; NaN where they do not apply.
    effect: the difference in standard deviations of an image's share in it (Cohen's d_z, for a mean). detectable: the
    smallest difference that so many images show with power 0.8 at the 5 % level. only_a, only_b: units left out.
    """

    a: float
    b: float
    n: int
    difference: float
    low: float
    high: float
    p: float
    mcnemar: float
    wilcoxon: float
    effect: float
    detectable: float
    only_a: int
    only_b: int


def difference(
    a: Cell, b: Cell, reduce: str, resamples: int = RESAMPLES, permutations: int = PERMUTATIONS, seed: int = 0
) -> Difference:
    """How much the number of cell a lies above that of cell b; see `Difference`. All NaN without common units."""
    mine, theirs = matched(a, b)
    left = len(a.images) - len(mine.images), len(b.images) - len(theirs.images)
    if not len(mine.images):
        nothing = dict.fromkeys(("a", "b", "difference", "low", "high", "p", "mcnemar", "wilcoxon", "effect"), np.nan)
        return Difference(**nothing, detectable=np.nan, n=0, only_a=left[0], only_b=left[1])
    numbers = number(mine, reduce), number(theirs, reduce)
    gap, images = numbers[0] - numbers[1], len(np.unique(mine.images))
    drawn = draws({"a": (mine, reduce), "b": (theirs, reduce)}, resamples, seed)
    gaps = drawn["a"] - drawn["b"]
    known = images > 1 and bool(np.isfinite(gaps).any())
    spread = float(np.nanstd(gaps)) if known else np.nan
    low, high = percentiles(gaps, gap if reduce in MAXIMISED else None) if images > 1 else (np.nan, np.nan)
    each = _by_image(mine, theirs)
    return Difference(
        *numbers,
        len(mine.images),
        gap,
        low,
        high,
        permutation(mine, theirs, reduce, permutations, seed),
        mcnemar(mine, theirs),
        _wilcoxon(each),
        gap / (spread * np.sqrt(images)) if spread > 0 else np.nan,
        float(sum(stats.norm.ppf([(1 + LEVEL) / 2, POWER])) * spread),
        *left,
    )


def matched(a: Cell, b: Cell) -> tuple[Cell, Cell]:
    """The units of two cells that are of the same image and class, in the same order. Raises ValueError where a cell
    has two of one."""
    mine, theirs = _keys(a), _keys(b)
    for keys in (mine, theirs):
        if len(np.unique(keys)) != len(keys):
            raise ValueError("two units of one case: a cell mixes views, stages or draws")
    _, first, second = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
    return _take(a, first), _take(b, second)


def mcnemar(a: Cell, b: Cell) -> float:
    """The exact p of McNemar 1947: the units that one alone has right are as likely to be either's. NaN unless the
    values are zeros and ones, one an image."""
    values = np.stack([a.values, b.values])
    if not np.isin(values, (0, 1)).all() or len(np.unique(a.images)) != len(a.images):
        return np.nan
    alone = int((values[0] > values[1]).sum()), int((values[0] < values[1]).sum())
    return float(stats.binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm 1979; NaN stays and is not counted."""
    given = np.asarray(ps, dtype=np.float64)
    corrected = np.full(len(given), np.nan)
    order = np.argsort(given, kind="stable")[: int(np.isfinite(given).sum())]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return [float(p) for p in corrected]


def all_pairs(
    cells: Mapping[str, Cell], reduce: str, **settings: Any
) -> dict[tuple[str, str], tuple[Difference, float]]:
    """The difference of each pair of cells, in the order given, and its p after Holm's correction for all of them."""
    pairs = list(combinations(cells, 2))
    found = [difference(cells[a], cells[b], reduce, **settings) for a, b in pairs]
    corrected = holm([one.p for one in found])
    return dict(zip(pairs, zip(found, corrected, strict=True), strict=True))


def _keys(cell: Cell) -> NDArray[Any]:
    return np.array([f"{image}#{label}" for image, label in zip(cell.images, cell.classes, strict=True)], dtype=object)


def _take(cell: Cell, rows: NDArray[Any]) -> Cell:
    curves = None if cell.curves is None else cell.curves[rows]
    return Cell(cell.values[rows], curves, cell.classes[rows], cell.images[rows], cell.axes)


def _by_image(a: Cell, b: Cell) -> Floats:
    """The difference of each image's mean value, [I]; NaN where there are only curves."""
    codes = np.unique(a.images, return_inverse=True)[1]
    return np.asarray(np.bincount(codes, a.values - b.values) / np.bincount(codes))


def _wilcoxon(differences: Floats) -> float:
    if not np.isfinite(differences).all():
        return np.nan
    changed = differences[differences != 0]
    return float(stats.wilcoxon(changed).pvalue) if len(changed) else 1.0
