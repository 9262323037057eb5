"""What scores that question the network cost, against forward passes of the same network.

    python scripts/bench_faithfulness.py [--model resnet18] [--rounds 7] [--peer]

Random weights, a random picture of 224x224 pixels and a smooth random map, on as many threads as torch takes; all
contestants of a round one after the other, in an order that turns from round to round; medians of the rounds' ratios.
ROAD (9 shares, both orders, 18 images): to one forward of one image. Deletion with insertion (100 steps each): to the
bare forwards of as many images in blocks of the same size. --peer: pytorch-grad-cam's ROADCombined too (slow).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from gradcam_bench.answers import Case
from gradcam_bench.catalogue import method, spec
from gradcam_bench.choices import Protocol, View
from gradcam_bench.geometry import warp
from gradcam_bench.machine import keep_freed_memory
from gradcam_bench.metrics.removal import deletion, insertion, road_combined
from gradcam_bench.models.network import Network, Preprocessing
from gradcam_bench.models.zoo import default_layer
from gradcam_bench.probe import Probe
from gradcam_bench.questions.imputation import impute
from gradcam_bench.questions.removal import ranks, removed_pixels
from gradcam_bench.samples import Sample, annotation
from gradcam_bench.trial import Trial
from gradcam_bench.witness import Witness
from gradcam_bench.witnesses import witness_of

SIZE = (224, 224)


def asked(model: nn.Module, layer: str, image: Tensor, heatmap: Tensor) -> Trial:
    """A trial of one map of one picture."""
    network = Network("bench", model, Preprocessing(), layer, "0")
    sample = Sample(0, image, warp(SIZE, SIZE), annotation("a", SIZE, classes=(0,)), "")
    grad_cam = method("grad_cam", spec("method", "grad_cam"))
    witness = witness_of(network, Probe(model, [layer]), View(), [(Case(sample, 0), grad_cam)])
    return Trial([heatmap], ["none"], [0], [0], sample.frame, sample.annotation, Protocol(), witness=witness)


def forwards(witness: Witness, model: nn.Module, count: int) -> None:
    """So many images in blocks of the witness' size."""
    block = witness.image.expand(witness.block, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for start in range(0, count, len(block)):
            model(block[: min(len(block), count - start)])


def imputations(image: Tensor, heatmap: Tensor) -> None:
    """The eighteen systems of ROAD alone."""
    for order in (ranks(heatmap).numpy(), ranks(-heatmap).numpy()):
        for share in range(10, 100, 10):
            impute(image.numpy(), order < removed_pixels(share, order.size))


def peer(model: nn.Module, image: Tensor, heatmap: Tensor) -> None:
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    targets = [ClassifierOutputSoftmaxTarget(0)]
    ROADCombined()(image[None], heatmap[None].numpy(), targets, model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", action="store_true")
    given = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    model = torchvision.models.get_model(given.model, weights=None).eval().to(memory_format=torch.channels_last)
    layer = default_layer(given.model, model)
    imputations(torch.randn(3, *SIZE), torch.rand(SIZE))  # compiles
    seconds: dict[str, list[float]] = {}
    for turn in range(given.rounds):
        image, coarse = torch.randn(3, *SIZE), torch.rand(1, 1, 7, 7)
        heatmap = F.interpolate(coarse, SIZE, mode="bilinear")[0, 0]
        new = [asked(model, layer, image, heatmap) for _ in range(2)]
        witness = new[0].witness
        assert witness is not None
        work: dict[str, Callable[[], object]] = {
            "forward of 1": lambda: forwards(witness, model, 1),  # noqa: B023
            "forwards of 18": lambda: forwards(witness, model, 18),  # noqa: B023
            "imputations": lambda: imputations(image, heatmap),  # noqa: B023
            "road_combined": lambda: road_combined(new[0]),  # noqa: B023
            "forwards of 200": lambda: forwards(witness, model, 200),  # noqa: B023
            "deletion, insertion": lambda: (deletion(new[1]), insertion(new[1])),  # noqa: B023
        }
        if given.peer and turn < 2:
            work["pytorch-grad-cam"] = lambda: peer(model, image, heatmap)  # noqa: B023
        names = list(work)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            work[name]()
            seconds.setdefault(name, []).append(time.perf_counter() - start)
    print(f"{given.model}, {torch.get_num_threads()} threads, {given.rounds} rounds")
    for name, taken in seconds.items():
        base = "forwards of 200" if name.startswith("deletion") else "forward of 1"
        ratio = statistics.median(np.array(taken) / np.array(seconds[base][: len(taken)]))
        print(f"{name:20s} {1000 * statistics.median(taken):8.1f} ms   {ratio:7.2f} x {base}")


if __name__ == "__main__":
    main()
