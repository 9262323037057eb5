"""Grad-CAM with one of its choices changed: its paper's ablations and its counterfactual. [Q,h,w], signed.

Selvaraju et al. 2020 (the IJCV article), section 3.3 and the appendix on ablations. (Without its last ReLU, the
appendix' first change, Grad-CAM is the label grad_cam_no_relu: `gradient.grad_cam` with `rectify: none`.)
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gradcam_bench.errors import UserError, unknown
from gradcam_bench.pixels import Pixels, named
from gradcam_bench.probe import Evidence


def counterfactual_grad_cam(evidence: Evidence) -> Tensor:
    """sum_k a_k A_k, a_k = mean_ij -G_kij: what would raise the score if it were taken away.  Section 3.3, eq. 3."""
    return _weighted(-evidence.gradients.mean((2, 3)), evidence)


def grad_cam_gmp(evidence: Evidence) -> Tensor:
    """sum_k a_k A_k, a_k = max_ij G_kij: global maximum pooling in place of the average."""
    return _weighted(evidence.gradients.amax((2, 3)), evidence)


def grad_cam_abs(evidence: Evidence) -> Tensor:
    """sum_k a_k A_k, a_k = mean_ij |G_kij|: magnitudes of gradients."""
    return _weighted(evidence.gradients.abs().mean((2, 3)), evidence)


def grad_cam_backward(evidence: Evidence, pixels: Pixels, rule: str = "guided") -> Tensor:
    """sum_k a_k A_k, a_k = mean_ij S_kij, S what reaches the layer under another backward rule of the ReLUs after it.

    rule: `guided` or `deconv` (see `rules`). The same as Grad-CAM where no activation function follows the layer.
    Raises UserError for a layer that gives no feature maps with the channels first.
    """
    if rule not in ("guided", "deconv"):
        raise unknown("rule of grad_cam_backward", rule, ("guided", "deconv"))
    label = f"grad_cam_{rule}_relu"
    signals = pixels(replace(named(rule), method=label), layer=pixels.layer)
    if signals.shape != evidence.features.shape:
        raise UserError(f"{label} does not apply: layer {pixels.layer} gives no feature maps [C,h,w]")
    return _weighted(signals.mean((2, 3)), evidence)


def _weighted(weights: Tensor, evidence: Evidence) -> Tensor:
    return torch.einsum("qc,qchw->qhw", weights, evidence.features)
