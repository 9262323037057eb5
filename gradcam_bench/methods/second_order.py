"""Class-activation maps from second and third derivatives of the network's head. [Q,h,w], signed."""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.cases import probabilities
from gradcam_bench.derivatives import class_of, gradient, leaf
from gradcam_bench.errors import unknown
from gradcam_bench.head import Head
from gradcam_bench.probe import Evidence


def shapley_cam(evidence: Evidence, head: Head, utility: str = "rest", released: bool = False) -> Tensor:
    """sum_k w_k A_k, w_k = mean_ij (G - H A / 2)_kij, G and H the gradient and the Hessian of the utility u at A.

    Cai 2025 (arXiv 2501.06261): the second-order estimate of each place's Shapley value, averaged over a channel, as in
    the author's addition to pytorch-grad-cam. utility: `rest`, the paper's ReST, logit + log of the softmax
    probability; or `score`, the case's own, for which H is zero on a head that is linear in A, and the map is
    Grad-CAM's. released: what the author's own repository calls ShapleyCAM (the above is its ShapleyCAM_mean), place by
    place: sum_k relu((G - H A / 2)_k A_k).
    """
    if utility not in ("rest", "score"):
        raise unknown("utility of shapley_cam", utility, ("rest", "score"))
    maps = []
    for case in range(len(evidence.targets)):
        with leaf(evidence, case) as activations:
            if utility == "score":
                value = head(activations, case).sum()
            else:
                logits, target = head.outputs(activations, case), class_of("shapley_cam", evidence, case)
                value = (logits + logits.log_softmax(1))[:, target].sum()
            first = gradient(value, activations, again=True)
            product = gradient((first * activations.detach()).sum(), activations)  # H A
            values, features = first.detach() - product / 2, activations.detach()
            if released:
                maps.append((values * features).relu().sum(1))
            else:
                maps.append(torch.einsum("qc,qchw->qhw", values.mean((2, 3)), features))
    return torch.cat(maps) if maps else evidence.features.sum(1)


def grad_cam_pp_numeric(evidence: Evidence, head: Head, output: str = "probability") -> Tensor:
    """Grad-CAM++ with derivatives of Y taken as they are: alpha = D2 / (2 D2 + sum_ab A_kab D3), no closed form.

    Chattopadhay et al. 2018, eq. 10 for any Y; alpha is normalised as in the authors' code, to sum to 1 over the places
    of a channel where D1 is positive; w_k = sum_ij alpha_kij relu(D1_kij). D1 = dY/dA, D2 and D3 the gradients of the
    sums of D1 and of D2, as implementations have it: row sums of the Hessian where eq. 10 has its diagonal.

    output: Y, the `probability` (by the network's own softmax or sigmoid) or the view's `score`. On a network of ReLUs
    alone the logit has no second derivative, and 0 / 0 makes a map of NaN: there eq. 10 says nothing, which is why the
    paper goes over to exp.
    """
    if output not in ("probability", "score"):
        raise unknown("output of grad_cam_pp_numeric", output, ("probability", "score"))
    maps = []
    for case in range(len(evidence.targets)):
        with leaf(evidence, case) as activations:
            if output == "score":
                value = head(activations, case).sum()
            else:
                target = class_of("grad_cam_pp_numeric", evidence, case)
                value = probabilities(head.outputs(activations, case), head.activation)[:, target].sum()
            first = gradient(value, activations, again=True)
            second = gradient(first.sum(), activations, again=True)
            third = gradient(second.sum(), activations)
            features, first, second = activations.detach(), first.detach(), second.detach()
        maps.append(torch.einsum("qc,qchw->qhw", _weights(features, first, second, third), features))
    return torch.cat(maps) if maps else evidence.features.sum(1)


def _weights(features: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """[1,C]: sum_ij alpha relu(D1) / sum_ij alpha over places with D1 > 0; 0 for a channel that has none."""
    positive = first > 0
    alpha = second / (2 * second + features.sum((2, 3), keepdim=True) * third)
    alpha = alpha.where(positive, 0.0)
    weighted, total = (alpha * first).sum((2, 3)), alpha.sum((2, 3))
    return torch.where(positive.any(3).any(2), weighted / total, 0.0)
