"""True boxes as a protocol brings them into the pixels in which they are compared with a map's."""

from __future__ import annotations

from torch import Tensor

from gradcam_bench.geometry import Frame, Size, area


def in_frame(boxes: Tensor, frame: Frame, where: str, how: str) -> Tensor:
    """Boxes [G,4] in source pixels, half-open -> [G',4] float64 in the pixels of `where` (`source` or `input`).

    how: the axis `iou`. `half_open`: scaled and clipped, nothing more. `wsol`: as wsolevaluation brings them there:
    inclusive corners, scaled, truncated to whole pixels; its IoU adds one pixel to each side, which is what half-open
    corners one further on amount to. It warps; under a crop, its place in the resized image is taken off and the boxes
    end where the crop does. `corners`: the same, but no pixel is added, and a box of which the crop leaves nothing is
    no box.
    """
    boxes = boxes.double()
    if how == "half_open":
        return boxes if where == "source" else frame.to_input(boxes)
    corners = boxes - boxes.new_tensor([0, 0, 1, 1])
    if where == "input":
        (height, width), (oy, ox) = frame.source, frame.offset
        scaled = [round(height * frame.scale[0]), round(width * frame.scale[1])]  # what a crop was cut from
        corners = corners * boxes.new_tensor(scaled[::-1] * 2) / boxes.new_tensor([width, height] * 2)
        corners = corners - boxes.new_tensor([ox, oy] * 2)
    size = frame.source if where == "source" else frame.input
    if how == "wsol":
        return _inside(corners.floor() + boxes.new_tensor([0, 0, 1, 1]), size)
    left = _inside(corners.floor(), size)
    return left[area(left) > 0]


def _inside(boxes: Tensor, size: Size) -> Tensor:
    return boxes.clamp(min=0).minimum(boxes.new_tensor([size[1], size[0]] * 2))
