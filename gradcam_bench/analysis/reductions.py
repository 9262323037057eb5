"""Named reductions: from the statistics of many units to one number. Pure tables, so a bootstrap can call them again.

Each takes the scored units of one cell (one dataset, model, stage, method, metric, protocol) and returns a function of
weights [n,R], how often each unit counts in each of R resamples, that gives their R numbers: NaN where no unit counts.
With all weights 1 that is the number itself, see `number`. near: only resamples of the cell's own images are going to
be asked for, so what cannot be the best of any of them may be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.floating[Any]]
Numbers = Callable[[Floats], Floats]
RECALLS = np.linspace(0, 1, 101)  # COCO's
HOPELESS = 6  # standard errors below the best level from which a level is the best one of no resample


@dataclass(frozen=True)
class Cell:
    """The scored units of one cell: values [n] float (NaN where a metric has only curves), curves [n,T] or None,
    classes [n], images [n] (cluster labels), axes: the protocol's axes that the metric reads."""

    values: Floats
    curves: Floats | None
    classes: NDArray[Any]
    images: NDArray[Any]
    axes: Mapping[str, Any]


def number(cell: Cell, reduce: str, weights: Floats | None = None) -> float:
    """The one number of a cell under a named reduction; weights [n]: how often each unit counts, default once."""
    once = np.ones(len(cell.images)) if weights is None else np.asarray(weights, dtype=np.float64)
    return float(REDUCTIONS[reduce](cell)(once[:, None])[0])


def mean(cell: Cell, near: bool = False) -> Numbers:
    """The mean statistic of a unit."""
    return lambda weights: _ratio(cell.values.astype(weights.dtype) @ weights, weights.sum(0))


def class_mean(cell: Cell, near: bool = False) -> Numbers:
    """The mean over classes of each class' mean; classes without a unit do not count. Zhang et al. 2016."""
    names, codes = np.unique(cell.classes, return_inverse=True)
    where = codes, np.arange(len(codes))
    shape = len(names), len(codes)

    def numbers(weights: Floats) -> Floats:
        values = cell.values.astype(weights.dtype)
        totals = sparse.csr_array((values, where), shape) @ weights
        counts = sparse.csr_array((np.ones_like(values), where), shape) @ weights
        return _ratio(np.nansum(_ratio(totals, counts), axis=0), (counts > 0).sum(0))

    return numbers


def max_over_curve(cell: Cell, near: bool = False) -> Numbers:
    """The best level of the mean curve."""
    return _best(cell, [] if cell.curves is None else [cell.curves], near)


def mean_of_max(cell: Cell, near: bool = False) -> Numbers:
    """The mean over the IoUs demanded of the accuracy at the level that is best for that IoU. Choe et al. 2020.

    Accuracies compare float32 with float32: an IoU of exactly 0.7 counts.
    """
    curves, demanded = cell.curves, cell.axes["iou_threshold"]
    return _best(cell, [] if curves is None else [curves >= np.float32(iou) for iou in demanded], near)


def max_over_rejection(cell: Cell, near: bool = False) -> Numbers:
    """The best accuracy over thresholds of rejection. curves [n,3]: what is compared with the threshold, whether the
    unit is right if kept, and if rejected (below the threshold)."""
    if cell.curves is None:
        return _unknown
    order = np.argsort(cell.curves[:, 0], kind="stable")
    top, kept, rejected = cell.curves[order].T.astype(np.float64)
    cuts = np.flatnonzero(np.append(np.diff(top, prepend=-np.inf) > 0, True))  # never between equal maxima

    def numbers(weights: Floats) -> Floats:
        mine = weights[order].astype(np.float64)
        gained = np.cumsum((rejected - kept)[:, None] * mine, axis=0)
        right = kept @ mine + np.concatenate([np.zeros((1, mine.shape[1])), gained])[cuts]
        return _ratio(right.max(0), mine.sum(0))

    return numbers


def pr_pooled(cell: Cell, near: bool = False) -> Numbers:
    """The area under the precision-recall curve of all units' pixels together. Choe et al. 2020, sec. 3.3.

    curves [n,2L]: pixels of the object at each of L levels, then those of the background. Precision times the recall
    gained, from the highest level down; nothing is interpolated.
    """
    if cell.curves is None:
        return _unknown

    def numbers(weights: Floats) -> Floats:
        pooled = cell.curves.T.astype(np.float64) @ weights  # type: ignore[union-attr]
        true, false = pooled.reshape(2, -1, weights.shape[1])[:, ::-1].cumsum(1)
        gained = np.diff(true, axis=0, prepend=0)
        precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
        return _ratio((precision * gained).sum(0), true[-1])

    return numbers


