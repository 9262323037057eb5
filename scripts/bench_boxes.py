"""The best IoU at all thresholds of one heatmap: the component tree against the published rule, run on OpenCV.

    python scripts/bench_boxes.py [--maps 5] [--rounds 7]

The published rule (wsolevaluation, Choe et al. 2020) as it reads: at each of 1000 thresholds `int(t * max)` of the
8-bit map, `cv2.findContours(RETR_TREE)`, the box of the largest contour (v1) or of every contour (v2), and its best
IoU (+1 pixel) with the true boxes. `deduplicated` does that at the 255 thresholds that differ. Maps: grids of
exponential noise, upsampled bicubically to 224x224 as CAMs are; blurred noise; two true boxes. One thread; medians over
rounds, contestants one after the other on a fresh map. Every result is compared: a curve that differs stops the script.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from gradcam_bench.regions.boxes import best_iou

KINDS = ("7x7", "14x14", "28x28", "blurred noise")
TRUTH = np.array([[30.0, 40, 150, 180], [120, 20, 210, 120]])  # half-open


def levels_of(kind: str, rng: np.random.Generator) -> np.ndarray:
    """uint8 [224,224], min-max normalised."""
    if kind == "blurred noise":
        heatmap = cv2.GaussianBlur(rng.random((224, 224)).astype(np.float32), (0, 0), 8)
    else:
        side = int(kind.partition("x")[0])
        heatmap = cv2.resize(rng.exponential(size=(side, side)).astype(np.float32), (224, 224), interpolation=2)
    heatmap = (heatmap - heatmap.min()) / (heatmap.max() - heatmap.min())
    return (255 * heatmap).astype(np.uint8)


def published(levels: np.ndarray, every: bool, thresholds: np.ndarray) -> np.ndarray:
    """Best IoU at each threshold, the way the published evaluator goes about it."""
    truth = TRUTH - np.array([0, 0, 1, 1])
    found = []
    for threshold in thresholds:
        _, binary = cv2.threshold(levels, int(threshold * int(levels.max())), 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        if contours and not every:
            contours = [max(contours, key=cv2.contourArea)]
        rectangles = [cv2.boundingRect(contour) for contour in contours]
        boxes = np.array([(x, y, min(x + w, 223), min(y + h, 223)) for x, y, w, h in rectangles] or [(0, 0, 0, 0)])
        low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
        high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
        shared = np.clip(high - low + 1, 0, None).prod(2)
        areas = [(b[:, 2] - b[:, 0] + 1) * (b[:, 3] - b[:, 1] + 1) for b in (boxes, truth)]
        found.append((shared / (areas[0][:, None] + areas[1][None] - shared)).max())
    return np.array(found)


def contestants(every: bool) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Each returns best IoU at the 255 levels 0..254."""
    grid = np.arange(0, 1, 0.001)
    rule = "wsol_v2" if every else "wsol_v1"

    def original(levels: np.ndarray) -> np.ndarray:
        curve = published(levels, every, grid)
        at = (grid * int(levels.max())).astype(int)
        return np.array([curve[np.searchsorted(at, level)] for level in range(255)])

    return {
        "ours": lambda levels: best_iou(levels, TRUTH, rule)[:255],  # type: ignore[arg-type]
        "deduplicated": lambda levels: published(levels, every, np.arange(255) / 255 + 1e-9),
        "published": original,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    known = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    print(f"OpenCV {cv2.__version__}, one thread, {known.rounds} rounds of {known.maps} maps\n")
    print("| map | rule | ours ms | deduplicated, OpenCV ms | as published, OpenCV ms | times faster |")
    print("|---|---|---|---|---|---|")
    for kind in KINDS:
        for every in (False, True):
            works = contestants(every)
            seconds: dict[str, list[float]] = {name: [] for name in works}
            for number in range(known.rounds + 1):
                maps = [levels_of(kind, rng) for _ in range(known.maps if number else 1)]
                curves = {}
                for name, work in works.items():
                    start = time.perf_counter()
                    curves[name] = [work(levels) for levels in maps]
                    if number:
                        seconds[name].append((time.perf_counter() - start) / len(maps))
                for name in ("deduplicated", "published"):
                    if not np.allclose(curves["ours"], curves[name], rtol=0, atol=1e-6):
                        raise SystemExit(f"{kind}, every contour {every}: {name} gives another curve")
            ms = {name: 1000 * statistics.median(found) for name, found in seconds.items()}
            faster = statistics.median(a / b for a, b in zip(seconds["published"], seconds["ours"], strict=True))
            shown = " | ".join(f"{ms[name]:.2f}" for name in works)
            print(f"| {kind} | {'v2' if every else 'v1'} | {shown} | {faster:.0f} |", flush=True)


if __name__ == "__main__":
    main()
