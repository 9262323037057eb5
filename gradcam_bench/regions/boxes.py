"""Boxes of a quantised heatmap at all 256 thresholds at once.

At threshold t in 0..255 the foreground is `levels > t` (nothing at 255). Rules:

    components         every connected component, its tight box
    largest_component  the component with most pixels; of equals, the one that holds the first pixel in row-major order
    wsol_v2            every contour that wsolevaluation (Choe et al. 2020) finds, those of holes included
    wsol_v1            the one contour of largest polygon area that it takes without multi_contour_eval
    largest_rectangle  the component whose tight box is the largest; of equals, the one whose first pixel comes last
    layer_cam_2021     the same in Layer-CAM's evaluator (Jiang et al. 2021): the column x0 + width counts as part
                       of the box, uncut; without foreground the box of the pixels (0, 0) to (1, 1)
    cam_2016_code      the box of CAM's own generator (`cam_2016`), which has thresholds of its own: one at all of them

The wsol rules give the evaluator's boxes exactly. Its components are 8-connected; its holes are the 4-connected
background components that do not touch the frame, their boxes grown by a pixel. It counts the column x0 + width, cut
to W-1, as part of a box; here the box ends at min(x0 + width, W-1) + 1, half-open, and plain IoU equals its "+1" IoU.
Without foreground its box is the pixel at the origin. Its largest contour is never a hole, whose polygon is no larger
than that of the component around it and is listed later; of equally large components it takes the one whose first pixel
comes last in row-major order, since OpenCV lists siblings backwards.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from .cam_2016 import cam_2016_box
from .largest import close_contenders, close_holes, hole_areas, winners
from .overlap import best_overlaps
from .tree import AREA, FIRST, LAST, X0, X1, Y0, Y1, component_records, pad

Rule = Literal[
    "components", "largest_component", "wsol_v1", "wsol_v2", "largest_rectangle", "layer_cam_2021", "cam_2016_code"
]
FOUR = ("components", "largest_component", "largest_rectangle")  # 4-connected too; the rest are programs' own
Levels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Passes = dict[str, npt.NDArray[np.int32]]

MOST_PIXELS = 2**30


@dataclass(frozen=True)
class Regions:
    """Box n and its area stand at the integer thresholds first[n]..last[n], both included; the order means nothing."""

    boxes: npt.NDArray[np.float32]  # [N,4] half-open xyxy in map pixels
    area: npt.NDArray[np.float64]  # [N] by which the rule chooses: pixels of region or box, square pixels of contour
    first: npt.NDArray[np.int16]  # [N]
    last: npt.NDArray[np.int16]  # [N]

    def at(self, threshold: int) -> npt.NDArray[np.float32]:
        """The boxes at one threshold: [n,4]."""
        return self.boxes[(self.first <= threshold) & (threshold <= self.last)]


def regions(levels: Levels, rule: Rule, connectivity: int = 8) -> Regions:
    """Every region of levels, uint8 [H,W], at every threshold. Rules not in FOUR are 8-connected only."""
    records = _records(levels, rule, connectivity, boxes_only=False)
    area = records[:, AREA] / (2.0 if rule.startswith("wsol") else 1.0)
    thresholds = records[:, [FIRST, LAST]].astype(np.int16)
    return Regions(_half_open(records).astype(np.float32), area, thresholds[:, 0], thresholds[:, 1])


def boxes_at(levels: Levels, threshold: int, rule: Rule, connectivity: int = 8) -> npt.NDArray[np.float32]:
    """The boxes of levels > threshold: [N,4] half-open xyxy in map pixels."""
    if not 0 <= threshold <= 255:
        raise ValueError(f"a threshold lies in 0..255, this one is {threshold}")
    if rule == "cam_2016_code":
        return regions(levels, rule, connectivity).at(threshold)
    return regions((levels > threshold).astype(np.uint8), rule, connectivity).at(0)


def best_iou(
    levels: Levels, truth: Floats, rule: Rule, connectivity: int = 8, passes: Passes | None = None
) -> npt.NDArray[np.float32]:
    """b_t = max over boxes of threshold t and truth boxes of IoU: [256] in 0..1, 0 where either is missing.

    levels: uint8 [H,W]. truth: [G,4], half-open xyxy in map pixels. Computed in float64. passes: empty at first; what
    was found is left there for the next call on the same levels, and what the wsol rules have in common.
    """
    truth = np.array(truth, np.float64, order="C")
    if truth.ndim != 2 or truth.shape[1] != 4:
        raise ValueError(f"truth boxes are [G,4], not {list(truth.shape)}")
    records = _records(levels, rule, connectivity, boxes_only=True, passes=passes)
    boxes = _half_open(records).astype(np.float64)
    return best_overlaps(boxes, records[:, FIRST], records[:, LAST], truth).astype(np.float32)


def _records(
    levels: Levels, rule: Rule, connectivity: int, boxes_only: bool, passes: Passes | None = None
) -> npt.NDArray[np.int32]:
    """The rule's regions as records; their boxes, last pixel included, are those of the rule. Not to be written to."""
    _check(levels, rule, connectivity)
    wanted, passes = (rule, connectivity, boxes_only), {} if passes is None else passes
    name = " ".join(map(str, wanted))
    if name in passes:
        return passes[name]
    for seen, how, records in tuple(_RECENT):
        if how == wanted and np.array_equal(seen, levels):
            return records
    records = passes[name] = _found(levels, rule, connectivity, boxes_only, passes)
    _RECENT.append((levels.copy(), wanted, records))
    return records


