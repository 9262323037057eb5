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


def rectangle(levels, threshold, connectivity):
    """The largest bounding rectangle of the external contours, the first of equals: a list of one or none."""
    mask = (levels > threshold).astype(np.uint8)
    if connectivity == 8:
        found = [cv2.boundingRect(c) for c in cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]]
    else:
        found = [(x, y, x1 - x + 1, y1 - y + 1) for x, y, x1, y1, _ in components(levels, threshold, 4, False)[::-1]]
    best = None
    for box in found:
        if best is None or box[2] * box[3] > best[2] * best[3]:
            best = box
    return [] if best is None else [best]


def layer_cam(levels, threshold):
    """Layer-CAM's evaluator: corners x, y, x + w, y + h whose pixels all count, and (0, 0, 1, 1) without a contour."""
    found = rectangle(levels, threshold, 8)
    x, y, w, h = found[0] if found else (0, 0, 1, 1)
    return [(x, y, x + w, y + h, float(w * h if found else 0))]


def cam_2016(levels):
    """CAM's box generator, all of it: every threshold's worn foreground, every contour, ranked, overlaps dropped."""
    height, width = levels.shape
    boxes = []
    for threshold in (20, 100, 110):
        foreground = (levels > threshold).astype(np.uint8) * 255
        if foreground.any() and not foreground.all():
            y, x = np.nonzero(foreground == 0)
            away = [((y - r) ** 2 + (x - c) ** 2).min() for r, c in np.ndindex(levels.shape)]
            distance = np.sqrt(np.array(away, float)).reshape(levels.shape)
            foreground = (np.floor(distance * (255.0 / distance.max()) + 0.5)).astype(np.uint8)
        foreground = (foreground > 10).astype(np.uint8)
        foreground[[0, -1]] = 0
        foreground[:, [0, -1]] = 0
        for contour in cv2.findContours(foreground, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]:
            x, y, w, h = cv2.boundingRect(contour)
            boxes.append((min(x, width - 5), min(y, height - 5), min(w, width - x - 5), min(h, height - y - 5)))
    boxes = sorted((box for box in boxes if box[2] > 0 and box[3] > 0), key=lambda box: -box[2] * box[3])
    i = 0
    while i < len(boxes):
        j = i + 1
        while j < len(boxes):
            (ax, ay, aw, ah), (bx, by, bw, bh) = boxes[i], boxes[j]
            across = max(0, min(ax + aw, bx + bw) - max(ax, bx))
            down = max(0, min(ay + ah, by + bh) - max(ay, by))
            if across * down > int(max(aw * ah, bw * bh) * 0.5):
                del boxes[j]  # and the box that takes its place is passed over, as in the program
            j += 1
        i += 1
    return boxes


def boxes(levels, threshold, rule, connectivity=8):
    if rule == "largest_rectangle":
        return [(x, y, x + w - 1, y + h - 1, float(w * h)) for x, y, w, h in rectangle(levels, threshold, connectivity)]
    if rule == "layer_cam_2021":
        return layer_cam(levels, threshold)
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
