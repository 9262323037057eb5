"""What input-gradient methods cost, as ratios to bare passes of the same network on the same images.

    python scripts/bench_pixels.py [--models resnet50 vgg16] [--rounds 7] [--peers]

Random weights, random pixels at 224x224, a fresh input each round, all contestants of a round one after the other on
that input (in an order that turns from round to round), medians of the rounds' ratios, channels last, float32.

    three rules    plain, guided and deconv on a batch of 4, to one forward pass that builds a graph and three bare
                   backward passes to the input
    relevances     excitation_backprop, lrp_epsilon_plus on a batch of 4, to one bare forward pass in inference mode
    full_grad      on a batch of 4, to the same. --peers: pytorch-grad-cam's FullGrad, one round
    smooth_grad    25 samples of one image, to 25 looks (a forward and a backward pass to the input, each of one image),
                   and to the same 25 images in blocks as large as the method's
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from gradcam_bench.errors import UserError
from gradcam_bench.machine import keep_freed_memory
from gradcam_bench.methods import backward, relevance
from gradcam_bench.pixels import Pixels
from gradcam_bench.probe import Probe

Work = Callable[[Tensor], object]
SAMPLES = 25


def forward(model: nn.Module) -> Work:
    def work(images: Tensor) -> object:
        with torch.inference_mode():
            return model(images)

    return work


def bare(model: nn.Module, backwards: int = 1) -> Work:
    """A forward pass with a graph down to the input and so many backward passes through it."""

    def work(images: Tensor) -> object:
        leaf = images.detach().requires_grad_()
        total = model(leaf)[torch.arange(len(images)), torch.arange(len(images))].sum()
        return [torch.autograd.grad(total, leaf, retain_graph=True) for _ in range(backwards)]

    return work


def asked(probe: Probe, ask: Callable[[Pixels, Tensor], Any]) -> Work:
    """Questions to a new `Pixels` of the images."""
    return lambda images: ask(Pixels(probe, images, torch.arange(len(images))), images)


def smooth(pixels: Pixels, images: Tensor) -> Tensor:
    return backward.smooth_grad(pixels, images[:1], [torch.Generator().manual_seed(0)], SAMPLES)


def looks(model: nn.Module, block: int) -> Work:
    """Bare passes of 25 copies of the first image, in blocks."""
    one = bare(model)

    def work(images: Tensor) -> object:
        many = images[:1].expand(SAMPLES, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return [one(part) for part in many.split(block)]

    return work


def peer(model: nn.Module) -> Work:
    from pytorch_grad_cam import FullGrad
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with contextlib.redirect_stdout(io.StringIO()):
        made = FullGrad(model, [])
    return lambda images: made(images, [ClassifierOutputTarget(n) for n in range(len(images))])


def measure(contestants: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, the order turning; one round before does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds + 1):
        images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(number))
        images = images.contiguous(memory_format=torch.channels_last)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            contestants[name](images)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, to: str) -> str:
    return f"{statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True)):.2f}"


def report(name: str, rounds: int, peers: bool) -> None:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval().to(memory_format=torch.channels_last)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    probe = Probe(model, [])
    rules: dict[str, Work] = {
        "floor": bare(model, 3),
        "rules": asked(probe, lambda pixels, _: [pixels(rule) for rule in ("plain", "guided", "deconv")]),
    }
    seconds = measure(rules, rounds)
    cells = [ratio(seconds, "rules", "floor")]
    whole: dict[str, Work] = {
        "forward": forward(model),
        "gradient": bare(model),
        "full_grad": asked(probe, backward.full_grad),
        "lrp": asked(probe, lambda pixels, _: relevance.lrp(pixels)),
        "excitation": asked(probe, lambda pixels, _: relevance.excitation_backprop(pixels)),
    }
    try:
        whole["excitation"](torch.randn(1, 3, 224, 224))
    except UserError:  # where activations are not all positive
        del whole["excitation"]
    seconds = measure(whole, rounds)
    cells += [
        ratio(seconds, key, "forward") if key in seconds else "-"
        for key in ("gradient", "full_grad", "lrp", "excitation")
    ]
    theirs = measure({"forward": forward(model), "peer": peer(model)}, 1) if peers else {}
    cells.append(ratio(theirs, "peer", "forward") if peers else "-")
    block = Pixels(probe, torch.zeros(1, 3, 224, 224), [0]).block
    many = {"looks": looks(model, 1), "blocks": looks(model, block), "smooth": asked(probe, smooth)}
    seconds = measure(many, max(rounds // 2, 1))
    cells += [ratio(seconds, "smooth", "looks"), ratio(seconds, "smooth", "blocks")]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet50", "vgg16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--plain-malloc", action="store_true", help="without `gradcam_bench.machine`")
    known = parser.parse_args()
    tuned = not known.plain_malloc and keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()}, malloc tuned: {tuned}\n")
    print(
        "| model | 3 rules / floor | gradient / forward | full_grad | lrp | excitation | pytorch-grad-cam's FullGrad |",
        end="",
    )
    print(" smooth_grad / 25 looks | / in blocks |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in known.models:
        report(name, known.rounds, known.peers)


if __name__ == "__main__":
    main()
