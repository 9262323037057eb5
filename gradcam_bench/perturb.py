"""Perturbed images: pixels kept or replaced as a mask says, in blocks, so that memory stays bounded.

A mask M [n,H,W] in [0, 1] keeps an image x where it is 1 and puts a fill in where it is 0: M x + (1 - M) fill. Images
are normalised as the network takes them, so a fill of 0 (the default) is the mean colour of the data the network was
trained on, mid-grey, and not black. The number of images in a block is fixed for a case (`ask.block`), whatever else is
in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gradcam_bench.ask import Ask
from gradcam_bench.cases import probabilities
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.heatmaps import normalize, resize
from gradcam_bench.resampling import blur as blur

FILLS, ORDERS = ("mean", "own_mean", "blur"), ("enlarge_first", "scale_first")
Answer = Callable[[Tensor], Tensor]  # images [n,3,H,W] -> one number each [n]


class Masked:
    """One image [3,H,W] under masks: `Masked(image, block)(masks [n,H,W])` is [n,3,H,W], n <= block.

    The result is a view of one channels-last buffer that the next call overwrites. fill: [3,H,W], None for 0.
    """

    def __init__(self, image: Tensor, block: int, fill: Tensor | None = None) -> None:
        self._fill, self._kept = fill, image if fill is None else image - fill
        shape = (block, *image.shape)
        self._buffer = torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=torch.channels_last)

    def __call__(self, masks: Tensor) -> Tensor:
        out = torch.mul(self._kept, masks[:, None], out=self._buffer[: len(masks)])
        return out if self._fill is None else out.add_(self._fill)


def fill(image: Tensor, how: str, sigma: float = 10.0) -> Tensor:
    """What stands where an image [3,H,W] is masked: `mean` (0, the training data's mean colour), `own_mean` (the
    image's mean colour) or `blur` (the image itself, blurred by a Gaussian of `sigma` pixels)."""
    if how == "mean":
        return torch.zeros_like(image)
    if how == "own_mean":
        return image.mean((1, 2), keepdim=True).expand_as(image)
    if how == "blur":
        return blur(image, sigma)
    raise unknown("fill", how, FILLS)


def baseline_colour(name: str, black: Tensor) -> Tensor:
    """[3,1,1]: the colour of the image from which a path to an image starts: `black`, as it is after the network's
    normalisation, or `zero` (of the normalised image: the mean colour)."""
    if name not in ("black", "zero"):
        raise unknown("baseline", name, ("black", "zero"))
    return black if name == "black" else torch.zeros_like(black)


def channel_masks(
    maps: Tensor, image: Tensor, block: int, kernel: str = "bilinear", order: str = "enlarge_first"
) -> Iterator[Tensor]:
    """Maps [C,h,w] as masks [n,H,W] of an image [3,H,W], block by block: enlarged, then each brought to [0, 1]; or the
    other way round (order: `scale_first`), when a mask need not reach 0 and 1."""
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    for part in maps.split(block):
        if order == "scale_first":
            yield enlarged(normalize(part, "minmax"), image, kernel)
        else:
            yield normalize(enlarged(part, image, kernel), "minmax")


def enlarged(maps: Tensor, like: Tensor, kernel: str = "bilinear") -> Tensor:
    """Maps [n,h,w] resampled to the height and width of `like` [...,H,W]."""
    return resize(maps, (like.shape[-2], like.shape[-1]), kernel)


def widened(values: Tensor) -> Tensor:
    """The values in single precision, or as they are where they are wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def rehearsed(ask: Ask, count: int) -> int:
    """How many of `count` repetitions are needed to see whether a method works: in a rehearsal one, else all."""
    return min(count, 1) if ask.rehearsal else count


def varying(maps: Tensor, ask: Ask) -> Tensor:
    """Those of maps [C,h,w] that are not constant (a constant one makes no mask); one of them in a rehearsal."""
    found = maps[maps.amax((1, 2)) != maps.amin((1, 2))]
    return found[: rehearsed(ask, len(found))]


def probability(label: str, ask: Ask, target: int) -> Answer:
    """The probability of class `target` (by the network's own softmax or sigmoid) as a function of images. Raises
    UserError for a target that is a function of the model's output (-1) and so has none; label: the method that asks.
    """
    if target < 0:
        raise UserError(f"{label} does not apply: it asks for the probability of a class, and the target is none")
    return lambda images: probabilities(ask.outputs(images), ask.activation)[:, target]
