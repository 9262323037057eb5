"""Several pieces of one picture (crops, mirrored, other sizes), and how their maps become one of the whole.

Each piece's map is rectified, resized to the piece, mirrored back, put where the piece lies, and all are added up:

    ten_crop      the four corners and the centre, then the same of the mirrored picture; rectified as the method's
                  paper says, then resized by `bilinear_corners`; the logits are averaged (Jiang et al. 2021, code)
    ten_crop_cam  the same crops; resized by `cubic_matlab`, then the absolute value; the probabilities are averaged
                  (Zhou et al. 2016, code)
    flip          the picture and its mirror image; rectified, then `bilinear`; the logits are averaged
    multi_scale   the picture and its mirror image at 1, 0.5, 1.5 and 2 times its size (bicubic, on normalised pixels),
                  rectified, then `bilinear`; the logits are averaged (as the seeds of Ahn et al. 2019 are made)
    multi_scale_psa   the same, but the pictures scaled by Pillow's bicubic filter on 8 bits (Ahn and Kwak 2018, code)
    multi_scale_irn   as that, but the two maps of a scale are added on their own grid, and the sum is resized to the
                  next multiples of 16 pixels and cut to the picture (Ahn et al. 2019, code): a grid whose cells are 16
                  pixels wide then lies where they are; maps of another size are put there all the same
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench.geometry import Size
from gradcam_bench.heatmaps import rectify, resize

Colours = tuple[tuple[float, ...], tuple[float, ...]]
PLAIN: Colours = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Recipe:
    """crops: cut crops, else whole pictures, at these scales. absolute: after resizing, in place of the method's own
    rectification before it. kernel: of `resampling`. average: `logits` or `probabilities`. bytes: whether pictures are
    scaled on 8 bits. stride: pixels of a grid's cell to whose multiples the sums of mirrored pairs are resized; 0: each
    map is resized to the picture."""

    crops: bool
    kernel: str
    scales: tuple[float, ...] = (1.0,)
    absolute: bool = False
    average: str = "logits"
    bytes: bool = False
    stride: int = 0


SCALES = (1.0, 0.5, 1.5, 2.0)
RECIPES = {
    "ten_crop": Recipe(True, "bilinear_corners"),
    "ten_crop_cam": Recipe(True, "cubic_matlab", absolute=True, average="probabilities"),
    "flip": Recipe(False, "bilinear"),
    "multi_scale": Recipe(False, "bilinear", SCALES),
    "multi_scale_psa": Recipe(False, "bilinear", SCALES, bytes=True),
    "multi_scale_irn": Recipe(False, "bilinear", SCALES, bytes=True, stride=16),
}


def count(augment: str) -> int:
    """How many times a network looks at a picture under `view.augment`."""
    recipe = RECIPES.get(augment)
    return 1 if recipe is None else 10 if recipe.crops else 2 * len(recipe.scales)


def places(size: Size, crop: int) -> list[tuple[int, int]]:
    """(top, left) of the five crops of crop x crop pixels in a picture of `size`: its corners, then its centre."""
    down, right = size[0] - crop, size[1] - crop
    return [(0, 0), (0, right), (down, 0), (down, right), (round(down / 2), round(right / 2))]


def pieces(image: Tensor, recipe: Recipe, crop: int, colours: Colours = PLAIN) -> list[Tensor]:
    """The pieces of an image [3,H,W], those of one size together: [P,3,h,w] each, the upright half before the mirrored.

    Ten crops come in the order of torchvision's TenCrop; a whole picture at each scale is a pair. colours: mean and std
    that the pixels were normalised with, which a recipe on 8 bits has to undo.
    """
    if recipe.crops:
        five = [(turned, y, x) for turned in (image, image.flip(-1)) for y, x in places(_size(image), crop)]
        return [torch.stack([turned[:, y : y + crop, x : x + crop] for turned, y, x in five])]
    found = []
    for scale in recipe.scales:
        height, width = (max(round(side * scale), 1) for side in _size(image))
        if scale == 1:
            scaled = image
        elif recipe.bytes:
            scaled = _scaled_bytes(image, (height, width), colours)
        else:
            scaled = F.interpolate(image[None], (height, width), mode="bicubic", antialias=True)[0]
        found.append(torch.stack([scaled, scaled.flip(-1)]))
    return found


def _scaled_bytes(image: Tensor, size: Size, colours: Colours) -> Tensor:
    """A normalised picture [3,H,W] scaled to `size` by Pillow, as the 8 bits that it was."""
    mean, std = (torch.tensor(values)[:, None, None] for values in colours)
    levels = ((image * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    picture = Image.fromarray(levels.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BICUBIC)
    return (torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255 - mean) / std


def merge(maps: Sequence[Tensor], size: Size, crop: int, rule: str, recipe: Recipe) -> Tensor:
    """Maps [Q,P,h,w] of the pieces of Q cases, by the groups of `pieces` -> [Q,H,W], their sum over the picture.

    size: (height, width) of the picture. rule: what `rectify=paper` means for the method. Where no piece reached is 0.
    """
    plain, mirrored = maps[0].new_zeros((2, len(maps[0]), *size))
    if not len(plain):
        return plain
    where = places(size, crop) if recipe.crops else [(0, 0)]
    height, width = (crop, crop) if recipe.crops else size
    for group in maps:
        if recipe.stride:
            pair = rectify(group, rule)
            reach = (-(-height // recipe.stride) * recipe.stride, -(-width // recipe.stride) * recipe.stride)
            plain += resize(pair[:, 0] + pair[:, 1].flip(-1), reach, recipe.kernel)[:, :height, :width]
            continue
        if recipe.absolute:
            found = resize(group, (height, width), recipe.kernel).abs()
        else:
            found = resize(rectify(group, rule), (height, width), recipe.kernel)
        for n, (y, x) in enumerate(where):
            plain[:, y : y + height, x : x + width] += found[:, n]
            mirrored[:, y : y + height, x : x + width] += found[:, n + len(where)]
    return plain + mirrored.flip(-1)


def mean_logits(logits: Tensor, activation: str, recipe: Recipe) -> Tensor:
    """[1,K] from the pieces' logits [P,K]: their mean, or the logits whose probabilities are the mean of theirs.

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