# The last few maps with their records: a control draws one map for all images, and a comparison is next to nothing.
_RECENT: deque[tuple[Levels, tuple[str, int, bool], npt.NDArray[np.int32]]] = deque(maxlen=4)


def _found(levels: Levels, rule: Rule, connectivity: int, boxes_only: bool, passes: Passes) -> npt.NDArray[np.int32]:
    if rule == "cam_2016_code":
        return _constant(cam_2016_box(levels))
    padded = pad(levels)
    if rule == "components":
        return component_records(padded, connectivity, False, boxes_only)
    if rule == "largest_component":
        return _largest(component_records(padded, connectivity, False, False), later=False)
    if rule in ("largest_rectangle", "layer_cam_2021"):
        found = _largest(_by_box(component_records(padded, connectivity, False, False)), later=True)
        return found if rule == "largest_rectangle" else _grown(found, levels)
    shared = passes.pop("foreground", None) if boxes_only else None
    if rule == "wsol_v1":
        found = component_records(padded, 8, True, False) if shared is None else shared
        passes["foreground"] = found.copy()
        (close_contenders if boxes_only else close_holes)(found, padded)
        found = _largest(found, later=True)
    else:
        found = component_records(padded, 8, not boxes_only, boxes_only) if shared is None else shared
        if not boxes_only:
            close_holes(found, padded)
        found = np.concatenate([found, _holes(levels, padded, boxes_only)])
    found[:, X1] = np.minimum(found[:, X1] + 1, levels.shape[1] - 1)
    found[:, Y1] = np.minimum(found[:, Y1] + 1, levels.shape[0] - 1)
    return np.concatenate([found, _nothing(levels)])


def _constant(box: tuple[int, int, int, int] | None) -> npt.NDArray[np.int32]:
    """A half-open box, if there is one, at all thresholds."""
    record = np.zeros((int(box is not None), LAST + 1), np.int32)
    if box is not None:
        record[0, [X0, Y0, X1, Y1]] = np.array(box) - [0, 0, 1, 1]
        record[0, AREA], record[0, LAST] = (box[2] - box[0]) * (box[3] - box[1]), 255
    return record


def _by_box(records: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The records, AREA that of the tight box; in place."""
    records[:, AREA] = (records[:, X1] - records[:, X0] + 1) * (records[:, Y1] - records[:, Y0] + 1)
    return records


def _grown(records: npt.NDArray[np.int32], levels: Levels) -> npt.NDArray[np.int32]:
    """The records, one column and one row larger, and the box of the thresholds without a region."""
    records[:, [X1, Y1]] += 1
    nothing = _nothing(levels)
    nothing[:, [X1, Y1]] = 1
    return np.concatenate([records, nothing])


def _largest(records: npt.NDArray[np.int32], later: bool) -> npt.NDArray[np.int32]:
    """One record for each run of thresholds that share their winner."""
    best = winners(records, later)
    begins = np.flatnonzero(np.diff(best, prepend=-2))
    ends = np.append(begins[1:], 256) - 1
    exists = best[begins] >= 0
    found = records[best[begins[exists]]]
    found[:, FIRST], found[:, LAST] = begins[exists], ends[exists]
    return found


def _holes(levels: Levels, padded: npt.NDArray[np.int16], boxes_only: bool) -> npt.NDArray[np.int32]:
    """The holes: background at t, levels <= t, is the foreground of the inverted map at 254 - t."""
    found = component_records(pad(255 - levels), 4, False, boxes_only)
    right, bottom = levels.shape[1] - 1, levels.shape[0] - 1
    inside = (found[:, X0] > 0) & (found[:, Y0] > 0) & (found[:, X1] < right) & (found[:, Y1] < bottom)
    found = found[inside]
    found[:, [FIRST, LAST]] = 254 - found[:, [LAST, FIRST]]
    if not boxes_only:
        hole_areas(found, padded)
    found[:, [X0, Y0]] -= 1
    found[:, [X1, Y1]] += 1
    return found


def _nothing(levels: Levels) -> npt.NDArray[np.int32]:
    """The evaluator's answer where there is no contour: the pixel at the origin."""
    record = np.zeros((1, LAST + 1), np.int32)
    record[0, FIRST], record[0, LAST] = levels.max(), 255
    return record


def _half_open(records: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    return records[:, [X0, Y0, X1, Y1]] + np.array([0, 0, 1, 1], np.int32)


def _check(levels: Levels, rule: str, connectivity: int) -> None:
    if rule not in get_args(Rule):
        raise ValueError(f"no component rule {rule!r}; there are {', '.join(get_args(Rule))}")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity is 4 or 8, not {connectivity}")
    if rule not in FOUR and connectivity != 8:
        raise ValueError(f"{rule} is 8-connected by definition, as the authors' contours are")
    if levels.ndim != 2 or levels.dtype != np.uint8 or not 0 < levels.size <= MOST_PIXELS:
        raise ValueError(f"levels are uint8 [H,W], 1 to 2**30 pixels, not {levels.dtype} {list(levels.shape)}")
