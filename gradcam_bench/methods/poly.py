"""Poly-CAM: coarse maps of late layers sharpened by the finer ones of earlier layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from gradcam_bench.ask import Ask
from gradcam_bench.errors import unknown
from gradcam_bench.perturb import Answer, Masked, channel_masks, enlarged, probability, varying, widened
from gradcam_bench.probe import Evidence

VARIANTS = ("plus", "minus", "plus_minus")


def poly_cam(images: Tensor, ask: Ask, pyramid: Sequence[Evidence], variant: str = "plus_minus") -> Tensor:
    """P_l = LNorm(L_l) Up(P_{l+1}) from the last layer down to the first, P_last = L_last, L = relu(sum_k w_k A_k).

    Englebert et al. 2022, sec. 3; [Q,h,w] at the first layer's grid, nowhere negative. LNorm divides a map by itself
    brought bilinearly to the coarser grid and back, 0 where that is 0 (the authors' code: at least 1e-12). With
    M_k = Up(s(A_k)), p_c the softmax probability and w = relu(.) of

        plus        p_c(M_k X)                          PCAM+
        minus       p_c(X) - p_c((1 - M_k) X)           PCAM-
        plus_minus  their sum                           PCAM+-, the paper's main variant

    s is min-max on the grid, before Up (the code takes the grid's 0.1 and 99.9 % points for minimum and maximum, and
    divides by the latter alone). Constant channels are left out. Two forward passes a channel and layer.
    """
    if variant not in VARIANTS:
        raise unknown("variant of poly_cam", variant, VARIANTS)
    maps = []
    for case, image in enumerate(images):
        answer = probability("poly_cam", ask, int(pyramid[-1].targets[case]))
        combined = None
        for evidence in reversed(pyramid):
            features = widened(evidence.features[case]).to(image.device)
            fine = _layer_map(features, varying(features, ask), image, answer, ask.block, variant)
            combined = fine if combined is None else _sharpened(combined, fine)
        maps.append(combined)
    return torch.stack([one for one in maps if one is not None]) if maps else pyramid[0].features.sum(1)


def _layer_map(features: Tensor, channels: Tensor, image: Tensor, answer: Answer, block: int, variant: str) -> Tensor:
    """relu(sum_k w_k A_k), [h,w], of features [C,h,w], `channels` those of them that vary."""
    masked = Masked(image, block)
    if not len(channels):
        return features.sum(0) * 0
    ask_masked = partial(_answers, answer, masked, channels, image, block)
    weights = ask_masked(keep=True) if variant != "minus" else channels.new_zeros(len(channels))
    if variant != "plus":
        weights = weights + answer(image[None]) - ask_masked(keep=False)
    return torch.einsum("k,khw->hw", weights.relu(), channels).relu()


def _answers(answer: Answer, masked: Masked, channels: Tensor, image: Tensor, block: int, keep: bool) -> Tensor:
    """[C]: the answer to the image under each channel's mask, or under what the mask leaves."""
    blocks = channel_masks(channels, image, block, order="scale_first")
    return torch.cat([answer(masked(masks if keep else 1 - masks)) for masks in blocks])


def _sharpened(coarse: Tensor, fine: Tensor) -> Tensor:
    """LNorm of the finer map [h,w] times the coarser, enlarged."""
    local = enlarged(enlarged(fine[None], coarse), fine)[0]
    relative = torch.where(local != 0, fine / local.where(local != 0, 1.0), 0.0)
    return relative * enlarged(coarse[None], fine)[0]
