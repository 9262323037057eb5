"""Class-activation maps gathered along a path of images. [Q,h,w]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradcam_bench.perturb import baseline_colour


def integrated_grad_cam(
    images: Tensor, look: Any, black: Tensor, steps: int = 50, baseline: str = "black", released: bool = False
) -> Tensor:
    """mean_t relu(sum_k a_k(t) (A_k(t) - A_k(0))), a_k(t) = mean_ij G_kij(t), at images x' + t/m (x - x'), t = 1..m.

    Sattarzadeh et al. 2021; the ReLU stands inside the integral, so no value is negative; m = `steps`, 50 in their
    code. baseline: the image x', `black` (black [3,1,1] is that after the network's normalisation) or `zero` (the mean
    colour, zero after normalisation). released: the authors' released notebook, which takes t = 0..m-1, leaves A_k(0)
    out, and has a baseline of zeros.
    """
    maps = []
    for case, image in enumerate(images):
        start = baseline_colour(baseline, black)
        along = torch.arange(steps + 1).to(image).reshape(-1, 1, 1, 1) / steps
        along = along[:-1] if released else along
        looked = look(start + along * (image - start), torch.full((len(along),), case))
        features = looked.features if released else looked.features[1:] - looked.features[:1]
        weights = looked.gradients[-steps:].mean((2, 3))
        maps.append(torch.einsum("tc,tchw->thw", weights, features).relu().mean(0))
    return torch.stack(maps) if maps else images.sum(1)
