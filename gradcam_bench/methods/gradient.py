"""Class-activation maps from one look: activations A [Q,C,h,w] and gradients G = dS/dA of each case's score S.

Each returns heatmaps [Q,h,w], signed, before the final ReLU; i, j run over the grid, k over channels. The last two
merge the maps of several layers (`pyramid`: the last layer of each grid size, in order of execution).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench.errors import UserError
from gradcam_bench.heatmaps import normalize, resize
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
    """sum_k G_k A_k, elementwise.  Draelos and Carin 2020, eq. 3 (signed in the paper: that is `rectify: none`)."""
    return (evidence.gradients * evidence.features).sum(1)


def layer_cam(evidence: Evidence) -> Tensor:
    """sum_k relu(G_k) A_k, elementwise.  Jiang et al. 2021, eq. 6 and 7."""
    return (evidence.gradients.relu() * evidence.features).sum(1)


def layer_cam_code(evidence: Evidence) -> Tensor:
    """sum_k relu(G'_k A_k), G' the gradient after the 2x2 max-pool that follows the layer, brought back to its grid.

    Layer-CAM as the authors' released localization code has it (Jiang et al. 2021; the paper's own is `layer_cam`): the
    gradient is that of pool5, resized bilinearly with corners aligned. A max-pool without overlap hands each gradient
    to one pixel of its window, so the pool's gradient is the sum over the window of the layer's. Defined for a layer
    that such a pool follows, as the last ReLU before each pool of a VGG. Raises UserError for a grid too small for one.
    """
    grads = evidence.gradients
    if min(grads.shape[-2:]) < 2:
        raise UserError("layer_cam_code does not apply: no 2x2 max-pool fits a grid of one row or column")
    pooled = F.avg_pool2d(grads, 2) * 4  # [Q,C,h/2,w/2]
    grads = F.interpolate(pooled, size=grads.shape[-2:], mode="bilinear", align_corners=True)
    return (grads * evidence.features).relu().sum(1)


def elementwise_grad_cam(evidence: Evidence) -> Tensor:
    """sum_k relu(G_k A_k), elementwise: what each place and channel adds to the score, the takings left out.

    No paper defines it; it is the `GradCAMElementWise` of pytorch-grad-cam 1.5.
    """
    return (evidence.gradients * evidence.features).relu().sum(1)


def layer_cam_fused(pyramid: Sequence[Evidence], gamma: float = 2.0, deep: int = 2) -> Tensor:
    """max over stages of the Layer-CAM M of each, divided by its maximum; tanh(gamma M / max M) for the shallow stages.

    Jiang et al. 2021, eq. 9; [Q,h,w] on the first stage's grid, nowhere negative: stages are enlarged bilinearly. Of
    VGG-16's five stages the paper scales the first three, whose values are small beside the few largest; here all but
    the last `deep`. A stage whose map is nowhere positive adds nothing. torchcam scales every stage.
    """
    height, width = pyramid[0].gradients.shape[-2:]
    stages = []
    for depth, evidence in enumerate(pyramid, start=1):
        maps = _scaled(layer_cam(evidence).relu(), "max")
        if depth <= len(pyramid) - deep:
            maps = (gamma * maps).tanh()
        stages.append(resize(maps, (height, width)))
    return torch.stack(stages).amax(0)


def refine_cam(pyramid: Sequence[Evidence], shape: tuple[int, int, int], stages: int = 4) -> Tensor:
    """prod over stages of relu(Grad-CAM++), each brought to [0, 1] by min-max, at the input's resolution.

    Domeniconi et al. 2026 (arXiv 2605.14641): [Q,H,W]; the last `stages` stages, as their example takes layer1 to
    layer4 of a ResNet. A map is scaled on its grid and again once it is enlarged (bilinearly), as in the authors'
    RefineCAM in pytorch-grad-cam; torchcam multiplies on the finest grid.
    """
    product = torch.ones(shape, device=pyramid[0].gradients.device)
    for evidence in pyramid[-stages:]:
        maps = _scaled(grad_cam_pp(evidence).relu().float(), "minmax")
        product = product * _scaled(resize(maps, shape[1:]), "minmax")
    return product


def _scaled(maps: Tensor, how: str) -> Tensor:
    """As `heatmaps.normalize`, but what is not finite stays so."""
    return normalize(maps, how) + 0 * maps
