"""Class-activation maps of what tells a class from others. [Q,h,w], signed."""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.derivatives import class_of, gradient, leaf
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.head import Head
from gradcam_bench.probe import Evidence

WEIGHTS = ("mean", "softmax")


def finer_cam(
    evidence: Evidence, head: Head, gamma: float = 0.6, references: int = 3, weighting: str = "mean"
) -> Tensor:
    """Grad-CAM of sum_d v_d (y_c - gamma y_d), y the logits, d the `references` classes nearest to c in |y_c - y_d|.

    Zhang et al. 2025. weighting: v_d = 1 / references (`mean`; gamma 0.6 and three references as in torchcam), or the
    softmax probabilities of the d, divided by their sum and differentiated too (`softmax`, the authors' released code
    and pytorch-grad-cam, both with gamma 1 and three references). Fewer classes where the network has no more; raises
    UserError where it has one, or for a target that is a function.
    """
    if weighting not in WEIGHTS:
        raise unknown("weighting of finer_cam", weighting, WEIGHTS)
    maps = []
    for case, image in enumerate(evidence.image_index.tolist()):
        target = class_of("finer_cam", evidence, case)
        others = _nearest(evidence.logits[image], target, references)
        with leaf(evidence, case) as activations:
            logits = head.outputs(activations, case)[0]
            apart = logits[target] - gamma * logits[others]
            # probabilities divided by their sum: the other classes cancel
            shares = logits[others].softmax(0) if weighting == "softmax" else torch.ones_like(apart) / len(apart)
            weights = gradient((shares * apart).sum(), activations).mean((2, 3))
            maps.append(torch.einsum("qc,qchw->qhw", weights, activations.detach()))
    return torch.cat(maps) if maps else evidence.features.sum(1)


def _nearest(logits: Tensor, target: int, count: int) -> Tensor:
    """The `count` other classes of logits [K] that are nearest to that of the target; of equals the first."""
    if len(logits) < 2:
        raise UserError("finer_cam does not apply: there is no other class to compare with")
    distances = (logits - logits[target]).abs()
    distances[target] = torch.inf
    return distances.argsort(stable=True)[: min(count, len(logits) - 1)]
