"""What a chosen threshold is worth: the same stored curves, their threshold chosen in five ways, side by side.

    fixed          the protocol's threshold, stated beforehand
    validation     the best one on the rows of another run, of a validation split
    cross_fitted   for each of K folds of images the best one on the other folds: what a threshold chosen on data like
                   these is worth on images that it was not chosen on
    oracle         the best one on these very rows, as MaxBoxAcc has it (Choe et al. 2020): a leak
    image_oracle   each image's own best one: a larger leak, the bound of what any threshold can give

The leakage gap is how much better the oracle looks than the cross-fitted threshold. Each IoU demanded has a threshold
of its own, as in MaxBoxAccV2, save under `fixed`. Of equally good thresholds the lowest is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradcam_bench.analysis.reductions import Cell, Floats
from gradcam_bench.analysis.summary import KEYS, Cards, cells
from gradcam_bench.axes import AXES
from gradcam_bench.cells import Rows
from gradcam_bench.heatmaps import fraction, level

FOLDS = 10
COLUMNS = [*KEYS, "iou", "policy", "threshold", "value", "n", "leak"]
LEAKS = {"fixed": False, "validation": False, "cross_fitted": False, "oracle": True, "image_oracle": True}
Found = dict[str, tuple[float, float]]  # policy -> (level, value)


def policies(
    rows: Rows, cards: Cards, validation: tuple[Rows, Cards] | None = None, folds: int = FOLDS, seed: int = 0
) -> pd.DataFrame:
    """The table of thresholds, COLUMNS, of every metric whose card says what its curve holds at each level.

    cards: as for `summary.summarize`. validation: rows and cards of a validation split; its cell of the same model,
    stage, method, metric and protocol chooses. iou: that demanded, NaN for the mean over several or where the curve
    holds the statistic itself. threshold: a fraction of the normalised map; over folds, their median; NaN where every
    image has its own, and for the mean. n: units. leak: whether the threshold was chosen on the rows that it is judged
    by. seed: of the folds.
    """
    chooser = {key[1:]: (cell, card) for key, cell, card in _curved(*validation)} if validation else {}
    records = []
    for key, cell, card in _curved(rows, cards):
        for iou, policy, threshold, value in _lines(cell, card, chooser.get(key[1:]), folds, seed):
            value = 1 - value if card["higher_is_better"] is False else value  # an error: less is better
            records.append((*key, iou, policy, threshold, value, len(cell.images), LEAKS[policy]))
    return pd.DataFrame(records, columns=COLUMNS)


def _lines(
    cell: Cell, card: Mapping[str, Any], other: tuple[Cell, Mapping[str, Any]] | None, folds: int, seed: int
) -> Iterator[tuple[float, str, float, float]]:
    """(iou, policy, threshold, share or statistic) of one cell; other: the cell that is to choose, with its card."""
    axes = card["axes"]
    stated = axes.get("threshold", AXES["threshold"].default)
    at_stated = level(stated, axes["quantize"])
    elsewhere = [(table, other[0]) for _, table in tables(*other)] if other else []
    each: list[Found] = []
    for number, (iou, table) in enumerate(tables(cell, card)):
        each.append(judged(table, cell, card["reduce"], at_stated, elsewhere[number] if other else None, folds, seed))
        for policy, (at, value) in each[-1].items():
            yield iou, policy, stated if policy == "fixed" else fraction(at, axes["quantize"]), value
    for policy in each[0] if len(each) > 1 else ():
        yield np.nan, policy, np.nan, float(np.mean([found[policy][1] for found in each]))


def tables(cell: Cell, card: Mapping[str, Any]) -> list[tuple[float, Floats]]:
    """What each unit is worth at each level, [n,256], higher better: for each IoU demanded whether the best IoU comes
    up to it, or (NaN) the statistic itself."""
    if cell.curves is None:
        return []
    if card["levels"] == "value":
        return [(np.nan, cell.curves.astype(np.float64))]
    return [(iou, (cell.curves >= np.float32(iou)).astype(np.float64)) for iou in card["axes"]["iou_threshold"]]


def judged(
    table: Floats, cell: Cell, reduce: str, stated: int, given: tuple[Floats, Cell] | None, folds: int, seed: int
) -> Found:
    """Each policy's level (NaN if there are several) and value, of a table [n,256] of the cell's units."""
    weights = shares(cell.classes, reduce, np.ones(len(table), bool))
    at_all = weights @ table
    images = np.unique(cell.images, return_inverse=True)[1]
    found: Found = {"fixed": (stated, float(at_all[stated]))}
    if given is not None:
        chosen = best(given[0], shares(given[1].classes, reduce, np.ones(len(given[0]), bool)))
        found["validation"] = (chosen, float(at_all[chosen]))
    if images.max() > 0:
        found["cross_fitted"] = cross_fitted(table, cell.classes, images, reduce, folds, seed)
    top = best(table, weights)
    found["oracle"] = (top, float(at_all[top]))
    order = np.argsort(images, kind="stable")
    starts = np.flatnonzero(np.diff(images[order], prepend=-1))
    found["image_oracle"] = (np.nan, float(np.add.reduceat((weights[:, None] * table)[order], starts).max(1).sum()))
    return found


def shares(classes: NDArray[Any], reduce: str, used: NDArray[np.bool_]) -> Floats:
    """What each used unit weighs in the number, [n]: alike, or under `class_mean` alike within a class and classes
    alike. They add up to 1."""
    if reduce != "class_mean":
        return used / used.sum()
    codes = np.unique(classes, return_inverse=True)[1]
    counts = np.bincount(codes, used)
    return used / np.maximum(counts, 1)[codes] / (counts > 0).sum()


def best(table: Floats, weights: Floats) -> int:
    """The level at which units [n,256] of such weights are worth most; the lowest of equals."""
    return int(np.round(weights @ table, 12).argmax())


def cross_fitted(
    table: Floats, classes: NDArray[Any], images: NDArray[Any], reduce: str, folds: int = FOLDS, seed: int = 0
) -> tuple[float, float]:
    """The median level, and the value of a table [n,256] whose units are judged at the level that is best for the
    other folds of images. images: their numbers [n], from 0."""
    count = int(images.max()) + 1
    turn = np.random.default_rng(seed).permutation(count) % min(folds, count)  # each image's fold
    weights = shares(classes, reduce, np.ones(len(table), bool))
    levels, value = [], 0.0
    for fold in range(min(folds, count)):
        held = turn[images] == fold
        levels.append(best(table, shares(classes, reduce, ~held)))
        value += float(weights[held] @ table[held, levels[-1]])
    return float(np.median(levels)), value


def _curved(rows: Rows, cards: Cards) -> Iterator[tuple[tuple[str, ...], Cell, Mapping[str, Any]]]:
    """The cells whose curves hold something at each threshold, with their cards."""
    for key, cell, card, _ in cells(rows, cards, lambda card: bool(card.get("levels"))):
        if cell.curves is not None:
            yield key, cell, card
