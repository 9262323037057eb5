"""Class-activation maps whose channels are weighted by what the network says of the image seen through them.

Each returns heatmaps [Q,h,w] at the grid's size, before the final ReLU. A channel that is constant makes no mask (its
min-max would be 0/0): it is left out, which changes a map by nothing but a common positive factor where the channel is
zero. Images are masked after the network's normalisation, so what is masked out is the mean colour, as in the authors'
and everybody's code; the papers' baseline X_b = 0 is the same image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from gradcam_bench.ask import Ask
from gradcam_bench.errors import unknown
from gradcam_bench.heatmaps import normalize
from gradcam_bench.perturb import (
    Answer,
    Masked,
    blur,
    channel_masks,
    enlarged,
    probability,
    rehearsed,
    varying,
    widened,
)
from gradcam_bench.probe import Evidence

WEIGHTS = ("softmax", "probability")


def score_cam(
    evidence: Evidence,
    images: Tensor,
    ask: Ask,
    weight: str = "softmax",
    kernel: str = "bilinear",
    order: str = "enlarge_first",
) -> Tensor:
    """sum_k alpha_k A_k, alpha = softmax over k of S_k = f_c(s(Up(A_k)) X) - f_c(X_b), s(.) min-max to [0, 1].

    Wang et al. 2020, algorithm 1 (its ReLU: `rectify: relu`), f_c the logit (`view.score`). X_b = 0: f_c(X_b) is the
    same for every channel, cancels in the softmax and is not computed. The authors' released code (weight:
    probability) has alpha_k = the probability of c itself (by the network's own softmax or sigmoid), with no softmax
    over channels and no baseline.
    kernel: of Up; `bilinear_corners` is pytorch-grad-cam's. order: `scale_first`, Up(s(A_k)), is torchcam's.
    """

    def score(answer: Answer, image: Tensor, channels: Tensor, _case: int) -> Tensor:
        masked = Masked(image, ask.block)
        blocks = channel_masks(channels, image, ask.block, kernel, order)
        return _joined(answer(masked(masks)) for masks in blocks)

    return _weighted("score_cam", evidence, images, ask, weight, score)


def is_cam(
    evidence: Evidence,
    images: Tensor,
    ask: Ask,
    steps: int = 10,
    weight: str = "softmax",
    order: str = "enlarge_first",
) -> Tensor:
    """Score-CAM with S_k averaged over i = 1..N of f_c(t_i s(Up(A_k)) X), t_i = sum_{j<=i} j / N.

    Naidu et al. 2020 (IS-CAM), N = `steps` = 10. The shares j / N add up, in the authors' code and in torchcam alike:
    the masked image is shown at 0.1, 0.3, 0.6, 1, ... 5.5 times its contrast. Their code weighs by the probability
    (`is_cam_code`). order: as in `score_cam`.
    """
    shares = torch.arange(1, steps + 1).cumsum(0) / steps

    def score(answer: Answer, image: Tensor, channels: Tensor, _case: int) -> Tensor:
        masked, total = Masked(image, ask.block), channels.new_zeros(len(channels))
        for share in shares.tolist():
            blocks = channel_masks(channels, image, ask.block, order=order)
            total += _joined(answer(masked(masks * share)) for masks in blocks)
        return total / steps

    return _weighted("is_cam", evidence, images, ask, weight, score)


def ss_cam(
    evidence: Evidence,
    images: Tensor,
    ask: Ask,
    generators: Sequence[torch.Generator],
    samples: int = 35,
    sigma: float = 2.0,
    noise: str = "mask",
    weight: str = "softmax",
) -> Tensor:
    """Score-CAM with S_k averaged over N noisy masks: f_c((s(Up(A_k)) + d) X), d ~ N(0, sigma^2) at every pixel.

    Wang, Naidu et al. 2020 (SS-CAM); N = 35, sigma = 2 as in the authors' code and in torchcam. noise: `mask`, as in
    torchcam, or `input`: the authors' code adds to the masked image M = s(Up(A_k)) X noise of deviation
    (sigma / (max M - min M))^2 in every channel of colour, and weighs by the probability (`ss_cam_code`). N forward
    passes a channel.
    """
    if noise not in ("mask", "input"):
        raise unknown("noise of ss_cam", noise, ("mask", "input"))
    noisy, samples = _noisy_masks if noise == "mask" else _noisy_inputs, rehearsed(ask, samples)

    def score(answer: Answer, image: Tensor, channels: Tensor, case: int) -> Tensor:
        blocks = noisy(image, channels, ask.block, generators[case], samples, sigma)
        return _joined(answer(block) for block in blocks).reshape(-1, samples).mean(1)

    return _weighted("ss_cam", evidence, images, ask, weight, score)


def group_cam(
    evidence: Evidence,
    images: Tensor,
    ask: Ask,
    groups: int = 32,
    percentile: float = 70.0,
    released: bool = False,
) -> Tensor:
    """sum_g a_g M_g, a_g = p_c(M_g X + (1 - M_g) X~) - p_c(X~), X~ the blurred image, p_c the class's probability.

    Zhang et al. 2021. M_g: of each of G neighbouring groups of channels relu(sum_k w_k A_k), w_k the mean gradient
    (Grad-CAM's); values up to the group's 70th percentile set to 0; upsampled, then min-max to [0, 1]. G, the
    percentile and the blur (a Gaussian of 50 pixels cut off at 25) are those of the authors' code as first released. As
    they released it last (released): no percentile, relu(a_g), and what is summed is not brought to [0, 1]. Upsampling
    is linear and keeps constants, so the sum is formed on the grid, [Q,h,w]: upsampled it is the authors' map before
    its ReLU. A group that is constant is left out.
    """
    weighted = evidence.gradients.mean((2, 3))[..., None, None] * evidence.features
    maps = []
    for case, target in enumerate(evidence.targets.tolist()):
        image, answer = images[case], probability("group_cam", ask, target)
        initial = torch.stack([part.sum(0) for part in widened(weighted[case]).chunk(groups)]).relu()  # [G,h,w]
        if not released:
            initial = initial.where(initial > initial.flatten(1).quantile(percentile / 100, 1)[:, None, None], 0.0)
        initial = varying(initial.to(image.device), ask)
        blurred = blur(image, 50.0, 25)
        masked, gains, scaled = Masked(image, ask.block, blurred), [initial.new_zeros(0)], [initial[:0]]
        for part in initial.split(ask.block):
            upsampled = enlarged(part, image)
            low, top = upsampled.amin((1, 2), keepdim=True), upsampled.amax((1, 2), keepdim=True)
            gains.append(answer(masked(normalize(upsampled, "minmax"))))
            scaled.append(part if released else (part - low) / (top - low))
        gain = torch.cat(gains) - answer(blurred[None])
        gain = gain.relu() if released else gain
        maps.append(torch.einsum("g,ghw->hw", gain, torch.cat(scaled)))
    return torch.stack(maps) if maps else evidence.features.sum(1)


def _weighted(
    label: str,
    evidence: Evidence,
    images: Tensor,
    ask: Ask,
    weight: str,
    score: Callable[[Answer, Tensor, Tensor, int], Tensor],
) -> Tensor:
    """sum_k alpha_k A_k over the channels that are not constant, alpha from `score`(answer, image, channels, case)."""
    if weight not in WEIGHTS:
        raise unknown(f"weight of {label}", weight, WEIGHTS)
    features, maps = widened(evidence.features), []
    for case, target in enumerate(evidence.targets.tolist()):
        answer = partial(ask, cases=case) if weight == "softmax" else probability(f"{label}_code", ask, target)
        channels = varying(features[case].to(images.device), ask)
        scores = widened(score(answer, images[case], channels, case)) if len(channels) else channels.sum((1, 2))
        alpha = scores.softmax(0) if weight == "softmax" else scores
        maps.append(torch.einsum("k,khw->hw", alpha, channels))
    return torch.stack(maps) if maps else features.sum(1)


def _noisy_masks(
    image: Tensor, channels: Tensor, block: int, generator: torch.Generator, samples: int, sigma: float
) -> Iterator[Tensor]:
    """Images [n,3,H,W] under each channel's mask plus noise, `samples` of each channel one after the other."""
    masked, size = Masked(image, block), image.shape[1:]
    for masks in channel_masks(channels.repeat_interleave(samples, 0), image, block):
        # Noise is drawn mask by mask, so that it does not depend on the blocks.
        drawn = torch.stack([torch.randn(size, generator=generator) for _ in masks])
        yield masked(drawn.to(masks).mul_(sigma).add_(masks))


def _noisy_inputs(
    image: Tensor, channels: Tensor, block: int, generator: torch.Generator, samples: int, sigma: float
) -> Iterator[Tensor]:
    """Images [n,3,H,W] under each channel's mask, plus noise, `samples` of each channel one after the other."""
    masked = Masked(image, block)
    for masks in channel_masks(channels.repeat_interleave(samples, 0), image, block):
        inputs = masked(masks)
        deviation = (sigma / (inputs.amax((1, 2, 3)) - inputs.amin((1, 2, 3)))) ** 2
        drawn = torch.stack([torch.randn(image.shape, generator=generator) for _ in masks])
        yield inputs.add_(drawn.to(inputs) * deviation[:, None, None, None])


def _joined(parts: Iterator[Tensor]) -> Tensor:
    return torch.cat(list(parts))
