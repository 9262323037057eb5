"""What a cascade of random weights costs: Grad-CAM at every stage, against one forward pass an image.

    python scripts/bench_sanity.py --model resnet18 --batch 8 --rounds 5

Rounds are interleaved (forward, the stages, the stages with whole looks), figures are medians over rounds of the ratio
to the round's own forward pass. Weights are random (timings do not depend on them), one thread a core unless
OMP_NUM_THREADS says otherwise. Also: Spearman's correlation of two 224x224 maps, beside SciPy's.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch
from scipy.stats import spearmanr

from gradcam_bench import catalogue, randomize, similarity
from gradcam_bench.calls import Calls
from gradcam_bench.models.zoo import torchvision_network
from gradcam_bench.probe import Probe
from gradcam_bench.regions.ranks import double_ranks
from gradcam_bench.units import find_units


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cascade(probe: Probe, calls: Calls, stages: list[randomize.Stage], images: torch.Tensor, resumed: bool) -> None:
    """Grad-CAM of every image at every stage, with the weights drawn beforehand."""
    grad_cam = catalogue.method("grad_cam", catalogue.spec("method", "grad_cam")).function
    targets, upwards = [0] * len(images), stages[-1].follows
    starts = [calls.start(stage.changed.begins if resumed else 0) for stage in stages]
    kept: dict[int, object] = {}
    if resumed:
        with torch.no_grad(), calls.passing(calls.start(0), kept, starts[:1] if upwards else starts):
            probe.model(images)
    for n, stage in enumerate(stages):
        ahead = starts[n + 1 : n + 2] if upwards and resumed else []
        with randomize.swapped(WEIGHTS[stage.name]), calls.passing(starts[n], kept, ahead):
            found = probe.look(images, targets)[probe.layers[0]]
        grad_cam(found)


WEIGHTS: dict[str, dict[torch.Tensor, torch.Tensor]] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole", action="store_true", help="also with whole looks at every stage")
    options = parser.parse_args()
    network = torchvision_network(options.model, None)
    model = network.module.to(memory_format=torch.channels_last)
    images = torch.randn(options.batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    probe = Probe(model, [network.layer])
    probe.look(images, [0] * len(images))
    calls = Calls(model, images[:1], probe.target)
    units = find_units(calls, images[:1])
    orders = {order: randomize.stages(units, order) for order in randomize.ORDERS}
    drawn = {unit.name: randomize.drawn([unit], 0, 0, "own") for unit in units}
    for stages in orders.values():
        for stage in stages:
            WEIGHTS[stage.name] = {p: v for unit in stage.units for p, v in drawn[unit.name].items()}
    ratios: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        forward = seconds(lambda: probe.forward(images))
        for order, stages in orders.items():
            for resumed in (True, False) if options.whole else (True,):
                took = seconds(partial(cascade, probe, calls, stages, images, resumed))
                ratios.setdefault(f"{order}{'' if resumed else ', whole looks'}", []).append(took / forward)
    print(f"{options.model}, batch {options.batch}, {len(units)} stages, {torch.get_num_threads()} threads")
    for name, found in ratios.items():
        print(f"  {name}: {median(found):.1f} forward passes an image")
    generator = np.random.default_rng(0)
    one, other = (generator.normal(size=(224, 224)).astype(np.float32) for _ in range(2))
    ranks = double_ranks(one)
    ours = [seconds(lambda: similarity.correlation(ranks, double_ranks(other))) for _ in range(50)][1:]
    theirs = [seconds(lambda: spearmanr(one.ravel(), other.ravel())) for _ in range(10)]
    print(f"  Spearman of 224x224: {1e3 * median(ours):.2f} ms, SciPy {1e3 * median(theirs):.2f} ms")


if __name__ == "__main__":
    main()
