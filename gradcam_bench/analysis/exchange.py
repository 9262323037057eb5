"""The permutation test of two matched cells: the two are exchanged on each image by coin.

Under the null hypothesis it does not matter which of the two a statistic on an image came from. Whatever is reduced can
be tested so, as a coin is a weight; means and best levels, which are sums over units before they are a number, take a
short cut with the same coins and the same result. Of zeros and ones, one an image, it is the sign test (McNemar 1947).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcam_bench.analysis.policies import shares
from gradcam_bench.analysis.reductions import HOPELESS, REDUCTIONS, Cell, Floats, number

PERMUTATIONS = 10_000
CHUNK = 2**22  # entries of a matrix of weights
SLACK = 1e-12  # of two ways to add up
FEW = 12  # images on which two cells differ: so many are exchanged in every way
ENOUGH = 200  # exchanges that reach the observed gap: the p of more of them would be no other


def permutation(a: Cell, b: Cell, reduce: str, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """The share of exchanges (of the two cells on each image, by coin) after which the numbers are at least as far
    apart, the data themselves counted as one. a, b: matched."""
    codes = np.unique(a.images, return_inverse=True)[1]
    apart = _apart(a, b, reduce, codes)
    observed = abs(number(a, reduce) - number(b, reduce))
    size, extreme, done = max(CHUNK // (2 * len(codes)), 1), 0, 0
    rng = np.random.default_rng(seed)
    while done < permutations:
        count = min(size, permutations - done)
        coins = rng.integers(0, 2, (codes.max() + 1, count), dtype=np.int8)
        extreme += int((np.abs(apart(coins)) >= observed - SLACK).sum())
        done += count
    return (extreme + 1) / (permutations + 1)


def above(a: Cell, b: Cell, reduce: str, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """One-sided: the share of exchanges after which the number of a lies as far above that of b as it does, or further.
    a, b: matched. Exact where they differ on FEW images or less, as every exchange of those is made. Else drawn until
    ENOUGH have reached the gap (Besag and Clifford 1991); 0 where none did."""
    codes = np.unique(a.images, return_inverse=True)[1]
    apart = _apart(a, b, reduce, codes)
    images, moved = codes.max() + 1, np.unique(codes[_differ(a, b)])
    observed = float(apart(np.ones((images, 1), np.int8))[0])
    every = 2 ** len(moved) if len(moved) <= FEW else 0
    size, extreme, done = max(CHUNK // (2 * len(codes)), 1), 0, 0
    rng = np.random.default_rng(seed)
    while done < (every or permutations) and (every or extreme < ENOUGH):
        count = min(size, (every or permutations) - done)
        coins = rng.integers(0, 2, (images, count), dtype=np.int8)
        if every:
            coins[moved] = np.arange(done, done + count) >> np.arange(len(moved))[:, None] & 1
        extreme += int((apart(coins) >= observed - SLACK).sum())
        done += count
    return extreme / every if every else (extreme + 1) / (done + 1) if extreme else 0.0


def _differ(a: Cell, b: Cell) -> NDArray[np.bool_]:
    """Which units of two matched cells are not the same."""
    apart = (a.values != b.values) & ~(np.isnan(a.values) & np.isnan(b.values))
    if a.curves is not None and b.curves is not None:
        apart |= (a.curves != b.curves).any(axis=1)
    return np.asarray(apart)


def _apart(a: Cell, b: Cell, reduce: str, codes: NDArray[Any]) -> Callable[[NDArray[np.int8]], Floats]:
    """From coins [I,R] (1: each keeps its own on image i) to how far [R] the number of a then lies above that of b.
    codes: the image of each unit."""
    if reduce in ("mean", "class_mean"):  # every exchange leaves a class as many units as it had
        weights = shares(a.classes, reduce, np.ones(len(codes), bool))
        each = np.bincount(codes, weights * (a.values - b.values))
        return lambda coins: each @ (2.0 * coins - 1.0)
    if reduce in ("mean_of_max", "max_over_curve") and a.curves is not None and b.curves is not None:
        return _best_apart(_tables(a, reduce), _tables(b, reduce), codes)
    numbers = REDUCTIONS[reduce](_joined(a, b))

    def apart(coins: NDArray[np.int8]) -> Floats:
        mine = coins[codes].astype(np.float64)
        return numbers(np.concatenate([mine, 1 - mine])) - numbers(np.concatenate([1 - mine, mine]))

    return apart


def _tables(cell: Cell, reduce: str) -> list[Floats]:
    """What each unit is worth at each level [n,T], whose best level is asked for: one table for each IoU demanded."""
    assert cell.curves is not None
    if reduce == "max_over_curve":
        return [cell.curves.astype(np.float64)]
    return [(cell.curves >= np.float32(iou)).astype(np.float64) for iou in cell.axes["iou_threshold"]]


def _best_apart(mine: list[Floats], theirs: list[Floats], codes: NDArray[Any]) -> Callable[[NDArray[np.int8]], Floats]:
    """Sums over the images of the one cell are sums of the other plus the differences that the coins keep."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    parts = []
    for ours, others in zip(mine, theirs, strict=True):
        gaps = np.add.reduceat((ours - others)[order], starts)
        sums = ours.sum(0), others.sum(0)
        kept = _hopeful(sums[0] + sums[1], gaps)
        parts.append((sums[0][kept], sums[1][kept], gaps[:, kept].T))

    def apart(coins: NDArray[np.int8]) -> Floats:
        tossed, gap = coins.astype(np.float64), np.zeros(coins.shape[1])
        for ours, others, gaps in parts:
            moved = gaps @ tossed
            gap += (others[:, None] + moved).max(0) - (ours[:, None] - moved).max(0)
        return gap / (len(parts) * len(codes))

    return apart


def _hopeful(both: Floats, gaps: Floats) -> NDArray[Any]:
    """The levels [k] that an exchange may make the best one of either cell: half the sum of both lies within HOPELESS
    standard errors of the best level's."""
    top = both.argmax()
    spread = np.sqrt(((gaps - gaps[:, [top]]) ** 2).sum(0)) / 2
    return np.flatnonzero((both[top] - both) / 2 <= HOPELESS * spread + 1e-9)


def _joined(a: Cell, b: Cell) -> Cell:
    curves = None if a.curves is None or b.curves is None else np.concatenate([a.curves, b.curves])
    values, classes, images = (
        np.concatenate([getattr(a, name), getattr(b, name)]) for name in ("values", "classes", "images")
    )
    return replace(a, values=values, curves=curves, classes=classes, images=images)
