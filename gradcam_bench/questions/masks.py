"""The image under each unit's map, what the network says of it and how it then explains it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from gradcam_bench.questions.answers import fill, once, shape_axes, witness
from gradcam_bench.questions.removal import places
from gradcam_bench.trial import Trial


def under_map(trial: Trial) -> Tensor:
    """[U,K]: the logits of the image under each unit's map. Reads fill, perturb_keep and what `in_input` reads."""
    p = trial.protocol
    key = ("under_map", p.fill, p.perturb_keep, *shape_axes(trial))
    return once(trial, key, lambda: witness(trial).outputs(one[None] for one in masked_images(trial)))


def masked_images(trial: Trial) -> Iterator[Tensor]:
    """Each unit's E = M x + (1 - M) fill, [3,H,W]: M the map in [0, 1], of which only the share `perturb_keep` of all
    pixels with the largest values is kept (the rest is 0; of equals the first in reading order are kept)."""
    asked, p = witness(trial), trial.protocol
    filled = fill(asked, p.fill)
    for heatmap in trial.in_input:
        mask = heatmap if p.perturb_keep == 1 else top(heatmap, p.perturb_keep)
        yield (asked.image - filled) * mask.to(filled.device) + filled


def top(heatmap: Tensor, share: float) -> Tensor:
    """A map [H,W] with all but its largest ceil(share * H * W) values set to 0."""
    chosen = places(heatmap)[: math.ceil(share * heatmap.numel())]
    flat = torch.zeros_like(heatmap).flatten()
    flat[chosen] = heatmap.flatten()[chosen]
    return flat.reshape(heatmap.shape)


def coherency(trial: Trial) -> Tensor:
    """[U] in [0, 1]: (r + 1) / 2, r Pearson's correlation of the map with the map of the image under it.

    NaN for a constant map, which correlates with nothing; 1/2 where only the second map is constant."""
    p = trial.protocol
    key = ("coherency", p.fill, p.perturb_keep, *shape_axes(trial))

    def make() -> Tensor:
        units = range(len(trial))
        seen = trial.again(witness(trial).explain(torch.stack(list(masked_images(trial))), units), units)
        return (correlation(trial.in_input.flatten(1), seen.flatten(1)) + 1) / 2

    found = once(trial, key, make)
    for unit in found.isnan().nonzero().flatten().tolist():
        trial.notes[unit] = "a constant map correlates with nothing"
    return found


def complexity(trial: Trial) -> Tensor:
    """[U] the mean absolute value of the map."""
    return trial.in_input.double().abs().mean((1, 2)).float()


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's r of the rows of two [n,m]: [n]. NaN where a row of `first` is constant, 0 where one of `second` is."""
    a, b = (rows.double() - rows.double().mean(1, keepdim=True) for rows in (first, second))
    varies_a, varies_b = (rows.amax(1) > rows.amin(1) for rows in (first, second))
    norm = a.norm(dim=1) * b.norm(dim=1)
    r = ((a * b).sum(1) / norm.where(norm > 0, 1.0)).clamp(-1, 1)
    return torch.where(varies_a, torch.where(varies_b, r, 0.0), torch.nan).float()
