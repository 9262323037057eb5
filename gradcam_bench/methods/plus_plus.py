"""Grad-CAM++ beside its closed form (`gradient.grad_cam_pp`): the authors' code, and the mean over noisy images.

A [Q,C,h,w] are the activations, G the gradients; i, j, a, b run over the grid, k over channels. Heatmaps [Q,h,w].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradcam_bench.errors import unknown
from gradcam_bench.probe import Evidence


def grad_cam_pp_code(evidence: Evidence) -> Tensor:
    """sum_k w_k A_k, w_k = sum_ij alpha_kij relu(G_kij) / sum_ij alpha_kij, both sums over places with G > 0.

    Chattopadhay et al. 2018 as their released code has it: alpha = G^2 / (2 G^2 + sum_ab A_kab G^3), a denominator of 0
    replaced by 1, and normalised channel by channel, which the paper's eq. 19 (`grad_cam_pp`) is not. The code's factor
    exp(S) is common to a map and left out: exp of a logit overflows, and every normalisation drops it.
    """
    features, grads = evidence.features, evidence.gradients
    below = 2 + features.sum((2, 3), keepdim=True) * grads  # [Q,C,h,w], that of alpha over G^2
    alpha = torch.where(below != 0, 1 / below, grads**2).where(grads > 0, 0.0)
    total = alpha.sum((2, 3))
    weights = (alpha * grads.relu()).sum((2, 3)) / total.where(total != 0, 1.0)
    return torch.einsum("qc,qchw->qhw", weights, features)


def smooth_grad_cam_pp(
    evidence: Evidence,
    images: Tensor,
    look: Any,
    generators: Sequence[torch.Generator],
    samples: int = 4,
    sigma: float = 0.3,
    numerator: str = "first",
) -> Tensor:
    """sum_k w_k A_k, w_k = sum_ij alpha_kij relu(D1_kij), Dp the mean over noisy images of G^p, A of the image itself.

    Omeiza et al. 2019: alpha = D1 / (2 D2 + sum_ab A_kab D3), 0 where that is 0; noise ~ N(0, sigma^2) on the image as
    it is fed. numerator: `first`, the paper's D1, or `second`, D2, as Grad-CAM++ and torchcam have it, which calls D1 a
    slip (and takes gradient and activations of its last sample for relu(D1) and A). samples, sigma: the user's in the
    paper; here torchcam's.
    """
    if numerator not in ("first", "second"):
        raise unknown("numerator of smooth_grad_cam_pp", numerator, ("first", "second"))
    maps = []
    for case, (image, generator) in enumerate(zip(images, generators, strict=True)):
        noise = torch.randn((samples, *image.shape), generator=generator).to(image)
        looked = look(image + sigma * noise, torch.full((samples,), case))
        grads, features = looked.gradients.double(), evidence.features[case].double()
        first, second, third = (grads.pow(power).mean(0) for power in (1, 2, 3))
        below = 2 * second + features.sum((1, 2), keepdim=True) * third
        alpha = (first if numerator == "first" else second) / below.where(below != 0, torch.inf)
        maps.append(torch.einsum("c,chw->hw", (alpha * first.relu()).sum((1, 2)), features))
    return torch.stack(maps).to(evidence.features.dtype) if maps else evidence.features.sum(1)
