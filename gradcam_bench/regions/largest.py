"""Which component is the largest at each threshold, and how large the border of a component with holes is."""

import numpy as np

from .borders import EAST, WEST, border_area
from .compiled import compiled
from .tree import AREA, FIRST, HOLES, LAST, START_X, START_Y, X0, X1, Y0, Y1


@compiled
def close_holes(records: np.ndarray, padded: np.ndarray) -> None:
    """Make AREA twice the area of the outer border, holes filled, which is what cv2.contourArea measures; in place.

    records: int32 [N,COLUMNS] with polygon areas. Without holes these are it; with holes the border is followed.
    """
    for record in records:
        if record[HOLES] > 0:
            record[AREA] = _outer_area(record, padded)


@compiled
def close_contenders(records: np.ndarray, padded: np.ndarray) -> None:
    """Like close_holes, but exact only where that decides which is the largest; elsewhere AREA is a lower bound.

    A polygon with h holes gains at least 2h, the area of the polygon around one pixel, and at most fills its box.
    """
    floor = np.full(256, -1, np.int64)
    for record in records:
        record[AREA] += 4 * record[HOLES]
        for threshold in range(record[FIRST], record[LAST] + 1):
            floor[threshold] = max(floor[threshold], record[AREA])
    contenders = np.zeros(256, np.int64)
    for record in records:
        most = _most(record)
        for threshold in range(record[FIRST], record[LAST] + 1):
            contenders[threshold] += most >= floor[threshold]
    for record in records:
        if record[HOLES] == 0:
            continue
        most = _most(record)
        for threshold in range(record[FIRST], record[LAST] + 1):
            if most >= floor[threshold] and contenders[threshold] > 1:
                record[AREA] = _outer_area(record, padded)
                break


@compiled
def _outer_area(record: np.ndarray, padded: np.ndarray) -> int:
    return border_area(padded, record[LAST], record[START_Y] + 1, record[START_X] + 1, WEST)


@compiled
def _most(record: np.ndarray) -> int:
    """The largest AREA the outer border can have."""
    return 2 * (record[X1] - record[X0]) * (record[Y1] - record[Y0]) if record[HOLES] > 0 else record[AREA]


@compiled
def hole_areas(records: np.ndarray, padded: np.ndarray) -> None:
    """Make AREA twice the area of a hole's border, which runs through the foreground around the hole; in place.

    records: int32 [N,COLUMNS] of background components that do not touch the frame, thresholds those of `padded`.
    """
    for record in records:
        record[AREA] = border_area(padded, record[LAST], record[START_Y] + 1, record[START_X], EAST)


@compiled
def winners(records: np.ndarray, later: bool) -> np.ndarray:
    """The record with the largest AREA at each threshold: int64 [256], -1 where there is none.

    Among equals wins the one whose first pixel comes last in row-major order if `later`, else first.
    """
    best = np.full(256, -1, np.int64)
    largest = np.full(256, -1, np.int64)
    for i in range(len(records)):
        area = records[i, AREA]
        for threshold in range(records[i, FIRST], records[i, LAST] + 1):
            if area < largest[threshold]:
                continue
            if area > largest[threshold] or _starts_later(records[i], records[best[threshold]]) == later:
                largest[threshold] = area
                best[threshold] = i
    return best


@compiled
def _starts_later(one: np.ndarray, other: np.ndarray) -> bool:
    return one[START_Y] > other[START_Y] or (one[START_Y] == other[START_Y] and one[START_X] > other[START_X])
