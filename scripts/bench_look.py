"""What eight CAMs of one look cost, as a ratio to a bare forward pass of the same batch.

    python scripts/bench_look.py [--models resnet50 mobilenet_v2 vgg16] [--batches 1 8] [--rounds 15] [--peers]

Random weights, random pixels, a fresh input each round, all contestants of a round one after the other on that input
(in an order that turns from round to round), medians of the rounds' ratios. `forward` is the model in
`torch.inference_mode`, float32, in its own memory format. Everything runs at 224x224 on as many threads as torch
takes. --peers: pytorch-grad-cam, a call a method (slow; 3 rounds).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

from gradcam_bench import catalogue
from gradcam_bench.explain import heatmaps_of
from gradcam_bench.machine import keep_freed_memory
from gradcam_bench.models.zoo import default_layer
from gradcam_bench.probe import Probe
from gradcam_bench.supplies import Supplies, shared_look

METHODS = (
    "cam",
    "grad_cam",
    "grad_cam_pp",
    "x_grad_cam",
    "hires_cam",
    "layer_cam",
    "elementwise_grad_cam",
    "eigen_cam",
)
PEERS = {  # pytorch-grad-cam's name for each that it has; CAM and Grad-CAM are one there
    "GradCAM": "grad_cam",
    "GradCAMPlusPlus": "grad_cam_pp",
    "XGradCAM": "x_grad_cam",
    "HiResCAM": "hires_cam",
    "LayerCAM": "layer_cam",
    "GradCAMElementWise": "elementwise_grad_cam",
    "EigenCAM": "eigen_cam",
}
Work = Callable[[Tensor], object]


def look(model: nn.Module, layer: str, memory_format: torch.memory_format) -> Work:
    """Eight heatmaps an image, signed."""
    probe = Probe(model, [layer])
    pooled = len([module for module in model.modules() if isinstance(module, nn.Linear)]) == 1
    labels = METHODS if pooled else ("eigen_cam_centered", *METHODS[1:])  # CAM applies to pooled heads alone
    methods = [catalogue.method(label, catalogue.spec("method", label)) for label in labels]

    def work(images: Tensor) -> object:
        images = images.contiguous(memory_format=memory_format)
        targets = torch.arange(len(images)) + 100
        looked = shared_look(probe, images, targets)
        return heatmaps_of(methods, Supplies(images, [str(n) for n in range(len(images))], 0, looked))

    return work


def forward(model: nn.Module, memory_format: torch.memory_format) -> Work:
    def work(images: Tensor) -> object:
        with torch.inference_mode():
            return model(images.contiguous(memory_format=memory_format))

    return work


def peer(model: nn.Module, layer: str) -> Work:
    """One call of pytorch-grad-cam a method."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    extractors = [getattr(pytorch_grad_cam, name)(model, [model.get_submodule(layer)]) for name in PEERS]

    def work(images: Tensor) -> object:
        targets = [ClassifierOutputTarget(100 + n) for n in range(len(images))]
        with contextlib.redirect_stdout(io.StringIO()):
            return [extractor(input_tensor=images, targets=targets) for extractor in extractors]

    return work


def measure(contestants: dict[str, Work], batch: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, the order turning; one round before does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds + 1):
        images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(number))
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            contestants[name](images)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, to: str = "forward") -> float:
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True))


def contestants_of(name: str) -> tuple[dict[str, Work], Work]:
    torch.manual_seed(0)
    plain = torchvision.models.get_model(name, weights=None).eval()
    last = torchvision.models.get_model(name, weights=None).eval()
    last.load_state_dict(plain.state_dict())
    last = last.to(memory_format=torch.channels_last)
    layer = default_layer(name, plain)
    ours: dict[str, Work] = {
        "forward": forward(plain, torch.contiguous_format),
        "look": look(plain, layer, torch.contiguous_format),
        "forward, channels_last": forward(last, torch.channels_last),
        "look, channels_last": look(last, layer, torch.channels_last),
    }
    return ours, peer(plain, layer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet50", "mobilenet_v2", "vgg16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--plain-malloc", action="store_true", help="without `gradcam_bench.machine`")
    known = parser.parse_args()
    tuned = not known.plain_malloc and keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()}, malloc tuned: {tuned}\n")
    print(
        "| model | batch | forward ms/image | eight CAMs | channels_last: forward | eight CAMs | pytorch-grad-cam x 7 |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in known.models:
        ours, theirs = contestants_of(name)
        for batch in known.batches:
            seconds = measure(ours, batch, known.rounds)
            milliseconds = 1000 * statistics.median(seconds["forward"]) / batch
            peers = "-"
            if known.peers:
                peers = f"{ratio(measure({'forward': ours['forward'], 'peer': theirs}, batch, 3), 'peer'):.1f}"
            cells = [f"{ratio(seconds, key):.2f}" for key in list(ours)[1:]]
            print(f"| {name} | {batch} | {milliseconds:.1f} | {' | '.join(cells)} | {peers} |", flush=True)


if __name__ == "__main__":
    main()
