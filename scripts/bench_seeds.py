"""Mean IoU of seeds at 60 background levels against one level, and against 60 confusion matrices.

    python scripts/bench_seeds.py [--images 4] [--rounds 15]

A picture of 500x375 pixels with one to three classes, one method's grids of 32x24. `maps` is what every score of
heatmaps pays first: resizing to the picture and normalising. `one level`, `60 levels`: counts of the label maps, the
maps and the truth made anew. `60 matrices`: an argmax over background and classes, and a confusion matrix, at each
level. Medians of interleaved rounds, one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from gradcam_bench.choices import Protocol
from gradcam_bench.geometry import warp
from gradcam_bench.metrics.segmentation import seed_miou, seed_miou_best
from gradcam_bench.samples import annotation
from gradcam_bench.trial import Trial

SIZE = (375, 500)
LEVELS = [level / 100 for level in range(60)]


def trials(count: int, classes: int) -> list[Trial]:
    """Images of so many classes, made of noise; fresh, so that nothing of them is prepared yet."""
    made, generator = [], torch.Generator().manual_seed(0)
    masks = torch.zeros(classes, *SIZE, dtype=torch.bool)
    for q in range(classes):
        masks[q, 40 : 300 - 20 * q, 150 * q : 150 * q + 140] = True
    for number in range(count):
        grids = [torch.randn(24, 32, generator=generator) for _ in range(classes)]
        truth = annotation(str(number), SIZE, classes=range(classes), masks=masks, mask_labels=torch.arange(classes))
        labels, frame = list(range(classes)), warp(SIZE, SIZE)
        ranks = [None] * classes
        one = Trial(grids, ["relu"] * classes, labels, ranks, frame, truth, Protocol({"normalize": "max"}))
        made.append(Trial(**{**one.__dict__, "methods": ["cam"] * classes}))
    return made


def matrices(given: Trial) -> list[np.ndarray]:
    """The confusion matrix at each level, one after the other."""
    maps, found = given.maps.numpy(), []
    truth = np.zeros(SIZE, np.int64)
    assert given.annotation.masks is not None
    for q, mask in enumerate(given.annotation.masks.numpy()):
        truth[mask] = q + 1
    kinds = len(maps) + 1
    for level in LEVELS:
        stacked = np.pad(maps, ((1, 0), (0, 0), (0, 0)), constant_values=level)
        found.append(np.bincount((truth * kinds + stacked.argmax(0)).ravel(), minlength=kinds**2))
    return found


def medians(work: dict[str, Callable[[Trial], object]], images: int, classes: int, rounds: int) -> dict[str, float]:
    """Median milliseconds an image of each piece of work, rounds interleaved; the first round warms up."""
    spent: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, function in work.items():
            fresh = trials(images, classes)
            start = time.perf_counter()
            for one in fresh:
                function(one)
            if number:
                spent[name].append(1000 * (time.perf_counter() - start) / images)
    return {name: float(np.median(times)) for name, times in spent.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    known = parser.parse_args(arguments)
    torch.set_num_threads(1)
    work: dict[str, Callable[[Trial], object]] = {
        "maps": lambda given: given.maps,
        "one level": seed_miou,
        "60 levels": seed_miou_best,
        "60 matrices": matrices,
    }
    print(f"{'classes':>7}  " + "  ".join(f"{name:>12}" for name in work) + "  60 levels / one")
    for classes in (1, 2, 3):
        found = medians(work, known.images, classes, known.rounds)
        numbers = "  ".join(f"{found[name]:9.2f} ms" for name in work)
        print(f"{classes:7d}  {numbers}  {found['60 levels'] / found['one level']:.2f}")


if __name__ == "__main__":
    main()
