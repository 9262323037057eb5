"""Scores of the thresholded map's pixels. Each rests on counts of pixels at the 256 levels."""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench import heatmaps
from gradcam_bench.trial import Trial


def pixel_ap(trial: Trial) -> tuple[None, Tensor]:
    """How many pixels of the object, then how many of the background, are at each level: [U,512], 2 x 256 counts.

    PxAP is the area under the precision-recall curve of all pixels of the data set taken together, in [0, 1]: sum over
    levels, falling, of precision x the recall gained there, nothing interpolated.  Choe et al. 2020, sec. 3.3 and the
    authors' evaluation.py. The object is the union of the class' masks; pixels to ignore count neither way, all others
    are background. Ties (pixels of one level) are taken together. The authors' histogram has 1000 bins, this one the
    map's 256 levels, which is theirs at an interval of 1/255. There is no statistic a case, only the counts.
    """
    counts = torch.full((len(trial), 512), torch.nan)
    for unit, levels in enumerate(trial.levels):
        mask = trial.mask(unit)
        if mask is not None:
            background = ~(mask | trial.ignored)
            counts[unit] = torch.cat([levels[kind].bincount(minlength=256) for kind in (mask, background)]).float()
    return None, counts


def grad_cam_pp_loc(trial: Trial) -> tuple[Tensor, Tensor]:
    """Pixels above the threshold inside the class' boxes / (the boxes' area + those outside of them): [U].

    Loc(delta) of Grad-CAM++, Chattopadhay et al. 2018, eq. 26: an IoU, since the pixels outside are those predicted
    less those inside. In [0, 1]. Several boxes of the class count as their union, in whole pixels of the frame. A case
    whose class is not among the model's first five is not scored. The curve [U,256] holds it at every level.
    """
    p = trial.protocol
    curve = torch.full((len(trial), 256), torch.nan)
    for unit, levels in enumerate(trial.levels):
        box = trial.inside(unit)
        rank = trial.ranks[unit]
        if rank is None:
            trial.notes[unit] = "no rank of the class: no model, or outputs not finite"
        elif rank >= 5:
            trial.notes[unit] = "the class is not among the model's first five"
        elif box is not None:
            inside, outside = (_above(levels[kind]) for kind in (box, ~box))
            curve[unit] = inside / (box.sum() + outside)
    return curve[:, heatmaps.level(p.threshold, p.quantize)], curve


def _above(levels: Tensor) -> Tensor:
    """How many of levels [n] uint8 are above each level: [256]."""
    counts = levels.bincount(minlength=256)
    return counts.sum() - counts.cumsum(0)
