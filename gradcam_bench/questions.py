"""What metrics ask of a witness: the image under a map, and the image as its pixels go one after the other.

Answers are shared: what two metrics of one trial ask alike is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from gradcam_bench import perturb
from gradcam_bench.trial import Trial
from gradcam_bench.witness import Witness

T = TypeVar("T")
BLUR_SIGMA, BLUR_RADIUS = 5.0, 5  # 11 pixels wide, as RISE's evaluation has it


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
    p = trial.protocol
    return p.rectify, p.normalize, p.resize, p.order


def fill(asked: Witness, how: str) -> Tensor:
    """[3,H,W], what stands where pixels of the witness' image are taken away.

    `mean` (0 after normalisation: the training data's mean colour), `black` and `white` (of the raw picture),
    `own_mean` (the image's mean colour), `blur` (a Gaussian of sigma 5 on 11x11 pixels, with zeros beyond the border:
    RISE's evaluation).
    """
    image = asked.image
    if how == "blur":
        return perturb.blur(image, BLUR_SIGMA, BLUR_RADIUS, "zero")
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


def under_map(trial: Trial) -> Tensor:
    """[U,K]: the logits of the image under each unit's map. Reads fill, perturb_keep and what `in_input` reads."""
    p = trial.protocol
    key = ("under_map", p.fill, p.perturb_keep, *shape_axes(trial))
    return once(trial, key, lambda: witness(trial).outputs(one[None] for one in masked_images(trial)))


def masked_images(trial: Trial) -> Iterator[Tensor]:
    """Each unit's E = M x + (1 - M) fill, [3,H,W]: M the map in [0, 1], of which only the share `perturb_keep` of all
    pixels with the largest values is kept (the rest is 0; of equals the first in reading order are kept)."""
    asked, p = witness(trial), trial.protocol
    image = asked.image
    masked = perturb.Masked(image, 1, None if p.fill == "mean" else fill(asked, p.fill))
    for heatmap in trial.in_input:
        mask = heatmap if p.perturb_keep == 1 else top(heatmap, p.perturb_keep)
        yield masked(mask[None].to(image.device))[0]


def top(heatmap: Tensor, share: float) -> Tensor:
    """A map [H,W] with all but its largest ceil(share * H * W) values set to 0."""
    kept = -int(-share * heatmap.numel() // 1)
    chosen = places(heatmap)[:kept]
    flat = torch.zeros_like(heatmap).flatten()
    flat[chosen] = heatmap.flatten()[chosen]
    return flat.reshape(heatmap.shape)


def places(heatmap: Tensor) -> Tensor:
    """[H*W] the pixels of a map [H,W] from its largest value to its smallest; of equals the first in reading order
    comes first."""
    return heatmap.flatten().argsort(descending=True, stable=True)


def ranks(heatmap: Tensor) -> Tensor:
    """[H,W] int64: how many pixels come before each in `places`."""
    order = places(heatmap)
    found = torch.empty_like(order)
    found[order] = torch.arange(len(order))
    return found.reshape(heatmap.shape)
