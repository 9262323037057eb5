"""Class-activation maps that need no gradient: the head's weights, or the activations' own structure."""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.errors import UserError
from gradcam_bench.probe import Evidence


def cam(evidence: Evidence) -> Tensor:
    """sum_k w^c_k A_k, w^c the weights of class c in the linear map that follows global average pooling.

    Zhou et al. 2016, eq. 2; [Q,h,w], signed (the paper draws it as it is; the bias is left out). Raises UserError where
    the network does not end in global average pooling and one linear map: checked on the cases' logits, not on names.
    """
    features, cases = evidence.activations, evidence.image_index
    refusal = "cam does not apply: after the target layer this network is not global average pooling and one linear map"
    if evidence.head is None or (evidence.targets < 0).any():
        raise UserError(refusal)
    weight, bias = evidence.head
    if weight.shape != (evidence.logits.shape[1], features.shape[1]):
        raise UserError(refusal)
    weight, bias = weight[evidence.targets], bias[evidence.targets].double()  # [Q,C], [Q]
    parts = weight.double() * features.mean((2, 3), dtype=torch.float64)[cases]  # [Q,C]
    scale = parts.abs().sum(1)  # of what is added up: that of rounding errors, whatever cancels
    single = evidence.logits.dtype.itemsize >= 4
    allowed = (1e-3 if single else 5e-2) * scale + (1e-6 if single else 5e-2) * bias.abs()
    error = parts.sum(1) + bias - evidence.logits[cases, evidence.targets].double()
    if (error.abs() > allowed).any():  # never where an image is not finite
        raise UserError(refusal)
    return torch.einsum("qc,qchw->qhw", weight.to(features.dtype), evidence.features)


def eigen_cam(evidence: Evidence, center: bool = False) -> Tensor:
    """The activations' first principal component: A as an [hw, C] matrix U S V^T, the map is A v_1.

    Muhammad and Yeasin 2020, eq. 4 and 5; independent of the class. center: subtract each channel's mean first, as
    pytorch-grad-cam does and the paper does not. A v_1 = s_1 u_1 comes from the [hw, hw] Gram matrix, which is small.
    Its sign, which the paper leaves open, is the one that agrees with the energy sum_k A_k^2 (inner product >= 0); for
    uncentred activations of a ReLU that is the map which is nowhere negative.
    """
    images, channels, height, width = evidence.activations.shape
    matrix = evidence.activations.float().reshape(images, channels, -1)  # [B,C,hw]
    finite = matrix.isfinite().all(2).all(1)[:, None, None]  # [B,1,1]
    matrix = matrix.where(finite, 0.0)  # the solver refuses a whole batch for one value; that image's map is all NaN
    energy = matrix.square().sum(1)  # [B,hw]
    if center:
        matrix = matrix - matrix.mean(2, keepdim=True)
    values, vectors = torch.linalg.eigh(matrix.transpose(1, 2).double() @ matrix.double())
    maps = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()  # [B,hw]
    maps = torch.where(((maps * energy).sum(1, keepdim=True) < 0), -maps, maps)
    maps = maps.reshape(images, height, width).where(finite, torch.nan)
    return maps.to(evidence.activations.dtype)[evidence.image_index]
