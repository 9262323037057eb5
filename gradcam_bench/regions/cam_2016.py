"""The box of CAM's own box generator (Zhou et al. 2016, their released `dt_box` with thresholds 20, 100, 110).

Each threshold's foreground is worn away from its edges: a pixel stays if its distance to the background, as a share of
the largest such distance, comes to more than 10 of 255. What is left, less the picture's outermost pixels (which
OpenCV 2.4, that the authors' program was linked with, cleared), gives the 8-connected components' boxes. They are kept
five pixels off the right and the bottom border; the largest of all thresholds' boxes is the answer. (Holes' boxes,
and the dropping of boxes that overlap an earlier one, change only what comes after the first.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

THRESHOLDS = (20, 100, 110)  # of 255
WORN = 10  # of 255, a share of the largest distance
MARGIN = 5  # pixels

Levels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]


def cam_2016_box(levels: Levels) -> Box | None:
    """(x0, y0, x1, y1) of levels, uint8 [H,W]: whole pixels, half-open; None where nothing is above a threshold.

    The evaluation takes x + width for the last pixel, and so does this box. Of boxes of one size the first threshold's
    wins, of one threshold the one whose first pixel comes last in row-major order, as OpenCV lists them. A box for
    which the margin leaves no room, to which the program gives sides of no or negative length, is none.
    """
    height, width = levels.shape
    best, largest = None, 0
    for threshold in THRESHOLDS:
        foreground = levels > threshold
        if _span(foreground) <= largest:
            break  # neither this foreground nor a smaller one holds a larger box
        labels, _ = ndimage.label(_inside(_worn(foreground)), np.ones((3, 3)))
        for rows, columns in reversed(ndimage.find_objects(labels)):
            x, y = columns.start, rows.start
            wide = min(columns.stop - x, width - x - MARGIN)
            high = min(rows.stop - y, height - y - MARGIN)
            if wide > 0 and high > 0 and wide * high > largest:
                best, largest = (x, y, x + wide + 1, y + high + 1), wide * high
    return best


def _worn(foreground: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Foreground [H,W] without the pixels near its edge; where there is no edge, as it is."""
    if foreground.all() or not foreground.any():
        return foreground
    distance = ndimage.distance_transform_edt(foreground)
    return np.floor(distance * (255 / distance.max()) + 0.5) > WORN


def _inside(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    cleared = np.zeros_like(mask)
    cleared[1:-1, 1:-1] = mask[1:-1, 1:-1]
    return cleared


def _span(mask: npt.NDArray[np.bool_]) -> int:
    """Pixels of the tight box of everything in mask [H,W]."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)) if len(rows) else 0
