"""What a training picture goes through, by torchvision.transforms.v2, before it is normalised.

none             the network's own preprocessing
flip             the same, mirrored half of the time
crop_flip        a random part (8 to 100 % of the area, sides 3:4 to 4:3) resized, mirrored half of the time
warp_crop_flip   both sides to 8/7 of the input's, a random crop of the input's size, mirrored: wsolevaluation's
                 256 and 224 (Choe et al. 2020)
long_side        the long side to 320 to 640 pixels, mirrored, a random 512x512 part or the picture at a random
                 place on a ground of zeros (Ahn et al. 2019)
shapes           for scenes, whose classes are outlines: mirrored, shifted by up to 7 %, channels shuffled, colours
                 inverted three times in ten
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.models.network import Preprocessing

LONG, CROP = (320, 640), 512  # IRN's
SHIFT, INVERTED = 0.07, 0.3


@dataclass(frozen=True)
class Augmentation:
    """name: as above. size: the side in pixels that crops have, None where the name has its own."""

    name: str
    size: int | None = None


def augmentation(name: str, preprocessing: Preprocessing) -> Augmentation:
    """The augmentation for a network's preprocessing; raises UserError where that has no fixed size to crop to."""
    size = preprocessing.crop or (preprocessing.size if preprocessing.resize == "warp" else None)
    if name in ("crop_flip", "warp_crop_flip") and size is None:
        raise UserError(
            f"recipe.augment={name} crops to a size, and the network takes pictures of any: give recipe.preprocessing "
            "a crop, or resize: warp"
        )
    return Augmentation(name, size)


def augmented(image: Image.Image, chosen: Augmentation, preprocessing: Preprocessing) -> Tensor:
    """Upright RGB picture -> pixels [3,H,W] float32 normalised. Draws from torch's global generator."""
    if chosen.name in ("none", "flip", "shapes"):
        pixels, _ = preprocessing(image, View())
        if chosen.name == "none":
            return pixels
        mean, std = (torch.tensor(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
        pixels = v2.RandomHorizontalFlip()(pixels)
        return (_shapes(pixels * std + mean) - mean) / std if chosen.name == "shapes" else pixels
    how = InterpolationMode.BICUBIC if preprocessing.interpolation == "bicubic" else InterpolationMode.BILINEAR
    if chosen.name == "long_side":
        return _long_side(image, how, preprocessing)
    side = chosen.size or 0
    steps = {
        "crop_flip": [v2.RandomResizedCrop(side, interpolation=how)],
        "warp_crop_flip": [v2.Resize((round(side * 8 / 7),) * 2, interpolation=how), v2.RandomCrop(side)],
    }[chosen.name]
    return _normalised(v2.RandomHorizontalFlip()(v2.Compose(steps)(image)), preprocessing)


def _normalised(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    pixels = F.to_dtype(F.to_image(image), torch.float32, scale=True)
    return F.normalize(pixels, list(preprocessing.mean), list(preprocessing.std)).as_subclass(Tensor)


def _long_side(image: Image.Image, how: InterpolationMode, preprocessing: Preprocessing) -> Tensor:
    long = int(torch.randint(LONG[0], LONG[1] + 1, ()))
    scale = long / max(image.size)
    size = [max(round(image.height * scale), 1), max(round(image.width * scale), 1)]
    pixels = _normalised(v2.RandomHorizontalFlip()(F.resize(image, size, how)), preprocessing)
    canvas = torch.zeros(3, CROP, CROP)
    here, there = zip(*(_overlap(side) for side in size), strict=True)
    canvas[:, here[0], here[1]] = pixels[:, there[0], there[1]]
    return canvas


def _overlap(side: int) -> tuple[slice, slice]:
    """Where a picture's side falls on the canvas, and which part of it: at random either way."""
    room = CROP - side
    start = int(torch.randint(0, abs(room) + 1, ()))
    if room >= 0:
        return slice(start, start + side), slice(0, side)
    return slice(0, CROP), slice(start, start + CROP)


def _shapes(pixels: Tensor) -> Tensor:
    """[3,H,W] in [0, 1], shifted round the edges, channels shuffled, now and then inverted."""
    reach = [int(SHIFT * side) for side in pixels.shape[1:]]
    shifts = [int(torch.randint(-most, most + 1, ())) for most in reach]
    pixels = pixels.roll(shifts, (1, 2))[torch.randperm(3)]
    return 1 - pixels if torch.rand(()) < INVERTED else pixels