def ap_pooled(cell: Cell, near: bool = False) -> Numbers:
    """Average precision as COCO has it: the mean over the IoUs demanded of the mean over classes with a true box.

    curves: as `metrics.objects.box_ap` gives them. Detections of equal score keep the order of their units.
    """
    if cell.curves is None:
        return _unknown
    counts = cell.curves[:, 0].astype(np.float64)
    scores, *matched = np.split(cell.curves[:, 1:], 1 + len(cell.axes["iou_threshold"]), axis=1)
    names, codes = np.unique(cell.classes, return_inverse=True)
    mine = [np.flatnonzero(codes == code) for code in range(len(names))]
    found = [(own, *_detections(scores[own], [table[own] for table in matched])) for own in mine]

    def numbers(weights: Floats) -> Floats:
        weights = weights.astype(np.float64)
        total, classes = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
        for own, units, hits in found:
            there = counts[own] @ weights[own]
            precision = [_average_precision(hit, weights[own][units], there) for hit in hits]
            total += np.mean(precision, axis=0)
            classes += there > 0
        return _ratio(total, classes)

    return numbers


def _detections(scores: Floats, matched: list[Floats]) -> tuple[NDArray[np.intp], list[Floats]]:
    """The units [d] of a class' detections by falling score, and for each IoU which are matched [d]."""
    units, places = np.nonzero(scores >= 0)
    order = np.argsort(-scores[units, places], kind="stable")
    return units[order], [table[units, places][order].astype(np.float64) for table in matched]


def _average_precision(hits: Floats, weights: Floats, there: Floats) -> Floats:
    """The mean precision at RECALLS [R] of detections [d] by falling score, which count `weights` [d,R] times; 0 where
    there are no true boxes. A detection answers for the recalls that it is the first to reach."""
    if not len(hits):
        return np.zeros(len(there))
    true, all_of = np.cumsum(hits[:, None] * weights, axis=0), np.cumsum(weights, axis=0)
    precision = np.divide(true, all_of, out=np.zeros_like(true), where=all_of > 0)
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = np.divide(true, there, out=np.zeros_like(true), where=there > 0)
    reached = np.searchsorted(RECALLS, recall, side="right")
    gained = np.diff(reached, axis=0, prepend=0)
    return np.asarray((precision * gained).sum(0) / len(RECALLS) * (there > 0))


def ratio(cell: Cell, near: bool = False) -> Numbers:
    """The sum of the units' numerators over the sum of their denominators: curves [n,2]."""
    if cell.curves is None:
        return _unknown
    over, under = cell.curves.T.astype(np.float64)
    return lambda weights: _ratio(over @ weights, under @ weights)


def _unknown(weights: Floats) -> Floats:
    return np.full(weights.shape[1], np.nan)


def _best(cell: Cell, tables: list[NDArray[Any]], near: bool) -> Numbers:
    """The largest mean over the levels of each table [n,T], and the mean of these."""
    if near:
        tables = [table[:, _hopeful(cell.images, table)] for table in tables]

    def numbers(weights: Floats) -> Floats:
        best = [_ratio((table.T.astype(weights.dtype) @ weights).max(0), weights.sum(0)) for table in tables]
        return np.asarray(np.mean(best, axis=0)) if best else np.full(weights.shape[1], np.nan)

    return numbers


def _hopeful(images: NDArray[Any], table: NDArray[Any]) -> NDArray[Any]:
    """The levels [k] that may be the best one of a resample of the images: those whose sum lies within HOPELESS
    standard errors (of the difference, images being what is drawn) of the best level's."""
    means = table.mean(0, dtype=np.float64)
    codes = np.unique(images, return_inverse=True)[1]
    ahead = np.stack(
        [np.bincount(codes, column.astype(np.float64)) for column in (table - table[:, [means.argmax()]] * 1.0).T]
    )
    spread = np.sqrt(ahead.shape[1]) * ahead.std(1)
    return np.flatnonzero(ahead.sum(1) >= -HOPELESS * spread - 1e-9)


