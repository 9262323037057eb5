"""Class-activation maps from one look: activations A [Q,C,h,w] and gradients G = dS/dA of each case's score S.

Each returns heatmaps [Q,h,w], signed, before the final ReLU; i, j run over the grid, k over channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.probe import Evidence


def grad_cam(evidence: Evidence) -> Tensor:
    """sum_k a_k A_k, with a_k = mean_ij G_kij.  Selvaraju et al. 2017, eq. 1 and 2 (eq. 2's ReLU: `rectify: relu`)."""
    weights = evidence.gradients.mean((2, 3))  # [Q,C]
    return torch.einsum("qc,qchw->qhw", weights, evidence.features)


def grad_cam_pp(evidence: Evidence) -> Tensor:
    """sum_k w_k A_k, w_k = sum_ij alpha_kij relu(G_kij), alpha = G^2 / (2 G^2 + sum_ab A_kab G^3), 0 where G is 0.

    Chattopadhay et al. 2018, eq. 5, 11 and 19: the closed form for Y = exp(S), whose common positive factor exp(S) in
    the weights drops out of every normalisation; S is the logit (another `view.score` makes it the ++ of another Y).
    Dividing by G^2 first keeps small gradients exact with no epsilon.
    """
    grads, features = evidence.gradients, evidence.features
    denominator = 2 + features.sum((2, 3), keepdim=True) * grads  # [Q,C,h,w], that of alpha over G^2
    denominator = denominator.where(denominator != 0, torch.inf)
    weights = (grads.relu() / denominator).sum((2, 3))  # [Q,C]
    return torch.einsum("qc,qchw->qhw", weights, features)


def x_grad_cam(evidence: Evidence) -> Tensor:
    """sum_k w_k A_k, w_k = sum_ij A_kij G_kij / sum_ij A_kij, 0 where that sum is 0.  Fu et al. 2020, eq. 8."""
    features = evidence.features
    total = features.sum((2, 3))  # [Q,C]
    weighted = (features * evidence.gradients).sum((2, 3))
    weights = torch.where(total != 0, weighted / total.where(total != 0, 1.0), 0.0)
    return torch.einsum("qc,qchw->qhw", weights, features)


def hires_cam(evidence: Evidence) -> Tensor:
    """sum_k G_k A_k, elementwise.  Draelos and Carin 2020, eq. 3 (no ReLU in the paper: `rectify: none` is its map)."""
    return (evidence.gradients * evidence.features).sum(1)


def layer_cam(evidence: Evidence) -> Tensor:
    """sum_k relu(G_k) A_k, elementwise.  Jiang et al. 2021, eq. 6 and 7."""
    return (evidence.gradients.relu() * evidence.features).sum(1)


def elementwise_grad_cam(evidence: Evidence) -> Tensor:
    """sum_k relu(G_k A_k), elementwise: what each place and channel adds to the score, the takings left out.

    No paper defines it; it is the `GradCAMElementWise` of pytorch-grad-cam 1.5.
    """
    return (evidence.gradients * evidence.features).relu().sum(1)
