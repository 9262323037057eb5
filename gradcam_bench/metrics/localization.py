"""Scores of boxes. All rest on one curve: at each of the 256 levels, the best IoU of a box of the map with a true box.

From that curve the fixed threshold, the oracle one, every IoU demanded and their intervals all follow
(`analysis.reductions`), so it is what is stored.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from gradcam_bench import heatmaps
from gradcam_bench.regions.boxes import best_iou
from gradcam_bench.regions.truth import in_frame
from gradcam_bench.trial import Trial


def localization_error_gt_known(trial: Trial) -> tuple[Tensor, Tensor]:
    """1 where no box at the fixed threshold has IoU >= `iou_threshold` with a true box, else 0: [U], with the curve.

    The ILSVRC rule for the true class (`GT-known`). Russakovsky et al. 2015, sec. 4.2; Selvaraju et al. 2017, sec. 4.1.
    The curve [U,256] holds the best IoU at each level.
    """
    curve = _curve(trial)
    return _error(trial, curve), curve


def localization_error_top1(trial: Trial) -> Tensor:
    """1 where the class is not the model's first answer, or its box is wrong; else 0: [U].

    Selvaraju et al. 2017, table 1.

    One true class an image: the map of a predicted class can be right only where that class is the true one, so the
    map of the true class decides, once the class is among those predicted.
    """
    return _error(trial, _curve(trial), 1)


def localization_error_top5(trial: Trial) -> Tensor:
    """1 where the class is not among the model's first five, or its box is wrong; else 0: [U].  As for top-1."""
    return _error(trial, _curve(trial), 5)


def max_box_acc(trial: Trial) -> tuple[None, Tensor]:
    """The best IoU at each level, [U,256]; MaxBoxAcc is the accuracy at the one threshold that suits the data set best.

    Choe et al. 2020, sec. 3.3 (v1: `rule: wsol_v1`, IoU 0.5) and its journal version (MaxBoxAccV2: `wsol_v2`, the mean
    over IoU 0.3, 0.5, 0.7, each with a threshold of its own). There is no statistic a case, only the curve.
    """
    return None, _curve(trial)


def cor_loc(trial: Trial) -> tuple[Tensor, Tensor]:
    """1 where a box at the fixed threshold has IoU >= `iou_threshold` with a true box of the class, else 0: [U].

    CorLoc, the mean over classes of the share of their images that are right.  Deselaers, Alexe and Ferrari 2012, sec.
    6 (theirs: IoU above 0.5). A case all of whose objects are `difficult` is skipped. In [0, 1]; several IoUs demanded:
    the mean over them. The curve [U,256] holds the best IoU at each level.
    """
    curve = _curve(trial)
    right = 1 - _error(trial, curve)
    for unit in range(len(trial)):
        if trial.hard(unit):
            right[unit], curve = torch.nan, _without(curve, unit)
    return right, curve


def box_iou(trial: Trial) -> tuple[Tensor, Tensor]:
    """The best IoU of a box at the fixed threshold with a true box of the class, 0 where there is no box: [U].

    In [0, 1]. What CorLoc and the localization error compare with their bound, before the comparison. The curve [U,256]
    holds it at every level.
    """
    curve = _curve(trial)
    return curve[:, heatmaps.level(trial.protocol.threshold, trial.protocol.quantize)], curve


def _without(curve: Tensor, unit: int) -> Tensor:
    """The curve, that of one unit unknown; the one that other metrics share is left alone."""
    curve = curve.clone()
    curve[unit] = torch.nan
    return curve


def _error(trial: Trial, curve: Tensor, top: int | None = None) -> Tensor:
    p = trial.protocol
    at = curve[:, heatmaps.level(p.threshold, p.quantize)]
    wrong = (at[:, None] < torch.tensor(p.iou_threshold, dtype=curve.dtype)).float().mean(1)  # mean over IoUs demanded
    for unit, rank in enumerate(trial.ranks):
        if top is not None and rank is None:
            trial.notes[unit] = "no rank of the class: no model, or outputs not finite"
            wrong[unit] = torch.nan
        elif top is not None and rank >= top:  # type: ignore[operator]
            wrong[unit] = 1.0
    return torch.where(curve.isnan().any(1), torch.nan, wrong)


def _curve(trial: Trial) -> Tensor:
    """[U,256] float32 in [0, 1], NaN for a unit without true boxes; once for metrics that agree on the axes."""
    p = trial.protocol
    read = (*trial.preparation, p.frame, p.quantize, p.rule, p.connectivity, p.iou, p.matching)
    key = ("best_iou", *read)
    if key not in trial.cache:
        levels = trial.levels.cpu().numpy()
        curve = torch.full((len(trial), 256), torch.nan)
        for unit in range(len(trial)):
            truth = in_frame(trial.boxes(unit), trial.frame, p.frame, p.iou)
            if not len(truth):
                trial.notes.setdefault(unit, "no box of the class lies in the frame")
            if len(truth):
                # Of equal maps, made by other choices or methods, the components are found once.
                same = hashlib.blake2b(levels[unit].tobytes(), digest_size=16).digest()
                passes = trial.cache.setdefault(("passes", levels[unit].shape, same), {})
                found = best_iou(levels[unit], truth.numpy(), p.rule, p.connectivity, passes)
                curve[unit] = torch.from_numpy(found)
        trial.cache[key] = curve, dict(trial.notes)
    curve, notes = trial.cache[key]
    trial.notes.update(notes)
    return curve
