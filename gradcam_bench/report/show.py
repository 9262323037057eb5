"""One picture of one image: as it is, then each method's map over it, side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from gradcam_bench.errors import UserError
from gradcam_bench.report.inputs import Boxes, Heat, Picture
from gradcam_bench.report.pictures import coloured
from gradcam_bench.report.style import INK, PREDICTED, TRUE

ACROSS = 5, 10  # panels in a row, of few and of many
FEW = 20
SIDE = 2.2  # inches, of a panel's longer side
OPACITY = 0.5
ENOUGH = 1000  # pixels of a panel's longer side: above twice as many, a picture is thinned out before it is drawn
DASH = (0, (4, 2.5))  # in line widths


def side_by_side(
    image: Picture,
    maps: Mapping[str, Heat],
    boxes: Mapping[str, Boxes] | None = None,
    true_boxes: Boxes | None = None,
    title: str = "",
) -> bytes:
    """A PNG: image uint8 [H,W,3], then a panel for each of maps ([H,W] in [0, 1]) with its boxes [N,4].

    Boxes are half-open, in pixels of the image: predicted ones solid, true ones [G,4] dashed and on every panel.
    """
    height, width = image.shape[:2]
    for label, heatmap in maps.items():
        if heatmap.shape != (height, width):
            raise UserError(
                f"map '{label}' is {list(heatmap.shape)}, the image {[height, width]}: resize the map first"
            )
    small = _thinned(image)
    panels: list[tuple[str, Picture, Boxes | None]] = [("image", small, None)]
    panels += [(label, _blend(small, _thinned(heatmap)), (boxes or {}).get(label)) for label, heatmap in maps.items()]
    with mpl.rc_context({"text.parse_math": False, "font.size": 9, "text.color": INK}):
        sheet = _sheet(panels, (height, width), true_boxes, title)
        file = io.BytesIO()
        sheet.savefig(file, format="png", dpi=200, metadata={"Software": None})
    return file.getvalue()


def _thinned(pixels: NDArray[Any]) -> NDArray[Any]:
    """[H,W,...] averaged over squares of as many pixels as leave ENOUGH: matplotlib takes seconds and gigabytes for the
    panels of a camera's picture."""
    step = max(1, max(pixels.shape[:2]) // ENOUGH)
    if step == 1:
        return pixels
    plain = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    return np.asarray(Image.fromarray(plain).reduce(step))


def _sheet(
    panels: list[tuple[str, Picture, Boxes | None]], size: tuple[int, int], true_boxes: Boxes | None, title: str
) -> Figure:
    """size: (height, width) of the image, whose pixels the boxes are in."""
    height, width = size
    across = min(ACROSS[len(panels) > FEW], len(panels))
    down = -(-len(panels) // across)
    scale = SIDE / max(height, width)
    head = 0.5 if title or true_boxes is not None else 0.1
    inches = (across * (scale * width + 0.12), down * (scale * height + 0.32) + head)
    sheet = Figure(figsize=inches, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0))
    grid = list(sheet.subplots(down, across, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, (label, picture, found) in zip(grid, panels, strict=False):
        axes.imshow(picture, extent=(0, width, height, 0), interpolation="antialiased")
        axes.set_title(label, fontsize=9, pad=4)
        _draw_boxes(axes, true_boxes, TRUE, DASH)
        _draw_boxes(axes, found, PREDICTED, "solid")
    if head > 0.1:
        sheet.suptitle(title, x=0.005, ha="left", fontsize=10.5, weight="bold")
        predicted = any(boxes is not None for *_, boxes in panels)
        if predicted or true_boxes is not None:
            _key(sheet, true_boxes is not None, predicted)
    return sheet


def _blend(image: Picture, heatmap: Heat) -> Picture:
    mixed = (1 - OPACITY) * image.astype(float) + OPACITY * coloured(heatmap).astype(float)
    return mixed.round().astype(np.uint8)


def _draw_boxes(axes: Any, boxes: Boxes | None, colour: str, style: Any) -> None:
    """Boxes [N,4] with a dark rim, so that they show on any picture."""
    for x0, y0, x1, y1 in np.asarray(boxes).reshape(-1, 4) if boxes is not None else ():
        for edge, line, width in ((INK, "solid", 2.3), (colour, style, 1.3)):
            frame = (float(x0), float(y0)), float(x1 - x0), float(y1 - y0)
            axes.add_patch(Rectangle(*frame, fill=False, edgecolor=edge, linestyle=line, linewidth=width))


def _key(sheet: Figure, true: bool, predicted: bool) -> None:
    """What the lines mean, at the top right."""
    lines = [("true box", TRUE, DASH)] * true + [("predicted box", PREDICTED, "solid")] * predicted
    if not lines:  # a legend of nothing is an error
        return
    rim = Line2D([], [], color=INK, linewidth=2.3)
    handles = [(rim, Line2D([], [], color=colour, linestyle=style, linewidth=1.3)) for _, colour, style in lines]
    sheet.legend(
        handles=handles,
        labels=[name for name, *_ in lines],
        handler_map={tuple: HandlerTuple(ndivide=1)},
        loc="upper right",
        ncols=2,
        frameon=False,
        fontsize=8.5,
        borderaxespad=0.2,
    )
