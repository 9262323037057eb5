"""A network as the suite uses it: the module, how to feed it, where to look, what its outputs mean."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor, nn
from torch.nn import functional as F

from gradcam_bench.cases import probabilities
from gradcam_bench.choices import CROPS, View
from gradcam_bench.errors import UserError
from gradcam_bench.geometry import Frame, Size

INTERPOLATIONS = {
    "bilinear": Resampling.BILINEAR,
    "bicubic": Resampling.BICUBIC,
    "nearest": Resampling.NEAREST,
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """What the weights were trained or published with. resize, size, crop, interpolation: as in `choices.View`; mean
    and std of RGB in [0, 1]."""

    resize: str = "shorter"
    size: int | None = 256
    crop: int | None = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def black(self) -> tuple[float, ...]:
        """Black after this normalisation."""
        return tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))

    def resolve(self, view: View) -> View:
        """The view with `resize=model` replaced by what that means for these weights."""
        if view.resize != "model":
            return view
        return replace(view, resize=self.resize, size=self.size, crop=self.crop, interpolation=self.interpolation)

    def varies(self, view: View) -> bool:
        """Whether inputs differ in size from picture to picture."""
        view = self.resolve(view)
        return view.crop is None and view.resize in ("shorter", "none")

    def frame(self, source: Size, view: View) -> Frame:
        """Where the network's input lies in a source image of size (height, width), without decoding it.

        With ten crops the input is the picture that they are cut from.
        """
        view = self.resolve(view)
        resized = _resized(source, view)
        crop = resized if view.crop is None or view.augment in CROPS else (view.crop, view.crop)
        offset = tuple(round((full - part) / 2) for full, part in zip(resized, crop, strict=True))
        scale = (resized[0] / source[0], resized[1] / source[1])
        return Frame(source, crop, scale, (float(offset[0]), float(offset[1])))

    def __call__(self, image: Image.Image, view: View) -> tuple[Tensor, Frame]:
        """Upright RGB picture -> (pixels [3,H,W] float32 normalised, frame), as torchvision's own transforms do."""
        view = self.resolve(view)
        source = (image.height, image.width)
        frame = self.frame(source, view)
        top, left = (int(start) for start in frame.offset)
        pixels = _in_size(image, _resized(source, view), view.interpolation)
        pixels = pixels[:, top : top + frame.input[0], left : left + frame.input[1]]
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels - mean) / std, frame


def _in_size(image: Image.Image, size: Size, interpolation: str) -> Tensor:
    """RGB picture -> [3,H,W] float32 in [0, 1] of the given size."""
    if interpolation != "bilinear_tensor" and size != (image.height, image.width):
        image = image.resize(size[::-1], INTERPOLATIONS[interpolation])
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    if tuple(pixels.shape[1:]) == size:
        return pixels
    return F.interpolate(pixels[None], size=size, mode="bilinear", align_corners=False)[0]


def _resized(source: Size, view: View) -> Size:
    """(height, width) after the view's resize, before its crop."""
    height, width = source
    if view.resize == "none" or view.size is None:
        resized = source
    elif view.resize == "warp":
        resized = view.size, view.size
    else:
        other = int(view.size * max(source) / min(source))
        resized = (view.size, other) if height <= width else (other, view.size)
    if view.crop is not None and min(resized) < view.crop:
        pixels = f"{resized[1]}x{resized[0]} pixels that view.resize={view.resize} leaves"
        raise UserError(f"view.crop={view.crop} is larger than the {pixels}: the crop would be padded")
    return resized


@dataclass(frozen=True)
class Network:
    """module: logits [B,K] from pixels [B,3,H,W]. layer: the default target layer. activation: what turns logits
    into probabilities, `softmax`, `sigmoid`, or `exp` (log-probabilities already,
    each of a question of its own). classes: names in output order, if known. digest: sha256 of name and
    weights. untrained: builds the same architecture with weights of its own initialisation, drawn from PyTorch's random
    state as it is; None where nobody knows how."""

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    layer: str
    digest: str
    activation: str = "softmax"
    classes: tuple[str, ...] | None = None
    untrained: Callable[[], nn.Module] | None = field(default=None, compare=False)

    @property
    def compares(self) -> bool:
        """Whether one output can come before another: all answer one question."""
        return self.activation != "exp"

    def probabilities(self, logits: Tensor) -> Tensor:
        """[B,K] in [0, 1] from logits [B,K]."""
        return probabilities(logits, self.activation)


def fingerprint(name: str, module: nn.Module) -> str:
    """sha256 (16 hex digits) over a network's name and every parameter and buffer, names and bytes."""
    found = hashlib.sha256(name.encode())
    for key, value in module.state_dict().items():
        found.update(key.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
