"""Pictures changed so little that nobody sees it, and so that the network no longer sees what is in them.

Selvaraju et al. 2017, section 6.2: a network fooled into an absent class with near certainty, whose Grad-CAM for the
classes that are there still finds them. The attack is that of Madry et al. 2018 (arXiv 1706.06083): projected gradient
steps of the sign, from the picture itself; the strength is not stated by Selvaraju et al. and chosen here.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench.explain import filled_up
from gradcam_bench.models.network import Network
from gradcam_bench.probe import Probe
from gradcam_bench.samples import Batch

RADIUS, STEP, STEPS = 8 / 255, 2 / 255, 10  # of pixel values in [0, 1]


def attacked(batch: Batch, network: Network, probe: Probe, pad_to: int = 0) -> Batch:
    """The batch with pictures that the network takes for the class that it held for the least likely of those that are
    not annotated; each pixel within RADIUS of what it was, and in [0, 1]. pad_to: as of `explain_batch`."""
    like = next(network.module.parameters())
    start = filled_up(batch.images, probe, pad_to).detach()
    colours = network.preprocessing.mean, network.preprocessing.std
    mean, std = (torch.tensor(values).to(start)[:, None, None] for values in colours)
    low, high = torch.maximum(start - RADIUS / std, -mean / std), torch.minimum(start + RADIUS / std, (1 - mean) / std)
    present = [sample.annotation.classes for sample in batch.samples]
    present += [present[-1]] * (len(start) - len(present))
    with torch.no_grad():
        wanted = _absent(network.module(start).float(), present)
    images = start
    for _ in range(STEPS):
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            loss = _loss(network.module(images).float(), wanted, present, network.activation)
            (slope,) = torch.autograd.grad(loss, images)
        images = torch.clamp(images.detach() - STEP / std * slope.sign(), low, high)
    found = images[: len(batch.images)].to("cpu", batch.images.dtype if like.dtype == torch.float32 else torch.float32)
    samples = tuple(replace(one, pixels=pixels) for one, pixels in zip(batch.samples, found, strict=True))
    return replace(batch, images=found.contiguous(), samples=samples)


def _absent(logits: Tensor, present: list[tuple[int, ...]]) -> Tensor:
    """[B]: of each image the class with the lowest score of those that it does not have."""
    scores = logits.clone()
    for row, classes in zip(scores, present, strict=True):
        row[list(classes)] = torch.inf
    return scores.argmin(1)


def _loss(logits: Tensor, wanted: Tensor, present: list[tuple[int, ...]], activation: str) -> Tensor:
    """What the attack lowers: minus the log probability of the absent class and, where a network sees several classes,
    minus that of each present one's not being there."""
    if activation == "softmax":
        return F.cross_entropy(logits, wanted, reduction="sum")
    gone = sum(F.softplus(row[list(classes)]).sum() for row, classes in zip(logits, present, strict=True))
    return F.softplus(-logits.gather(1, wanted[:, None])).sum() + gone
