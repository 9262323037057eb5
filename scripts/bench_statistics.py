"""How long intervals take.

    python scripts/bench_statistics.py [--images 50000] [--methods 12] [--resamples 10000]

A table of one case an image, made up at random: 10,000 resamples of 50,000 cases under 12 methods, for each kind of
number: means, means of classes (1,000 of them), and accuracies maximised over 256 levels for three IoUs.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from gradcam_bench.analysis.bootstrap import draws
from gradcam_bench.analysis.reductions import Cell


def table(images: int, methods: int, curves: bool) -> dict[str, Cell]:
    rng = np.random.default_rng(0)
    names = np.array([f"ILSVRC2012_val_{n:08d}" for n in range(images)])
    classes = rng.integers(0, 1000, images).astype(str)
    made = {}
    for method in range(methods):
        levels = np.linspace(0, 1, 256, dtype=np.float32) if curves else np.empty(0, np.float32)
        best = rng.beta(4, 3, (images, 1)).astype(np.float32) * (1 - (levels - 0.3 - 0.01 * method) ** 2)
        axes = {"iou_threshold": (0.3, 0.5, 0.7)}
        made[f"method{method}"] = Cell(rng.random(images), best if curves else None, classes, names, axes)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 50_000), ("methods", 12), ("resamples", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    print("| number | seconds |\n|---|---|")
    for reduce in ("mean", "class_mean", "mean_of_max"):
        cells = table(options.images, options.methods, reduce == "mean_of_max")
        start = time.perf_counter()
        draws({key: (cell, reduce) for key, cell in cells.items()}, options.resamples)
        print(f"| {reduce} | {time.perf_counter() - start:.1f} |", flush=True)


if __name__ == "__main__":
    main()
