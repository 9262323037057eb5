"""What the pointing game costs for a map: the peak of a 14x14 heatmap, resized to 224x224, against an object's boxes.

    python scripts/bench_pointing.py [--rounds 21]

Milliseconds a map, eight maps of one image at once as a run scores them; preparing the maps (rectify, normalise,
resize), which all metrics of a protocol share, is timed by itself.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter

import torch

from gradcam_bench.choices import Protocol
from gradcam_bench.geometry import Frame
from gradcam_bench.metrics.pointing import pointing_game
from gradcam_bench.samples import annotation
from gradcam_bench.trial import Trial

MAPS, SIZE = 8, (224, 224)


def trial(seed: int) -> Trial:
    generator = torch.Generator().manual_seed(seed)
    grids = list(torch.rand(MAPS, 14, 14, generator=generator))
    truth = annotation("drawn", SIZE, [(0, (40, 60, 130, 170), False), (0, (10, 10, 30, 25), False)])
    frame = Frame(SIZE, SIZE, (1.0, 1.0), (0.0, 0.0))
    return Trial(grids, ["relu"] * MAPS, [0] * MAPS, [0] * MAPS, frame, truth, Protocol())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    preparing, pointing = [], []
    for seed in range(rounds):
        made = trial(seed)
        start = perf_counter()
        _ = made.maps
        middle = perf_counter()
        pointing_game(made)
        preparing.append((middle - start) / MAPS)
        pointing.append((perf_counter() - middle) / MAPS)
    print(f"preparing {1000 * median(preparing):.3f} ms a map, pointing game {1000 * median(pointing):.3f} ms a map")


if __name__ == "__main__":
    main()
