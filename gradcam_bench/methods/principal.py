"""First principal components as heatmaps, [Q,h,w]: of activations A, or of activations and gradients G.

With a matrix M [C,hw] of channels by places, the map is M^T v_1 = s_1 u_1, which comes from the [hw, hw] Gram matrix
M^T M, small as it is. A principal component has no sign of its own. Here, where a paper gives no rule, it is the one
that agrees with the energy sum_k M_k^2 (inner product >= 0): for an uncentred matrix without negative entries that is
the map which is nowhere negative, and it never depends on the order or the sign of channels, or on the solver.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.errors import unknown
from gradcam_bench.machine import one_thread
from gradcam_bench.probe import Evidence

KERNELS = ("sigmoid", "rbf", "linear")


def eigen_cam(evidence: Evidence, center: bool = False) -> Tensor:
    """The activations' first principal component.  Muhammad and Yeasin 2020, eq. 4 and 5; independent of the class.

    center: subtract each channel's mean first, as pytorch-grad-cam does and the paper does not.
    """
    return _of_cases(_component(evidence.activations, center), evidence)


def eigen_grad_cam(evidence: Evidence, center: bool = True) -> Tensor:
    """The first principal component of G A, elementwise.

    No paper defines it; it is the `EigenGradCAM` of pytorch-grad-cam 1.5, which centres and has no rule for the sign.
    """
    return _component(evidence.gradients * evidence.features, center)


def seg_eigen_cam(evidence: Evidence) -> Tensor:
    """The first principal component of |G| A, centred; the sign that makes the largest magnitude positive.

    Chung and Ying 2025 (Seg-Eigen-CAM), eq. 10 to 13; made for the scores of segmentation networks, here the case's.
    """
    maps = _component(evidence.gradients.abs() * evidence.features, True)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(-low > high, -maps, maps)


def kpca_cam(evidence: Evidence, kernel: str = "sigmoid", gamma: float | None = None) -> Tensor:
    """The first component of a kernel principal component analysis of the places, by their centred activations.

    Karmani et al. 2024 (KPCA-CAM), as their code in pytorch-grad-cam has it; independent of the class. kernel of places
    x, y: `sigmoid` tanh(gamma x.y + 1), `rbf` exp(-gamma |x - y|^2), `linear` x.y (centred Eigen-CAM); gamma: 1 / C.
    """
    if kernel not in KERNELS:
        raise unknown("kernel of kpca_cam", kernel, KERNELS)
    matrix = evidence.activations.flatten(2).double()  # [B,C,hw]
    energy = (matrix**2).sum(1)
    matrix = matrix - matrix.mean(2, keepdim=True)
    scale, products = 1 / matrix.shape[1] if gamma is None else gamma, matrix.mT @ matrix
    if kernel == "sigmoid":
        products = (scale * products + 1).tanh()
    elif kernel == "rbf":
        squares = products.diagonal(dim1=1, dim2=2)
        products = (-scale * (squares[:, :, None] + squares[:, None] - 2 * products)).exp()
    centered = products - products.mean(1, keepdim=True) - products.mean(2, keepdim=True)
    maps = _leading(centered + products.mean((1, 2), keepdim=True), energy)
    return _of_cases(maps.reshape(-1, *evidence.activations.shape[2:]).to(evidence.activations.dtype), evidence)


def _component(features: Tensor, center: bool) -> Tensor:
    """The first principal component [N,h,w] of features [N,C,h,w], signed by their energy."""
    matrix = features.flatten(2).double()  # [N,C,hw]
    energy = (matrix**2).sum(1)
    if center:
        matrix = matrix - matrix.mean(2, keepdim=True)
    return _leading(matrix.mT @ matrix, energy).reshape(-1, *features.shape[2:]).to(features.dtype)


def _leading(gram: Tensor, energy: Tensor) -> Tensor:
    """sqrt(l) u, [N,hw], of symmetric matrices [N,hw,hw], l the largest eigenvalue and u its vector, so signed that its
    inner product with the energy [N,hw] is not negative."""
    finite = energy.isfinite().all(1) & gram.isfinite().flatten(1).all(1)  # [N]; the map of what is not is all NaN
    if not finite.all():  # the solver refuses it
        gram, energy = gram.where(finite[:, None, None], 0.0), energy.where(finite[:, None], 0.0)
    with one_thread():
        values, vectors = torch.linalg.eigh(gram)
    maps = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    return torch.where((maps * energy).sum(1, keepdim=True) < 0, -maps, maps).where(finite[:, None], torch.nan)


def _of_cases(maps: Tensor, evidence: Evidence) -> Tensor:
    return maps[evidence.image_index]
