"""Seeds: one label map out of the heatmaps of an image's classes, to train a segmentation network with.

Labels are numbers by the order of the maps: 0 background, 1 + q the class of map q, `UNKNOWN` nobody's. A pixel is of
the class whose map is highest there, of equals the first, unless the background's constant level is as high (Ahn and
Kwak 2018; Ahn et al. 2019, the authors' eval_cam.py; Wang et al. 2020, evaluation.py). So a pixel is its winner's at
the levels below its highest value and background at the others: all levels are counted in one pass.

SEC's cues (Kolesnikov and Lampert 2016) are no such partition: a class takes what is above a share of its own maximum,
the background what is least salient, and much stays unknown.
"""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

UNKNOWN = 255
SHARE = 0.2  # of its maximum, above which SEC gives a pixel to a class
CUE_SIDE = 41  # pixels: what SEC's network gives for an input of 321


def contest(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Who wins each pixel of maps [Q,H,W], and with what: winner [H,W] int64 in 0..Q-1, of equals the first, and its
    value [H,W]."""
    value, winner = maps[0], torch.zeros(maps.shape[1:], dtype=torch.int64)
    for q in range(1, len(maps)):
        better = maps[q] > value
        winner, value = torch.where(better, q, winner), torch.where(better, maps[q], value)
    return winner, value


def at_level(maps: Tensor, background: float) -> Tensor:
    """Labels [H,W] uint8 of maps [Q,H,W] where the background stands at one level; ties go to it."""
    winner, value = contest(maps)
    return torch.where(value > value.new_tensor(background), winner + 1, 0).to(torch.uint8)


def sweep(value: Tensor, levels: Tensor) -> Tensor:
    """At how many of the rising levels [T] a pixel of winning value [H,W] is its winner's: int64 [H,W] in 0..T.

    That is at levels 0..n-1: those strictly below the value, compared in the value's own precision.
    """
    return torch.bucketize(value, levels.to(value.dtype))


def count(truth: Tensor, winner: Tensor, stays: Tensor, classes: int, levels: int) -> Tensor:
    """True positives, false positives and false negatives [1 + Q, 3, T] float64 of background and Q classes, in pixels.

    truth [H,W] int64: 0 background, 1 + q, Q + 1 a class that was not asked for, Q + 2 what does not count. winner,
    stays: of `contest` and `sweep`. One histogram over (truth, winner, stays), added up from either end.
    """
    joint = (truth * classes + winner) * (levels + 1) + stays
    held = torch.bincount(joint.flatten(), minlength=(classes + 3) * classes * (levels + 1)).double()
    held = held.reshape(classes + 3, classes, levels + 1)[:-1]
    won = held.flip(-1).cumsum(-1).flip(-1)[..., 1:]  # pixels still their winner's at each level, [Q+2,Q,T]
    lost = held.cumsum(-1)[..., :-1].sum(1, keepdim=True)  # pixels that are background there, [Q+2,1,T]
    return _counts(torch.cat([lost, won], 1))


def compare(held: Tensor, labels: Tensor) -> Tensor:
    """The same three counts [1 + Q, 3, 1] for one label map. held [N,Q+2]: how many pixels of each truth are in each of
    the N cells that labels [N] are of. UNKNOWN cells are nobody's: what truth is there is missed."""
    classes = held.shape[1] - 2
    taken = torch.stack([held[labels == label].sum(0) for label in range(classes + 1)], 1)
    missed = held[labels == UNKNOWN].sum(0)
    found = _counts(taken[..., None])
    found[:, 2, 0] += missed[: classes + 1]
    return found


def _counts(taken: Tensor) -> Tensor:
    """Of pixels [true, labelled, T] the true and false positives and false negatives of each label, [labelled,3,T]."""
    hits = torch.stack([taken[label, label] for label in range(taken.shape[1])])
    return torch.stack([hits, taken.sum(0) - hits, taken.sum(1)[: len(hits)] - hits], 1)


def cues(maps: Tensor, saliency: Tensor, threshold: float = SHARE, share: float = 0.1) -> Tensor:
    """SEC's localization cues: labels [41,41] uint8 from maps [Q,h,w] and a saliency [h,w], both brought to that size.

    Kolesnikov and Lampert 2016, and the authors' notebooks: a class holds what is above `threshold` of its
    map's maximum; where several do, the one that holds fewer pixels (of equals the first). What no class holds is
    background where the saliency, through a 3 x 3 median filter, is below its `share`-quantile, else UNKNOWN.
    A map that is nowhere positive holds nothing.
    """
    size = (CUE_SIDE, CUE_SIDE)
    small = F.interpolate(torch.cat([maps, saliency[None]])[None], size, mode="bilinear", align_corners=False)[0]
    tops = small[:-1].amax((1, 2))
    holds = (small[:-1] > threshold * tops[:, None, None]) & (tops > 0)[:, None, None]
    calm = torch.from_numpy(ndimage.median_filter(small[-1].numpy(), 3))
    limit = calm.flatten().sort().values[int(share * calm.numel())]
    labels = torch.full(size, UNKNOWN, dtype=torch.uint8)
    labels[calm < limit] = 0
    areas = holds.sum((1, 2))
    for q in sorted(range(len(maps)), key=lambda q: (-int(areas[q]), -q)):  # the smallest is painted last
        labels[holds[q]] = q + 1
    return labels


def painted(labels: Tensor, classes: list[int]) -> Tensor:
    """Labels [H,W] uint8 by the order of the maps -> by class: 0 background, 1 + class, UNKNOWN as it was."""
    table = torch.full((256,), UNKNOWN, dtype=torch.uint8)
    table[: len(classes) + 1] = torch.tensor([0, *(label + 1 for label in classes)], dtype=torch.uint8)
    return table[labels.long()]
