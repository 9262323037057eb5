"""How a layer's output lies on the image: feature maps of either order, and token sequences, as a grid [B,C,h,w].

What a layer gives is compared with the image that went in and with the maps of convolutions and poolings that ran
before it in the same pass; no size is assumed. What fits nothing, such as the windows of an attention, is no grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SPATIAL = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)  # give [B,C,h,w] for sure
PREFIX = 16  # the most tokens taken to precede a grid's: class, distillation, registers
CELLS = 2  # by how many cells a grid's sides may miss the image's shape: padding and its absence


@dataclass(frozen=True)
class Layout:
    """How a tensor becomes a grid of size (height, width): `channels_first` [B,C,h,w], `channels_last` [B,h,w,C] or
    `tokens` [B, prefix + h*w, C], whose rows follow one another."""

    order: str
    size: tuple[int, int]
    prefix: int = 0

    def grid(self, native: Tensor) -> Tensor:
        """[N,C,h,w] from what the layer gave, or from its gradient; prefix tokens are left out."""
        if self.order == "channels_first":
            return native
        if self.order == "channels_last":
            return native.permute(0, 3, 1, 2)
        return native[:, self.prefix :].transpose(1, 2).unflatten(2, self.size)

    def native(self, grid: Tensor, like: Tensor) -> Tensor:
        """What the layer would give for grids [N,C,h,w]; prefix tokens are those of `like`, as it gives N of them."""
        if self.order == "channels_first":
            return grid
        if self.order == "channels_last":
            return grid.permute(0, 2, 3, 1)
        return torch.cat([like[:, : self.prefix], grid.flatten(2).transpose(1, 2)], 1)


def layout(module: nn.Module, output: object, images: Tensor, known: Sequence[tuple[int, int]] = ()) -> Layout | None:
    """The layout of a module's output for images [B,3,H,W], None where it is no grid.

    known: the sizes (h, w) of the maps that `SPATIAL` modules gave before. Four dimensions are a grid where two
    neighbouring ones have such a size or the image's shape. Tokens are a grid where their number, less a few at the
    front, is that of such a map's cells: the patch embedding gives as many as there are patches.
    """
    if not isinstance(output, Tensor) or output.ndim not in (3, 4) or len(output) != len(images):
        return None
    if output.ndim == 3:
        return tokens(output.shape[1], known)
    image, (a, b, c) = tuple(images.shape[-2:]), output.shape[1:]
    first, last = (size in known or _fits(size, image) for size in ((b, c), (a, b)))
    if b == c and (b, c) not in known and tokens(b, known):
        return None  # tokens by tokens: attention
    if last and (not first or _works_on_the_last_dimension(module)):
        return Layout("channels_last", (a, b))
    return Layout("channels_first", (b, c)) if first else None


def _fits(size: tuple[int, int], image: tuple[int, ...]) -> bool:
    """Whether (h, w) has the shape of the image (H, W), but for a cell or two and at most a factor of two."""
    sides = size[0] * image[1], size[1] * image[0]
    return abs(sides[0] - sides[1]) <= min(CELLS * max(image), max(sides) / 2)


def _works_on_the_last_dimension(module: nn.Module) -> bool:
    """What decides for [B,96,96,96]: layer norms and linear maps take channels last; LayerNorm2d is another class."""
    inside = [type(part) for part in module.modules()]
    return (nn.LayerNorm in inside or nn.Linear in inside) and not any(issubclass(kind, nn.Conv2d) for kind in inside)


def tokens(count: int, known: Sequence[tuple[int, int]]) -> Layout | None:
    """How so many tokens lie: the cells of a known map after as few others as may be, None where no map fits."""
    prefixes = {(h, w): count - h * w for h, w in known if h * w > 1}
    fitting = [size for size, prefix in prefixes.items() if 0 <= prefix <= PREFIX]
    size = min(fitting, key=prefixes.__getitem__, default=None)
    return None if size is None else Layout("tokens", size, prefixes[size])
