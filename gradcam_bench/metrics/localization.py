"""Scores of boxes. All rest on one curve: at each of the 256 levels, the best IoU of a box of the map with a true box.

From that curve the fixed threshold, the oracle one, every IoU demanded and their intervals all follow
(`analysis.reductions`), so it is what is stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench import heatmaps
from gradcam_bench.geometry import Size, area
from gradcam_bench.regions.boxes import best_iou
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
    read = (p.rectify, p.normalize, p.resize, p.order, p.frame, p.quantize, p.rule, p.connectivity, p.iou, p.matching)
    key = ("best_iou", *read)
    if key not in trial.cache:
        levels = trial.levels.cpu().numpy()
        curve = torch.full((len(trial), 256), torch.nan)
        for unit in range(len(trial)):
            truth = _true_boxes(trial, unit)
            if len(truth):
                passes = trial.cache.setdefault(("passes", unit, *read[:6]), {})
                found = best_iou(levels[unit], truth.numpy(), p.rule, p.connectivity, passes)
                curve[unit] = torch.from_numpy(found)
        trial.cache[key] = curve, dict(trial.notes)
    curve, notes = trial.cache[key]
    trial.notes.update(notes)
    return curve


def _true_boxes(trial: Trial, unit: int) -> Tensor:
    """True boxes [G,4] of the unit's class, half-open, float64, in the frame's pixels.

    `wsol`: as wsolevaluation brings them there: inclusive corners, scaled, truncated to whole pixels; its IoU adds one
    pixel to each side, which is what half-open corners one further on amount to. It warps; under a crop, its place in
    the resized image is taken off and the boxes end where the crop does. `corners`: the same, but no pixel is added,
    and a box of which the crop leaves nothing is no box.
    """
    boxes, frame = trial.boxes(unit).double(), trial.frame
    if trial.protocol.iou in ("wsol", "corners"):
        corners = boxes - boxes.new_tensor([0, 0, 1, 1])
        if trial.protocol.frame == "input":
            (height, width), (oy, ox) = frame.source, frame.offset
            scaled = [round(height * frame.scale[0]), round(width * frame.scale[1])]  # what a crop was cut from
            corners = corners * boxes.new_tensor(scaled[::-1] * 2) / boxes.new_tensor([width, height] * 2)
            corners = corners - boxes.new_tensor([ox, oy] * 2)
        if trial.protocol.iou == "wsol":
            return _inside(corners.floor() + boxes.new_tensor([0, 0, 1, 1]), trial.size)
        left = _inside(corners.floor(), trial.size)
        left = left[area(left) > 0]
        if len(boxes) and not len(left):
            trial.notes[unit] = "no box of the class lies in the frame"
        return left
    return boxes if trial.protocol.frame == "source" else frame.to_input(boxes)


def _inside(boxes: Tensor, size: Size) -> Tensor:
    return boxes.clamp(min=0).minimum(boxes.new_tensor([size[1], size[0]] * 2))
