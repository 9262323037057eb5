"""Areas of borders, by following them pixel by pixel.  Suzuki and Abe 1985, algorithm 1, step 3."""

import numpy as np

from .compiled import compiled
from .neighbours import DX, DY

WEST, EAST = 7, 3


@compiled
def border_area(padded: np.ndarray, threshold: int, y: int, x: int, behind: int) -> int:
    """Twice the area, in square pixels, of the polygon through a border's foreground pixels (centres, 8-connected).

    padded: int16 [H+2,W+2], levels with a frame of -1. (y, x), padded, is a pixel of the border, its level above the
    threshold, and ring direction `behind` leads to the background that the border faces: an outer border starts at the
    component's first pixel with WEST, a hole's border left of the hole's first pixel with EAST.
    """
    first = -1
    for turn in range(1, 8):
        ring = (behind + turn) & 7
        if padded[y + DY[ring], x + DX[ring]] > threshold:
            first = ring
            break
    if first < 0:
        return 0
    last_y, last_x = y + DY[first], x + DX[first]
    here_y, here_x, back = y, x, first
    area = 0
    while True:
        ring = (back - 1) & 7
        while padded[here_y + DY[ring], here_x + DX[ring]] <= threshold:
            ring = (ring - 1) & 7
        next_y, next_x = here_y + DY[ring], here_x + DX[ring]
        area += (here_x - x) * (next_y - y) - (next_x - x) * (here_y - y)
        if next_y == y and next_x == x and here_y == last_y and here_x == last_x:
            return abs(area)
        here_y, here_x, back = next_y, next_x, (ring + 4) & 7
