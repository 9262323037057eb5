"""The best IoU at each threshold."""

import numpy as np

from .compiled import compiled


@compiled
def best_overlaps(boxes: np.ndarray, first: np.ndarray, last: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """max over a threshold's boxes and all truth boxes of IoU: float64 [256] in 0..1, 0 where there is no box.

    boxes, truth: float64 [N,4] and [G,4], half-open xyxy; box n stands at thresholds first[n]..last[n], both included.
    A truth box without area, or with a NaN, matches nothing.
    """
    best = np.zeros(256, np.float64)
    for n in range(len(boxes)):
        box = boxes[n]
        area = (box[2] - box[0]) * (box[3] - box[1])
        found = 0.0
        for g in range(len(truth)):
            other = truth[g]
            width = min(box[2], other[2]) - max(box[0], other[0])
            height = min(box[3], other[3]) - max(box[1], other[1])
            if width > 0 and height > 0:
                common = width * height
                iou = common / (area + (other[2] - other[0]) * (other[3] - other[1]) - common)
                if iou > found:
                    found = iou
        if found > 0:
            for threshold in range(first[n], last[n] + 1):
                if found > best[threshold]:
                    best[threshold] = found
    return best
