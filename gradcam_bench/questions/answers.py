"""What metrics read off a witness' answers, what stands where pixels are taken away, and how answers are shared: what
two metrics of one trial ask alike is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench import perturb
from gradcam_bench.trial import Trial
from gradcam_bench.witness import Witness

T = TypeVar("T")
BLUR = torch.from_numpy(gaussian_filter1d(np.eye(11)[5], 5.0))  # [11]; a Gaussian folded back at the ends of 11 pixels


def witness(trial: Trial) -> Witness:
    """The trial's witness; a metric that reaches this without one was called outside a run."""
    if trial.witness is None:
        raise ValueError("this metric questions the network: the trial needs a witness")
    return trial.witness


def once(trial: Trial, key: tuple[object, ...], make: Callable[[], T]) -> T:
    """make(), or what it made for the same key before. A key names all the axes that the answer depends on."""
    if key not in trial.cache:
        trial.cache[key] = make()
    found: T = trial.cache[key]
    return found


def shape_axes(trial: Trial) -> tuple[object, ...]:
    """The values of the axes that `Trial.in_input` reads, for keys."""
    return trial.preparation


def fill(asked: Witness, how: str) -> Tensor:
    """[3,H,W], what stands where pixels of the witness' image are taken away.

    `mean` (0 after normalisation: the training data's mean colour), `black` and `white` (of the raw picture),
    `own_mean` (the image's mean colour), `blur` (RISE's evaluation: a Gaussian of sigma 5 on 11x11 pixels, what would
    lie outside of them folded back, and zeros beyond the image's border), `blur_mirror` (Poly-CAM's: a Gaussian of
    sigma 5 cut off at 11x11 pixels, the image mirrored beyond its border).
    """
    image = asked.image
    if how == "blur":
        kernel = BLUR.to(image)
        down = F.conv2d(image[:, None], kernel[None, None, :, None], padding=(5, 0))
        return F.conv2d(down, kernel[None, None, None], padding=(0, 5))[:, 0]
    if how == "blur_mirror":
        return perturb.blur(image, 5.0, 5, "mirror")
    if how in ("black", "white"):
        return getattr(asked, how).to(image).expand_as(image)
    return perturb.fill(image, how)


def answers(trial: Trial, logits: Tensor, units: Sequence[int] | None = None) -> Tensor:
    """Logits [N,...,K] of unit n (or units[n]) -> what is read off for its class, [N,...] float32. Reads answer.

    `probability` (softmax, or sigmoid where the network is multi-label), `logit`, `top1` (1 where the class is the
    first answer, of equals the one of the smallest index).
    """
    how = trial.protocol.answer
    numbers = range(len(trial)) if units is None else units
    classes = torch.tensor([trial.classes[unit] for unit in numbers])
    if how == "top1":
        return (logits.argmax(-1) == classes.reshape(-1, *[1] * (logits.ndim - 2))).float()
    kind = witness(trial).probabilities(logits.flatten(0, -2)).reshape(logits.shape) if how == "probability" else logits
    return torch.stack([kind[n, ..., c] for n, c in enumerate(classes.tolist())])


def probabilities(trial: Trial, logits: Tensor) -> Tensor:
    """Logits [U,K] -> the probability of each unit's class, [U]."""
    return witness(trial).probabilities(logits)[torch.arange(len(trial)), torch.tensor(list(trial.classes))]


def whole(trial: Trial) -> Tensor:
    """[U,K]: the logits of the image itself, once a unit."""
    return witness(trial).logits.expand(len(trial), -1)
