"""What one new pixel changes, looked up by which of its eight neighbours are already foreground.

The neighbours form a ring, clockwise from the north-west: bit i of a code says that ring pixel i is foreground.

    0 1 2
    7 . 3
    6 5 4
"""

import numpy as np

RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))  # (dy, dx)
QUADS = ((7, 0, 1), (1, 2, 3), (3, 4, 5), (5, 6, 7))  # the ring pixels of the four 2x2 squares that hold the centre

DY = np.array([dy for dy, _ in RING], np.int32)
DX = np.array([dx for _, dx in RING], np.int32)


def _arcs(code: int, connectivity: int) -> list[int]:
    """One ring pixel out of each group of foreground neighbours that hang together without the centre and touch it."""
    reach = 2 if connectivity == 8 else 1  # squared distance of two connected pixels
    waiting = [i for i in range(8) if code >> i & 1]
    found = []
    while waiting:
        group = [waiting.pop()]
        for a in group:
            near = [b for b in waiting if (RING[a][0] - RING[b][0]) ** 2 + (RING[a][1] - RING[b][1]) ** 2 <= reach]
            waiting = [b for b in waiting if b not in near]
            group += near
        touching = [a for a in group if connectivity == 8 or a % 2 == 1]
        found += touching[:1]
    return found


def _polygon(quad: tuple[int, ...]) -> int:
    """Twice the area that a 2x2 square adds to a polygon through pixel centres: 2 for four pixels, 1 for three."""
    return max(sum(quad) - 2, 0)


def _euler(quad: tuple[int, ...]) -> int:
    """Four times what a 2x2 square adds to the Euler number (8-connected).  Gray 1971: (n1 - n3 - 2 n_diagonal) / 4."""
    if sum(quad) == 2:
        return -2 if quad[0] == quad[2] else 0
    return {1: 1, 3: -1}.get(sum(quad), 0)


def _gain(code: int) -> tuple[int, int]:
    """(2 x polygon area, Euler number) that the centre adds."""
    area = euler = 0
    for ring in QUADS:
        around = tuple(code >> i & 1 for i in ring)
        area += _polygon((1, *around)) - _polygon((0, *around))
        euler += _euler((1, *around)) - _euler((0, *around))
    return area, euler // 4


def _arc_table(connectivity: int) -> np.ndarray:
    table = np.full((256, 4), -1, np.int8)
    for code in range(256):
        arcs = _arcs(code, connectivity)
        table[code, : len(arcs)] = arcs
    return table


ARCS_4 = _arc_table(4)
ARCS_8 = _arc_table(8)
GAINS = np.array([_gain(code) for code in range(256)], np.int32)
