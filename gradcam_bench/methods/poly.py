"""Poly-CAM: coarse maps of late layers sharpened by the finer ones of earlier layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from gradcam_bench.ask import Ask
from gradcam_bench.errors import unknown
from gradcam_bench.heatmaps import normalize
from gradcam_bench.perturb import Answer, Masked, enlarged, probability, rehearsed, varying, widened
from gradcam_bench.probe import Evidence

VARIANTS = ("plus", "minus", "plus_minus")
SMALLEST = 1e-12


def poly_cam(
    images: Tensor, ask: Ask, pyramid: Sequence[Evidence], variant: str = "plus_minus", released: bool = False
) -> Tensor:
    """P_l = LNorm(L_l) Up(P_{l+1}) from the last layer down to the first, P_last = L_last, L = relu(sum_k w_k A_k).

    Englebert et al. 2022; [Q,h,w] at the first layer's grid, nowhere negative. LNorm divides a map by itself brought
    bilinearly to the coarser grid and back, 0 where that is 0. With M_k = Up(s(A_k)), p_c the class's probability and
    w = relu(.) of

        plus        p_c(M_k X)                          PCAM+
        minus       p_c(X) - p_c((1 - M_k) X)           PCAM-
        plus_minus  their sum                           PCAM+-, the paper's main variant

    s is Score-CAM's min-max, on the grid, before Up; constant channels are left out. released: the authors' code, whose
    s is (A - a) / b cut off at 0 and 1, a and b the 0.1 and 99.9 % points of the grid (b, like what LNorm divides by,
    at least 1e-12), and which leaves nothing out. Two forward passes a channel and layer.
    """
    if variant not in VARIANTS:
        raise unknown("variant of poly_cam", variant, VARIANTS)
    maps = []
    for case, image in enumerate(images):
        answer = probability("poly_cam", ask, int(pyramid[-1].targets[case]))
        combined = None
        for evidence in reversed(pyramid):
            features = widened(evidence.features[case]).to(image.device)
            channels = features[: rehearsed(ask, len(features))] if released else varying(features, ask)
            made = _cut(channels) if released else _scaled(channels)
            fine = _layer_map(channels, made, image, answer, ask.block, variant)
            combined = fine if combined is None else _sharpened(combined, fine, released)
        maps.append(combined)
    return torch.stack([one for one in maps if one is not None]) if maps else pyramid[0].features.sum(1)


def _layer_map(channels: Tensor, scaled: Tensor, image: Tensor, answer: Answer, block: int, variant: str) -> Tensor:
    """relu(sum_k w_k A_k), [h,w], of channels [C,h,w]; scaled: they as masks in [0, 1] on the grid."""
    if not len(channels):
        return channels.sum(0)
    ask_masked = partial(_answers, answer, Masked(image, block), scaled, image, block)
    weights = ask_masked(keep=True) if variant != "minus" else channels.new_zeros(len(channels))
    if variant != "plus":
        weights = weights + answer(image[None]) - ask_masked(keep=False)
    return torch.einsum("k,khw->hw", weights.relu(), channels).relu()


def _answers(answer: Answer, masked: Masked, scaled: Tensor, image: Tensor, block: int, keep: bool) -> Tensor:
    """[C]: the answer to the image under each channel's mask, or under what the mask leaves."""
    blocks = (enlarged(part, image) for part in scaled.split(block))
    return torch.cat([answer(masked(masks if keep else 1 - masks)) for masks in blocks])


def _scaled(channels: Tensor) -> Tensor:
    return normalize(channels, "minmax")


def _cut(channels: Tensor) -> Tensor:
    """(A - a) / b in [0, 1], a and b the 0.1 and 99.9 % points of each channel."""
    points = channels.new_tensor([0.001, 0.999])
    low, high = channels.flatten(1).quantile(points, dim=1)[..., None, None]
    return ((channels - low) / high.clamp(min=SMALLEST)).clamp(0, 1)


def _sharpened(coarse: Tensor, fine: Tensor, released: bool) -> Tensor:
    """LNorm of the finer map [h,w] times the coarser, enlarged."""
    local = enlarged(enlarged(fine[None], coarse), fine)[0]
    if released:
        relative = fine / local.clamp(min=SMALLEST)
    else:
        relative = torch.where(local != 0, fine / local.where(local != 0, 1.0), 0.0)
    return relative * enlarged(coarse[None], fine)[0]
