"""Heatmaps of relevance: excitation backprop and layer-wise relevance propagation. For convolutional networks:
attention and layer norms have no rule here, and are refused in a sentence."""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench import relevance
from gradcam_bench.errors import UserError
from gradcam_bench.pixels import Pixels
from gradcam_bench.probe import Evidence


def excitation_backprop(pixels: Pixels, layer: str = "", stride: int = 16, sums: str = "positive") -> Tensor:
    """sum_k P_k, the marginal winning probabilities at a layer, [Q,h,w], nowhere negative.  Zhang et al. 2016, eq. 5.

    layer: where it is read (the paper stops at a pooling layer); by default where the grid is `stride` times coarser
    than the image: at the first max-pool that gives it, or the last such map. That is pool4 in VGG-16 and layer3 in
    ResNet-50, as TorchRay's benchmark has them; the authors' GoogLeNet is read at pool2, stride 8. The paper knows no
    residual sums. sums: by their `positive` parts both operands share, so that probabilities stay such; in the authors'
    Caffe code and in TorchRay each gets its part of the sum as it is, `signed`: less than nothing, or more than all.

    The rule is for activations that are nowhere negative (the paper's assumption): networks that feed negative ones to
    a convolution or linear map (mobilenet_v2's linear bottlenecks, smooth activations) are refused. TorchRay applies
    the formula all the same, whose answers are then no probabilities.
    """
    layer = layer or pixels.at_stride(stride, "excitation_backprop")
    return pixels(relevance.excitation(sums=sums), layer=layer).sum(1)


def contrastive_excitation_backprop(
    pixels: Pixels, layer: str = "", stride: int = 16, sums: str = "positive"
) -> Tensor:
    """sum_k (P_k - P'_k), P' from the dual unit, whose weights in the top linear map are negated.  Zhang et al. 2016,
    3.3.

    layer, stride, sums: as in `excitation_backprop`. Both start with probability 1, so both are normalised at every
    layer; signed: the paper draws the positive part. The authors' code and TorchRay take the difference (its negative
    part too) below the classifier and bring that down; every rule is linear in what it hands on, so it is the same map.
    Where what speaks against the class lies on the object too, and in fewer places, little is left there: TorchRay's
    own map of such an image is as empty.
    """
    label = "contrastive_excitation_backprop"
    layer = layer or pixels.at_stride(stride, label)
    rules = [relevance.excitation(label, dual, sums) for dual in (False, True)]
    own, dual = (pixels(rule, layer=layer).sum(1) for rule in rules)
    return own - dual


def lrp(pixels: Pixels, composite: str = "epsilon_plus", epsilon: float = 1e-6, gamma: float = 0.25) -> Tensor:
    """sum_c R_c at the pixels, signed, of the class's logit.  Bach et al. 2015; composites: Montavon et al. 2019.

    composite: see `relevance.composite`; `epsilon_plus` and `epsilon_gamma_box` are zennit's composites of these names,
    with its epsilon (there absolute, here relative to a layer's output) and gamma. Batch norms are part of the
    convolution before them.
    """
    return pixels(relevance.composite(composite, epsilon, gamma)).sum(1)


def relevance_cam(evidence: Evidence, pixels: Pixels) -> Tensor:
    """sum_k (sum_ij R_kij) A_k, R the relevance at the target layer by alpha1_beta0.  Lee et al. 2021.

    Propagation starts with 1 at the class and -1/K at each other of K classes, and is box at the image, as in the
    authors' code (which takes the mean over places for the sum: a factor common to all channels). That code keeps batch
    norms apart from convolutions and passes relevance through them as it is, and its denominators hold a convolution's
    bias twice and a linear map's never, where here they hold what is positive of it.
    """
    rule = relevance.propagation("relevance_cam", relevance.PLUS, relevance.PLUS, relevance.BOX, "contrast")
    found = pixels(rule, layer=pixels.layer)
    if found.shape != evidence.features.shape:
        raise UserError(f"relevance_cam does not apply: layer {pixels.layer} gives no feature maps [C,h,w]")
    return torch.einsum("qc,qchw->qhw", found.sum((2, 3)), evidence.features)
