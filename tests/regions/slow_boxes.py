"""The same boxes the obvious way: one threshold at a time, with OpenCV's contours and SciPy's labels."""

import cv2
import numpy as np
from scipy import ndimage


def contours(levels, threshold, every):
    """What wsolevaluation takes at one threshold: a list of (x0, y0, x1, y1, polygon area), x1 and y1 included."""
    height, width = levels.shape
    mask = (levels > threshold).astype(np.uint8) * 255
    found, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not found:
        return [(0, 0, 0, 0, 0.0)]
    chosen = found if every else [max(found, key=cv2.contourArea)]
    boxes = []
    for contour in chosen:
        x, y, w, h = cv2.boundingRect(contour)
        boxes.append((x, y, min(x + w, width - 1), min(y + h, height - 1), cv2.contourArea(contour)))
    return boxes


def components(levels, threshold, connectivity, largest):
    """A list of (x0, y0, x1, y1, pixels), x1 and y1 included."""
    labels, count = ndimage.label(levels > threshold, np.ones((3, 3)) if connectivity == 8 else None)
    boxes = []
    for label in range(1, count + 1):  # SciPy numbers components in the row-major order of their first pixels
        y, x = np.nonzero(labels == label)
        boxes.append((x.min(), y.min(), x.max(), y.max(), float(len(x))))
    return [max(boxes, key=lambda box: box[4])] if largest and boxes else boxes


def boxes(levels, threshold, rule, connectivity=8):
    if rule.startswith("wsol"):
        return contours(levels, threshold, every=rule == "wsol_v2")
    return components(levels, threshold, connectivity, largest=rule == "largest_component")


def iou(one, other):
    """IoU of two boxes of whole pixels, last pixel included."""
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]) + 1)
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]) + 1)
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (one, other)]
    return width * height / (areas[0] + areas[1] - width * height)


def best_iou(found, truth):
    return np.float32(max((iou(box, other) for box in found for other in truth), default=0.0))
