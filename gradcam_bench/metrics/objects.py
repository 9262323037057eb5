"""Scores of all objects of a class: which of them has a box of its own?

The map's boxes at the fixed threshold are detections, a box's score the map's mass in it above the threshold. They are
matched with true boxes as COCO does (Lin et al. 2014, the evaluation of pycocotools): by falling score, each takes the
free true box that it overlaps most, if their IoU is at least that demanded. Meant for `rule: components`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradcam_bench import heatmaps
from gradcam_bench.geometry import box_iou
from gradcam_bench.regions.boxes import boxes_at
from gradcam_bench.regions.truth import in_frame
from gradcam_bench.trial import Trial

MOST = 100  # detections of a class in an image, as in COCO


class Matches(NamedTuple):
    """D detections by falling score against G true boxes, at each of T IoUs demanded."""

    scores: Tensor  # [D] float64
    matched: Tensor  # [T,D] bool: has a true box of its own
    again: Tensor  # [T,D] bool: would have one, were it not taken
    truths: int


def instance_recall(trial: Trial) -> tuple[Tensor, Tensor]:
    """The share of the class' true boxes that have a box of the map of their own, in [0, 1]: [U].

    The score is that of the data set's boxes all together: the curve [U,2] holds those found (the mean over the IoUs
    demanded) and those there.
    """
    return _shares(trial, lambda one: (one.matched.sum(1).double().mean(), one.truths))


def duplicates(trial: Trial) -> tuple[Tensor, Tensor]:
    """The share of the map's boxes that find a true box which a stronger one has already found, in [0, 1]: [U].

    The score is that of the data set's boxes all together: the curve [U,2] holds such boxes (the mean over the IoUs
    demanded) and all boxes of maps. A map without a box has no duplicate: 0.
    """
    return _shares(trial, lambda one: (one.again.sum(1).double().mean(), len(one.scores)))


def box_ap(trial: Trial) -> tuple[None, Tensor]:
    """What average precision is made of: [U,1+100(1+T)], the number of true boxes, the scores of up to 100 boxes of the
    map (-1: no more of them), and for each of T IoUs demanded which of them are matched.

    AP of COCO: detections of all images by falling score, the precision at 101 recalls, made monotonous, its mean, the
    mean over classes with a true box, and over the IoUs; in [0, 1]. Every box of the map of a class that is not in the
    image (view.target=top5) is a false positive.
    """
    count = len(trial.protocol.iou_threshold)
    found = torch.full((len(trial), 1 + MOST * (1 + count)), torch.nan)
    for unit in range(len(trial)):
        one = _matches(trial, unit, may_be_absent=True)
        if one is not None:
            row = torch.zeros(1 + count, MOST)
            row[0] = -1
            kept = len(one.scores)
            row[0, :kept], row[1:, :kept] = one.scores.float(), one.matched.float()
            found[unit, 0], found[unit, 1:] = one.truths, row.flatten()
    return None, found


def _shares(trial: Trial, parts_of: Callable[[Matches], tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """The ratio [U] of two counts [U,2], 0 where there is nothing to count."""
    counts = torch.full((len(trial), 2), torch.nan, dtype=torch.float64)
    for unit in range(len(trial)):
        one = _matches(trial, unit)
        if one is not None:
            counts[unit] = torch.tensor([float(part) for part in parts_of(one)])
    share = torch.where(counts[:, 1] == 0, 0.0, counts[:, 0] / counts[:, 1])
    return share, counts.float()


def _matches(trial: Trial, unit: int, may_be_absent: bool = False) -> Matches | None:
    """The unit's detections against its true boxes; None where these are not known. Once for all metrics here."""
    p = trial.protocol
    truth = in_frame(trial.boxes(unit), trial.frame, p.frame, p.iou)
    if not len(truth) and not (may_be_absent and trial.absent(unit)):
        trial.notes.setdefault(unit, "no box of the class lies in the frame")
        return None
    axes = (*trial.preparation, p.frame, p.quantize, p.rule, p.connectivity, p.iou, p.matching)
    key = ("matches", unit, *axes, p.threshold, p.iou_threshold)
    if key not in trial.cache:
        level = heatmaps.level(p.threshold, p.quantize)
        levels = trial.levels[unit]
        boxes = torch.from_numpy(boxes_at(levels.numpy(), level, p.rule, p.connectivity)).double()
        scores = _masses(trial.maps[unit].double().clamp(min=0) * (levels > level), boxes)
        order = scores.argsort(descending=True, stable=True)[:MOST]
        overlaps = box_iou(boxes[order], truth).float().numpy()
        pairs = [_greedy(overlaps, np.float32(demanded)) for demanded in p.iou_threshold]
        matched, again = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        trial.cache[key] = Matches(scores[order], matched, again, len(truth))
    found: Matches = trial.cache[key]
    return found


def _masses(mass: Tensor, boxes: Tensor) -> Tensor:
    """The sum of mass [H,W] in each of boxes [D,4] of whole pixels: [D]."""
    height, width = mass.shape
    sums = torch.zeros(height + 1, width + 1, dtype=torch.float64)
    sums[1:, 1:] = mass.cumsum(0).cumsum(1)
    x0, y0, x1, y1 = boxes.long().T
    x1, y1 = x1.clamp(max=width), y1.clamp(max=height)
    return sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]


def _greedy(overlaps: NDArray[np.float32], demanded: np.float32) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(matched [D], again [D]) of overlaps [D,G], the detections by falling score."""
    count, truths = overlaps.shape
    matched, again, free = np.zeros(count, bool), np.zeros(count, bool), np.ones(truths, bool)
    for detection in range(count if truths else 0):
        best = int(np.where(free, overlaps[detection], -1).argmax())
        matched[detection] = free[best] and overlaps[detection, best] >= demanded
        again[detection] = not matched[detection] and overlaps[detection].max() >= demanded
        free[best] &= not matched[detection]
    return matched, again
