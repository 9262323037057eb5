"""Ten crops of one picture, and how what is found in each becomes one map of the whole.

The crops are the four corners and the centre, then the same of the mirrored picture. Each crop's map is rectified and
resized to the crop, mirrored back, put where the crop was cut, and all are added up. Two programs do this:

    ten_crop      rectified as the method's paper says, then resized by `bilinear_corners`; the crops' logits are
                  averaged (Jiang et al. 2021, released code)
    ten_crop_cam  resized by `cubic_matlab`, then the absolute value; the crops' probabilities are averaged
                  (Zhou et al. 2016, released code)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradcam_bench.geometry import Size
from gradcam_bench.heatmaps import rectify, resize

COUNT = 10


@dataclass(frozen=True)
class Recipe:
    """absolute: after resizing, in place of the method's own rectification before it. kernel: of `resampling`. average:
    `logits` or `probabilities`."""

    absolute: bool
    kernel: str
    average: str


RECIPES = {
    "ten_crop": Recipe(False, "bilinear_corners", "logits"),
    "ten_crop_cam": Recipe(True, "cubic_matlab", "probabilities"),
}


def places(size: Size, crop: int) -> list[tuple[int, int]]:
    """(top, left) of the five crops of crop x crop pixels in a picture of `size`: its corners, then its centre."""
    down, right = size[0] - crop, size[1] - crop
    return [(0, 0), (0, right), (down, 0), (down, right), (round(down / 2), round(right / 2))]


def cut(image: Tensor, crop: int) -> Tensor:
    """The ten crops [10,3,crop,crop] of an image [3,H,W], in the order of torchvision's TenCrop."""
    five = [(turned, y, x) for turned in (image, image.flip(-1)) for y, x in places(_size(image), crop)]
    return torch.stack([turned[:, y : y + crop, x : x + crop] for turned, y, x in five])


def merge(maps: Tensor, size: Size, crop: int, rule: str, recipe: Recipe) -> Tensor:
    """Maps [Q,10,h,w] of the crops of Q cases -> [Q,H,W], their sum over a picture of `size` (height, width).

    rule: what `rectify=paper` means for the method. Where no crop reached is 0.
    """
    if not len(maps):
        return maps.new_zeros((0, *size))
    if recipe.absolute:
        found = resize(maps, (crop, crop), recipe.kernel).abs()
    else:
        found = resize(rectify(maps, rule), (crop, crop), recipe.kernel)
    plain, mirrored = maps.new_zeros((2, len(maps), *size))
    for n, (y, x) in enumerate(places(size, crop)):
        plain[:, y : y + crop, x : x + crop] += found[:, n]
        mirrored[:, y : y + crop, x : x + crop] += found[:, n + COUNT // 2]
    return plain + mirrored.flip(-1)


def mean_logits(logits: Tensor, activation: str, recipe: Recipe) -> Tensor:
    """[1,K] from the crops' logits [10,K]: their mean, or the logits whose probabilities are the mean of theirs.

    activation: what turns logits into probabilities, `softmax` or `sigmoid`.
    """
    logits = logits.double()
    if recipe.average == "logits":
        return logits.mean(0, keepdim=True)
    if activation == "softmax":
        return logits.log_softmax(1).logsumexp(0, keepdim=True) - torch.log(logits.new_tensor(len(logits)))
    return logits.sigmoid().mean(0, keepdim=True).logit()


def _size(image: Tensor) -> Size:
    return int(image.shape[-2]), int(image.shape[-1])
