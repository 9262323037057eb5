"""Class-activation maps that need no gradient: the head's weights, or where channels stand out."""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.errors import UserError
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


def foreground(evidence: Evidence) -> Tensor:
    """The probability of foreground that a network was trained to give place by place, [Q,h,w] in [0, 1], the same for
    every class.

    The few-shot baseline of Choe et al. 2020: full supervision on a few pictures. Raises UserError where the target
    layer is no such head, of one channel.
    """
    channels = evidence.activations.shape[1]
    if channels != 1:
        raise UserError(
            f"foreground does not apply: the target layer has {channels} channels and is no head for foreground; it "
            "takes model=trained with weights of `gradcam-bench train recipe=few_shot_wsol`"
        )
    return evidence.features[:, 0].sigmoid()


def fem(evidence: Evidence, deviations: float = 2.0) -> Tensor:
    """sum_k m_k [A_k > m_k + K s_k], m_k and s_k the mean and the standard deviation of channel k, K = `deviations`.

    Fuad et al. 2020 (Feature Explanation Method); independent of the class. The deviation is that of the places
    themselves (divided by their number). pytorch-grad-cam's FEM is another: sum_k A_k times the share of places above
    the threshold.
    """
    features = evidence.activations
    mean = features.mean((2, 3), keepdim=True)
    spread = features.std((2, 3), correction=0, keepdim=True)
    return (mean * (features > mean + deviations * spread)).sum(1)[evidence.image_index]
