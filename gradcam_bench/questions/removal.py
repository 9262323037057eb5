"""The image as its pixels go, the most important first or last: replaced by a colour, or imputed from what is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

import torch
from torch import Tensor

from gradcam_bench.questions.answers import answers, fill, once, shape_axes, whole, witness
from gradcam_bench.questions.imputation import impute
from gradcam_bench.trial import Trial


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


def curve(trial: Trial, inserting: bool) -> Tensor:
    """[U,T+1]: the class' answer when floor(k H W / T) pixels, the map's largest first, have been taken away (or, when
    inserting, put in), k = 0 to T = `perturb_steps`. Reads answer, fill (or fill_insertion), perturb_steps and what
    `in_input` reads."""
    p = trial.protocol
    how = p.fill_insertion if inserting else p.fill
    key = ("removal", inserting, how, p.perturb_steps, *shape_axes(trial))
    return answers(trial, once(trial, key, lambda: _removed(trial, how, inserting)))


def _removed(trial: Trial, how: str, inserting: bool) -> Tensor:
    """[U,T+1,K] logits. The two ends are the same for every unit, and asked once."""
    asked, steps = witness(trial), int(trial.protocol.perturb_steps)
    filled = fill(asked, how)
    pixels = filled[0].numel()
    counts = [k * pixels // steps for k in range(1, steps)]
    first, second = (filled, asked.image) if inserting else (asked.image, filled)
    between = (image for heatmap in trial.in_input for image in _mixed(first, second, heatmap, counts))
    logits = asked.outputs(chain([filled[None]], between))
    ends = [x.expand(len(trial), 1, -1) for x in (whole(trial)[:1, None], logits[:1, None])]
    inner = logits[1:].reshape(len(trial), steps - 1, -1)
    return torch.cat([ends[inserting], inner, ends[not inserting]], 1)


def _mixed(first: Tensor, second: Tensor, heatmap: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
    """Images [1,3,H,W]: `second` in the map's so many largest pixels, `first` elsewhere. Each is valid until the next
    is asked for, from which it differs in a few pixels, and lies channels last, as networks are fed."""
    order = places(heatmap).to(first.device)
    mixed, coming = (image.permute(1, 2, 0).reshape(-1, len(image)) for image in (first, second))
    mixed, coming = mixed.clone(), coming[order]
    for before, count in pairwise([0, *counts]):
        mixed[order[before:count]] = coming[before:count]
        yield mixed.reshape(*heatmap.shape, -1).permute(2, 0, 1)[None]


def area(curve: Tensor, rule: str) -> Tensor:
    """[U] of curves [U,T+1]: the area under each over [0, 1] by the trapezoid rule, or the mean of its points without
    the first (Poly-CAM's program)."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1) if rule == "trapezoid" else curve[:, 1:].mean(1)


def road(trial: Trial, least_first: bool) -> Tensor:
    """[U,T]: the class' answer when a share `perturb_shares` of the pixels is gone and imputed from the others (noisy
    linear imputation). Reads answer, perturb_shares, perturb_noise and what `in_input` reads."""
    p = trial.protocol
    key = ("road", least_first, p.perturb_shares, p.perturb_noise, *shape_axes(trial))

    def make() -> Tensor:
        logits = witness(trial).outputs(_imputed(trial, least_first))
        return logits.reshape(len(trial), len(p.perturb_shares), -1)

    return answers(trial, once(trial, key, make))


def road_combined(trial: Trial) -> Tensor:
    """[U]: half of the mean difference between the answers when the least and when the most important pixels go."""
    return (road(trial, least_first=True) - road(trial, least_first=False)).mean(1) / 2


def removed_pixels(share: float, pixels: int) -> int:
    """How many pixels go: those at or above the linearly interpolated percentile 100 - share, of a map without ties."""
    return 1 + int(share * (pixels - 1) / 100 + 1e-9)


def _imputed(trial: Trial, least_first: bool) -> Iterator[Tensor]:
    asked, p = witness(trial), trial.protocol
    image = asked.image.cpu().numpy()
    for unit, heatmap in enumerate(trial.in_input):
        order = ranks(-heatmap if least_first else heatmap).numpy()
        for share in p.perturb_shares:
            gone = order < removed_pixels(share, order.size)
            found = torch.from_numpy(impute(image, gone)).to(asked.image.device)
            if p.perturb_noise:
                noise = torch.randn(found.shape, generator=asked.generator(f"road/{share:g}", unit))
                found += p.perturb_noise * (noise * torch.from_numpy(gone)).to(found.device)
            yield found[None]
