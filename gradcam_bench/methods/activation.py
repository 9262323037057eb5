"""Class-activation maps that need no gradient: the head's weights, or the activations' own structure."""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.errors import UserError
from gradcam_bench.machine import one_thread
from gradcam_bench.probe import Evidence


def cam(evidence: Evidence) -> Tensor:
    """sum_k w^c_k A_k, w^c the weights of class c in the linear map that follows global average pooling.

    Zhou et al. 2016, eq. 2; [Q,h,w], signed (the paper draws it as it is; the bias is left out). Raises UserError where
    the network does not end in global average pooling and one linear map: checked on logits, those of the cases and the
    largest and the smallest of each image (where a last ReLU would show), not on names.
    """
    refusal = "cam does not apply: after the target layer this network is not global average pooling and one linear map"
    features, logits, images = evidence.activations, evidence.logits, evidence.image_index
    if evidence.head is None or (evidence.targets < 0).any():
        raise UserError(refusal)
    weight, bias = evidence.head
    if weight.shape != (logits.shape[1], features.shape[1]):
        raise UserError(refusal)
    classes = torch.stack([logits.argmax(1)[images], logits.argmin(1)[images], evidence.targets], 1)  # [Q,3]
    parts = weight[classes].double() * features.mean((2, 3), dtype=torch.float64)[images, None]  # [Q,3,C]
    scale = parts.abs().sum(2)  # of what is added up: that of rounding errors, whatever cancels
    single, offset = logits.dtype.itemsize >= 4, bias[classes].double()
    allowed = (1e-3 if single else 5e-2) * scale + (1e-6 if single else 5e-2) * offset.abs()
    error = parts.sum(2) + offset - logits[images[:, None], classes].double()
    if (error.abs() > allowed).any():  # never where an image is not finite
        raise UserError(refusal)
    return torch.einsum("qc,qchw->qhw", weight[evidence.targets].to(features.dtype), evidence.features)


def eigen_cam(evidence: Evidence, center: bool = False) -> Tensor:
    """The activations' first principal component: A as an [hw, C] matrix U S V^T, the map is A v_1.

    Muhammad and Yeasin 2020, eq. 4 and 5; independent of the class. center: subtract each channel's mean first, as
    pytorch-grad-cam does and the paper does not. A v_1 = s_1 u_1 comes from the [hw, hw] Gram matrix, which is small.
    Its sign, which the paper leaves open, is the one that agrees with the energy sum_k A_k^2 (inner product >= 0); for
    uncentred activations of a ReLU that is the map which is nowhere negative.
    """
    images, _, height, width = evidence.activations.shape
    matrix = evidence.activations.flatten(2).double()  # [B,C,hw]
    gram = matrix.mT @ matrix  # [B,hw,hw]
    energy = gram.diagonal(dim1=1, dim2=2)  # [B,hw]
    if center:
        matrix = matrix - matrix.mean(2, keepdim=True)
        gram = matrix.mT @ matrix
    finite = energy.isfinite().all(1)  # [B]: the solver refuses what is not; such an image's map is all NaN
    if not finite.all():
        gram = gram.where(finite[:, None, None], 0.0)
    with one_thread():
        values, vectors = torch.linalg.eigh(gram)
    maps = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()  # [B,hw]
    maps = torch.where((maps * energy).sum(1, keepdim=True) < 0, -maps, maps).where(finite[:, None], torch.nan)
    return maps.reshape(images, height, width).to(evidence.activations.dtype)[evidence.image_index]
