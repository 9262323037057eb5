"""What the network still says of an image of which only the heatmap's part is left: E = map * image.

Chattopadhay et al. 2018 (Grad-CAM++), sec. 4.1. Y is the answer for the whole image, O for E. The map is brought to the
input's pixels and to [0, 1]; what it takes away is replaced by `fill`, of which `mean` is the multiplication of the
normalised image, as the released programs have it. A flat map of ones has no drop at all, so no number here says where
a map points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.questions.answers import answers, probabilities, whole
from gradcam_bench.questions.masks import under_map
from gradcam_bench.trial import Trial


def average_drop(trial: Trial) -> Tensor:
    """max(0, Y - O) / Y with Y, O the class' probabilities, in [0, 1]: [U].  Chattopadhay et al. 2018, sec. 4.1 (i).

    Published in percent. NaN where Y is 0 in single precision.
    """
    before, after = _confidences(trial)
    for unit in (before <= 0).nonzero().flatten().tolist():
        trial.notes[unit] = "the probability of the class is 0"
    return torch.where(before > 0, (before - after).clamp(min=0) / before, torch.nan)


def average_drop_absolute(trial: Trial) -> Tensor:
    """max(0, Y - O), not divided by Y: [U], in [0, 1] for probabilities. Some libraries call this the drop.

    Reads `answer`: probability, logit, or whether the class is the first answer.
    """
    before, after = _answers(trial)
    return (before - after).clamp(min=0)


def increase(trial: Trial) -> Tensor:
    """1 where O > Y, strictly, else 0: [U].  Chattopadhay et al. 2018, sec. 4.1 (ii), `increase in confidence`."""
    before, after = _answers(trial)
    return (after > before).float()


def average_gain(trial: Trial) -> Tensor:
    """max(0, O - Y) / (1 - Y) with Y, O the class' probabilities, in [0, 1]: [U].  Zhang et al. 2024 (Opti-CAM).

    0 where Y is 1: nothing is left to gain.
    """
    before, after = _confidences(trial)
    return torch.where(before < 1, (after - before).clamp(min=0) / (1 - before), 0.0)


def win(trial: Trial) -> Tensor:
    """The share of the run's other methods whose drop for the same case is larger, in [0, 1], ties counting half: [U].

    Chattopadhay et al. 2018, sec. 4.1 (iii), compare two methods and so have the share of images that one wins; with
    two methods in the run this is that, and the two add up to 1 (in the paper they do save for ties). It depends on
    which methods are in the run. NaN for a method that is alone.
    """
    before, after = _confidences(trial)
    drops, classes = (before - after).clamp(min=0), torch.tensor(list(trial.classes))
    won = torch.full((len(trial),), torch.nan)
    for unit in range(len(trial)):
        others = classes == classes[unit]
        others[unit] = False
        if others.any():
            theirs = drops[others]
            won[unit] = ((theirs > drops[unit]).float() + (theirs == drops[unit]).float() / 2).mean()
        else:
            trial.notes[unit] = "there is no other method in the run"
    return won


def _confidences(trial: Trial) -> tuple[Tensor, Tensor]:
    """(Y, O) [U]: the class' probability for the whole image and for what the map leaves."""
    return probabilities(trial, whole(trial)), probabilities(trial, under_map(trial))


def _answers(trial: Trial) -> tuple[Tensor, Tensor]:
    """(Y, O) [U] as `answer` has it."""
    return answers(trial, whole(trial)), answers(trial, under_map(trial))
