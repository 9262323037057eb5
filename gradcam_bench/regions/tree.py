"""The components of a map at all 256 thresholds, in one pass over its pixels from bright to dark.

Pixels are switched on from the brightest level down. A pixel without foreground neighbours founds a component, any
other joins its neighbours' and perhaps merges them: a component tree by union-find (Najman and Couprie 2006), over
components, not pixels. Each state of each component that some threshold shows is written down as one record.
"""

import numpy as np

from .compiled import compiled
from .neighbours import ARCS_4, ARCS_8, DX, DY, GAINS

# The columns of a record. Pixels are those of the map, not of the padded one.
X0, Y0, X1, Y1 = 0, 1, 2, 3  # tight box, last pixel included
AREA = 4  # pixels; or, where polygons are counted, twice the polygon's area without its holes
HOLES = 5  # number of holes, if 8-connected
START_Y, START_X = 6, 7  # first pixel in row-major order
FIRST, LAST = 8, 9  # the thresholds, both included, between which the component is as recorded
COLUMNS = 10
# While a component grows, two of the columns hold something else.
BORN = FIRST  # level of the pixels that brought the component into its present state
SIZE = LAST  # pixels, to merge the smaller into the larger


def pad(levels: np.ndarray) -> np.ndarray:
    """uint8 [H,W] -> int16 [H+2,W+2] with a frame of -1, which is background at every threshold and at level 0, too."""
    padded = np.full((levels.shape[0] + 2, levels.shape[1] + 2), -1, np.int16)
    padded[1:-1, 1:-1] = levels
    return padded


@compiled
def _bright_first(padded: np.ndarray) -> np.ndarray:
    """The pixels above level 0 by falling level, row-major within one: int64 [n] of y << 32 | x (padded)."""
    height, width = padded.shape
    place = np.zeros(257, np.int64)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            place[padded[y, x]] += 1
    above = 0
    for level in range(255, 0, -1):
        count = place[level]
        place[level] = above
        above += count
    order = np.empty(above, np.int64)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            level = padded[y, x]
            if level > 0:
                order[place[level]] = (y << 32) | x
                place[level] += 1
    return order


@compiled
def _neighbours(padded: np.ndarray, y: int, x: int, level: int) -> int:
    """The ring code of a pixel at its turn: earlier pixels of its own level are on already, later ones are not."""
    return (
        (padded[y - 1, x - 1] >= level)
        | (padded[y - 1, x] >= level) << 1
        | (padded[y - 1, x + 1] >= level) << 2
        | (padded[y, x + 1] > level) << 3
        | (padded[y + 1, x + 1] > level) << 4
        | (padded[y + 1, x] > level) << 5
        | (padded[y + 1, x - 1] > level) << 6
        | (padded[y, x - 1] >= level) << 7
    )


@compiled
def _root(parent: np.ndarray, component: int) -> int:
    while parent[component] != component:
        parent[component] = parent[parent[component]]
        component = parent[component]
    return component


@compiled
def _write(records: np.ndarray, count: int, component: np.ndarray, level: int) -> int:
    """Record a component that the pixels at `level` are about to change; one that is no older was never seen."""
    if component[BORN] == level:
        return count
    record = records[count]
    for column in range(FIRST):
        record[column] = component[column]
    record[FIRST] = level
    record[LAST] = component[BORN] - 1
    component[BORN] = level
    return count + 1


@compiled
def _found(component: np.ndarray, y: int, x: int, level: int, area: int) -> None:
    """A new component of one pixel."""
    component[X0] = component[X1] = component[START_X] = x
    component[Y0] = component[Y1] = component[START_Y] = y
    component[AREA] = area
    component[HOLES] = 0
    component[BORN] = level
    component[SIZE] = 1


@compiled
def _holds(component: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> bool:
    return component[X0] <= x0 and component[Y0] <= y0 and component[X1] >= x1 and component[Y1] >= y1


@compiled
def _extend(component: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> None:
    component[X0] = min(component[X0], x0)
    component[Y0] = min(component[Y0], y0)
    component[X1] = max(component[X1], x1)
    component[Y1] = max(component[Y1], y1)


@compiled
def _start(component: np.ndarray, y: int, x: int) -> None:
    if y < component[START_Y] or (y == component[START_Y] and x < component[START_X]):
        component[START_Y] = y
        component[START_X] = x


@compiled
def component_records(padded: np.ndarray, connectivity: int, polygons: bool, boxes_only: bool) -> np.ndarray:
    """Every component at every threshold: int32 [N,COLUMNS], N at most the number of pixels.

    padded: what `pad` returns. polygons: AREA is that of the border polygon (8-connected only) instead of the number of
    pixels. boxes_only: one record per box instead of one per state; its other columns but FIRST and LAST mean nothing.
    """
    arcs = ARCS_8 if connectivity == 8 else ARCS_4
    order = _bright_first(padded)
    label = np.empty(padded.shape, np.int32)
    parent = np.empty(order.size, np.int32)
    state = np.empty((order.size, COLUMNS), np.int32)
    records = np.empty((order.size, COLUMNS), np.int32)
    founded = count = 0
    for pixel in order:
        y, x = pixel >> 32, pixel & 0xFFFFFFFF
        level = padded[y, x]
        code = _neighbours(padded, y, x, level)
        ring = arcs[code, 0]
        if ring < 0:
            label[y, x] = parent[founded] = founded
            _found(state[founded], y - 1, x - 1, level, 0 if polygons else 1)
            founded += 1
            continue
        root = _root(parent, label[y + DY[ring], x + DX[ring]])
        for arc in range(1, 4):  # merge the components that meet here
            ring = arcs[code, arc]
            if ring < 0:
                break
            other = _root(parent, label[y + DY[ring], x + DX[ring]])
            if other == root:
                continue
            if state[other, SIZE] > state[root, SIZE]:
                root, other = other, root
            a, b = state[root], state[other]
            count = _write(records, count, b, level)
            if not (boxes_only and _holds(a, b[X0], b[Y0], b[X1], b[Y1])):
                count = _write(records, count, a, level)
                _extend(a, b[X0], b[Y0], b[X1], b[Y1])
            _start(a, b[START_Y], b[START_X])
            a[AREA] += b[AREA]
            a[HOLES] += b[HOLES] - 1
            a[SIZE] += b[SIZE]
            parent[other] = root
        own = state[root]  # then add the pixel
        if not (boxes_only and _holds(own, x - 1, y - 1, x - 1, y - 1)):
            count = _write(records, count, own, level)
            _extend(own, x - 1, y - 1, x - 1, y - 1)
        _start(own, y - 1, x - 1)
        own[AREA] += GAINS[code, 0] if polygons else 1
        own[HOLES] -= GAINS[code, 1]
        own[SIZE] += 1
        label[y, x] = root
    for component in range(founded):
        if parent[component] == component:
            count = _write(records, count, state[component], 0)
    return records[:count]
