"""A dense conditional random field: label maps drawn to the edges of the picture.

Kraehenbuehl and Koltun 2011: every pair of pixels has a Potts potential with two Gaussian kernels, one over places, one
over places and colours, and mean-field inference. Their lattice is an approximation for speed; here all pairs are
summed exactly, on the picture averaged down to at most PIXELS places, and the answer is enlarged again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench.geometry import Size

PIXELS = 4096  # places whose pairs are summed: 64 MiB
STEPS = 10
# As PSA and IRN call pydensecrf: standard deviations in pixels and in colour values of 255, and weights.
NEAR, NEAR_WEIGHT = 3.0, 3.0
FAR, COLOUR, COLOUR_WEIGHT = 80.0, 13.0, 10.0
LEAST = 1e-5  # a score is no smaller where its logarithm is taken


def mean_field(
    scores: Tensor, image: Tensor, steps: int = STEPS, pixels: int = PIXELS, known: Tensor | None = None
) -> Tensor:
    """Probabilities [K,H,W] of K labels from their scores [K,H,W] in [0, 1] and the picture [3,H,W] in 0..255.

    known: `pairs` of that picture, where they were made before. The unary potential is -log of the score; kernels are
    normalised symmetrically (D^-1/2 K D^-1/2), a pixel's pair with itself included, as in the authors' program.
    """
    size = (int(scores.shape[1]), int(scores.shape[2]))
    shape = _coarse(size, pixels)
    small = F.adaptive_avg_pool2d(scores[None].float(), shape)[0]
    unary = -small.clamp(min=LEAST).log().flatten(1)  # [K,N]
    kernel = pairs(image, pixels) if known is None else known
    belief = (-unary).softmax(0)
    for _ in range(steps):
        belief = (belief @ kernel - unary).softmax(0)  # Potts: what others of the same label say, less the same for all
    return F.interpolate(belief.reshape(1, -1, *shape), size, mode="bilinear", align_corners=False)[0]


def with_background(maps: Tensor, alpha: float) -> Tensor:
    """Scores [1 + Q,H,W] of maps [Q,H,W] in [0, 1]: the background's is (1 - the highest)^alpha. Ahn and Kwak 2018, eq.
    1; alpha 4 gives much background up, 24 little (`la_crf` and `ha_crf` of their program)."""
    return torch.cat([(1 - maps.amax(0, keepdim=True)).clamp(min=0) ** alpha, maps])


def pairs(image: Tensor, pixels: int = PIXELS) -> Tensor:
    """[N,N]: what every two of the N places that a picture [3,H,W] is averaged down to say to each other."""
    size = (int(image.shape[1]), int(image.shape[2]))
    shape = _coarse(size, pixels)
    return _pairs(F.adaptive_avg_pool2d(image[None].float(), shape)[0], size[0] / shape[0], size[1] / shape[1])


def _coarse(size: Size, pixels: int) -> Size:
    stride = max(math.ceil(math.sqrt(size[0] * size[1] / pixels)), 1)
    return max(size[0] // stride, 1), max(size[1] // stride, 1)


def _pairs(colours: Tensor, height: float, width: float) -> Tensor:
    """[N,N]: the sum of both kernels, weighted, between all places of a picture [3,h,w]; a place is `height` by `width`
    pixels."""
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in colours.shape[1:]), indexing="ij")
    places = torch.stack([rows.flatten() * height, columns.flatten() * width], 1).float()
    apart = torch.cdist(places, places).square()
    near = torch.exp(-apart / (2 * NEAR**2))
    colour = torch.cdist(colours.flatten(1).T, colours.flatten(1).T).square()
    alike = torch.exp(-apart / (2 * FAR**2) - colour / (2 * COLOUR**2))
    return NEAR_WEIGHT * _normalised(near) + COLOUR_WEIGHT * _normalised(alike)


def _normalised(kernel: Tensor) -> Tensor:
    scale = kernel.sum(1).rsqrt()
    return scale[:, None] * kernel * scale
