"""Boxes, frames and pixels.

A box is (x0, y0, x1, y1), float, half-open: it covers the pixels x0 <= x < x1, y0 <= y < y1, so its area is
(x1 - x0) * (y1 - y0) and the box of the single pixel (3, 4) is (3, 4, 4, 5). Sizes are (height, width).
Other conventions (VOC's 1-based inclusive, COCO's xywh, wsolevaluation's +1) exist only in the dataset that reads them
and in the protocol that needs them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """Where the network's input lies in the source image: input = source * scale - offset, for x and for y.

    source, input: sizes (height, width) in pixels. scale, offset: (y, x); the offset is in input pixels.
    """

    source: Size
    input: Size
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)

    def to_input(self, boxes: Tensor) -> Tensor:
        """Boxes [N,4] in source pixels -> boxes [N,4] in input pixels, clipped to the input."""
        (sy, sx), (oy, ox), (height, width) = self.scale, self.offset, self.input
        moved = boxes * boxes.new_tensor([sx, sy, sx, sy]) - boxes.new_tensor([ox, oy, ox, oy])
        return moved.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))

    def window(self) -> tuple[int, int, int, int]:
        """The source pixels (x0, y0, x1, y1) that the input shows, rounded to whole pixels and clipped to the image."""
        (sy, sx), (oy, ox), (height, width) = self.scale, self.offset, self.input
        x0, y0 = round(ox / sx), round(oy / sy)
        x1, y1 = round((ox + width) / sx), round((oy + height) / sy)
        return max(x0, 0), max(y0, 0), min(x1, self.source[1]), min(y1, self.source[0])


def warp(source: Size, input: Size) -> Frame:
    """The frame of a plain resize from `source` to `input`, aspect ratio not kept."""
    return Frame(source, input, (input[0] / source[0], input[1] / source[1]))


def area(boxes: Tensor) -> Tensor:
    """Areas [N] in square pixels of boxes [N,4]."""
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union [N,M] in [0, 1] of boxes a [N,4] and b [M,4]; 0 where the union is empty."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])  # [N,M,2]
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)  # [N,M]
    union = area(a)[:, None] + area(b)[None, :] - shared
    return torch.where(union > 0, shared / union.where(union > 0, 1.0), 0.0)


def rasterize(boxes: Tensor, size: Size) -> Tensor:
    """Boxes [N,4] -> mask [H,W] bool of their union: the pixels whose centre a box covers."""
    height, width = size
    mask = torch.zeros(size, dtype=torch.bool)
    for x0, y0, x1, y1 in (boxes - 0.5).ceil().long().tolist():
        mask[max(y0, 0) : min(max(y1, 0), height), max(x0, 0) : min(max(x1, 0), width)] = True
    return mask


def within(mask: Tensor, y: int, x: int, distance: float) -> bool:
    """Whether a pixel of mask [H,W] lies less than `distance` pixels from (y, x); distance 0: on the pixel itself.

    Strictly less, between pixel centres, as the pointing game's reference code has it.
    """
    reach = int(distance)
    top, left = max(y - reach, 0), max(x - reach, 0)
    near = mask[top : y + reach + 1, left : x + reach + 1].nonzero()  # [n,2]
    if not len(near):
        return False
    squared = ((near - near.new_tensor([y - top, x - left])) ** 2).sum(1).min().item()
    return squared == 0 or squared < distance**2