def pooled(cell: Cell) -> Numbers:
    """Weights [n,R] -> counts [1 + C, 3, T, R]: true positives, false positives and false negatives in pixels, summed
    over the data set, of the background and of each class in the order of `np.unique(cell.classes)`. See
    `metrics.segmentation`."""
    names, codes = np.unique(cell.classes, return_inverse=True)
    rows = [np.flatnonzero(codes == k) for k in range(len(names))]

    def counts(weights: Floats) -> Floats:
        assert cell.curves is not None
        curves, half = cell.curves.astype(weights.dtype), cell.curves.shape[1] // 2
        sums = [curves[:, half:].T @ weights, *(curves[mine, :half].T @ weights[mine] for mine in rows)]
        return np.stack(sums).reshape(1 + len(rows), 3, half // 3, weights.shape[1])

    return counts


def ious(counts: Floats) -> Floats:
    """TP / (TP + FP + FN) [K,...] of counts [K,3,...]; NaN where a class is neither there nor predicted."""
    return _ratio(counts[:, 0], counts.sum(1))


def mean_iou(counts: Floats) -> Floats:
    """[...]: the mean over the classes that have an IoU. Everingham et al. 2010."""
    return _over_classes(ious(counts))


def _precision(counts: Floats) -> Floats:
    return _over_classes(_ratio(counts[:, 0], counts[:, 0] + counts[:, 1]))


def _recall(counts: Floats) -> Floats:
    return _over_classes(_ratio(counts[:, 0], counts[:, 0] + counts[:, 2]))


def _spilt(counts: Floats) -> Floats:
    return _over_classes(_ratio(counts[1:, 1], counts[1:].sum(1)))


def _lacking(counts: Floats) -> Floats:
    return _over_classes(_ratio(counts[1:, 2], counts[1:].sum(1)))


def _over_classes(shares: Floats) -> Floats:
    """[...] from [K,...]: the mean of those that are there."""
    return _ratio(np.nansum(shares, axis=0), (~np.isnan(shares)).sum(0))


def _at_best(statistic: Callable[[Floats], Floats], cell: Cell, near: bool = False) -> Numbers:
    """A statistic of the pooled counts, at the level of the curve at which their mean IoU is best."""
    of = pooled(cell)

    def numbers(weights: Floats) -> Floats:
        if cell.curves is None or not weights.any():
            return np.full(weights.shape[1], np.nan)
        counts = of(weights)
        best = np.nan_to_num(mean_iou(counts), nan=-1.0).argmax(0)
        return np.asarray(np.take_along_axis(statistic(counts), best[None], 0)[0])

    return numbers


def _ratio(totals: Floats, counts: NDArray[Any]) -> Floats:
    return np.divide(totals, counts, out=np.full(totals.shape, np.nan, totals.dtype), where=counts > 0)


def harmonic_of_means(cell: Cell, near: bool = False) -> Numbers:
    """The harmonic mean of the points of the mean curve; 0 where one of them is. Poppi et al. 2021 (ADCC), eq. 5."""

    def numbers(weights: Floats) -> Floats:
        if cell.curves is None:
            return np.full(weights.shape[1], np.nan)
        means = _ratio(
            cell.curves.T.astype(np.float64) @ weights,
            np.broadcast_to(weights.sum(0), (cell.curves.shape[1], weights.shape[1])),
        )
        inverse = np.divide(1.0, means, out=np.full(means.shape, np.inf), where=means > 0).sum(0)
        return np.where(np.isnan(means).any(0), np.nan, len(means) / inverse)

    return numbers


REDUCTIONS: dict[str, Callable[..., Numbers]] = {
    "mean": mean,
    "class_mean": class_mean,
    "max_over_curve": max_over_curve,
    "mean_of_max": mean_of_max,
    "max_over_rejection": max_over_rejection,
    "pr_pooled": pr_pooled,
    "ap_pooled": ap_pooled,
    "ratio": ratio,
    "harmonic_of_means": harmonic_of_means,
    "miou_pooled": partial(_at_best, mean_iou),
    "max_miou_pooled": partial(_at_best, mean_iou),  # of curves with several levels
    "precision_pooled": partial(_at_best, _precision),
    "recall_pooled": partial(_at_best, _recall),
    "false_positives_pooled": partial(_at_best, _spilt),
    "false_negatives_pooled": partial(_at_best, _lacking),
}
