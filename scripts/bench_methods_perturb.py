"""What methods that perturb cost: as a ratio to the bare forward passes that they cannot do without, and to other
libraries.

    python scripts/bench_methods_perturb.py [--models resnet18 resnet50 vgg16] [--rounds 5] [--share 64] [--peers]

Random weights, random pixels at 224x224, a fresh input each round, all contestants of a round one after the other on
that input (in an order that turns from round to round), medians of the rounds' ratios, channels last, float32.

    ablation_cam   to one bare forward pass of the same batch of 4, the shared look included and left out
    recipro_cam    likewise
    score_cam      to bare forward passes of as many images as there are channels that live, in the same blocks; with
                   weights and inputs in bf16 too, to passes in float32 and in bf16
    rise           to as many as there are masks
    occlusion      to as many as there are patches

score_cam, rise and occlusion are measured on one image and on --share channels, masks and (about) patches, their cost
being the same for each. --peers: pytorch-grad-cam's AblationCAM and ScoreCAM, torchcam's ScoreCAM, captum's Occlusion,
on the same number of channels or patches, one round. TorchRay, which has RISE, cannot be installed beside today's
PyTorch, and is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from gradcam_bench.machine import keep_freed_memory
from gradcam_bench.methods import ablation, masking, score
from gradcam_bench.models.zoo import default_layer
from gradcam_bench.probe import Evidence, Probe
from gradcam_bench.supplies import Supplies, shared_look

Work = Callable[[Tensor], object]
PATCH, STRIDE = 45 / 224, 8 / 224


def forward(model: nn.Module, count: int, block: int) -> Work:
    """Bare passes of `count` images in blocks, all of them the first one."""

    def work(images: Tensor) -> object:
        many = images[:1].to(next(model.parameters()).dtype).expand(min(block, count), -1, -1, -1)
        many = many.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return [model(many[: min(block, count - start)]) for start in range(0, count, block)]

    return work


def batch_forward(model: nn.Module) -> Work:
    def work(images: Tensor) -> object:
        with torch.inference_mode():
            return model(images)

    return work


def supplied(probe: Probe, images: Tensor, record: bool = False) -> Supplies:
    targets = torch.arange(len(images)) + 100
    fed = images.to(next(probe.model.parameters()).dtype)
    return Supplies(images, [str(n) for n in range(len(images))], 0, shared_look(probe, fed, targets, record=record))


def from_the_head(probe: Probe, method: Callable[..., Tensor]) -> Work:
    """A method that takes evidence and head, the look included."""

    def work(images: Tensor) -> object:
        given = supplied(probe, images, record=True)
        return method(given.evidence, given.head)

    return work


def look(probe: Probe) -> Work:
    return lambda images: supplied(probe, images, record=True)


class Prepared:
    """Methods that mask images, without the look: it is made once for an input and counts for nothing."""

    def __init__(self, probe: Probe, share: int) -> None:
        self.probe, self.share = probe, share
        self._made: tuple[Tensor, Supplies, Evidence] | None = None

    def given(self, images: Tensor) -> tuple[Supplies, Evidence]:
        """Supplies of the first image, and its evidence with so many channels that are not constant."""
        if self._made is None or self._made[0] is not images:
            made = supplied(self.probe, images[:1])
            features = made.evidence.features[0]
            live = features[features.amax((1, 2)) != features.amin((1, 2))]
            while len(live) < self.share:
                live = torch.cat([live, live])
            self._made = images, made, replace(made.evidence, activations=live[None, : self.share])
        return self._made[1], self._made[2]

    def score_cam(self, images: Tensor) -> object:
        given, evidence = self.given(images)
        return score.score_cam(evidence, given.images, given.ask)

    def rise(self, images: Tensor) -> object:
        given, evidence = self.given(images)
        return masking.rise(given.images, given.ask, evidence, given.generators("rise"), self.share)

    def occlusion(self, images: Tensor) -> object:
        given, _ = self.given(images)
        return masking.occlusion(given.images, given.ask, PATCH, stride_for(self.share))


def stride_for(count: int) -> float:
    """The stride, as a share, with which patches come nearest to so many."""
    per_row = max(round(count**0.5), 2)
    return -(-(224 - 45) // (per_row - 1)) / 224


def patches(count: int) -> int:
    return (-(-(224 - 45) // round(stride_for(count) * 224)) + 1) ** 2


def peers(model: nn.Module, layer: str, share: int) -> dict[str, Work]:
    """Other libraries' methods; those that mask by channels on a layer cut down to `share` channels."""
    import pytorch_grad_cam
    import torchcam.methods
    from captum.attr import Occlusion
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    target = model.get_submodule(layer)

    def grad_cam(name: str, count: int) -> Work:
        def work(images: Tensor) -> object:
            with contextlib.redirect_stderr(io.StringIO()), getattr(pytorch_grad_cam, name)(model, [target]) as made:
                return made(images[:count], [ClassifierOutputTarget(100 + n) for n in range(count)])

        return work

    def torchcam_score(images: Tensor) -> object:
        with torchcam.methods.ScoreCAM(model, target, batch_size=16) as made, torch.no_grad():
            return made(100, model(images[:1]))

    def occlusion(images: Tensor) -> object:
        side, step = 45, round(stride_for(share) * 224)
        shapes: dict[str, Any] = {"sliding_window_shapes": (3, side, side), "strides": (3, step, step)}
        return Occlusion(model).attribute(images[:1], target=100, perturbations_per_eval=16, **shapes)

    return {
        "AblationCAM, pytorch-grad-cam": grad_cam("AblationCAM", 4),
        "ScoreCAM, pytorch-grad-cam": grad_cam("ScoreCAM", 1),
        "ScoreCAM, torchcam": torchcam_score,
        "Occlusion, captum": occlusion,
    }


def measure(contestants: dict[str, Work], rounds: int, warm: bool = True) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, the order turning; one round before does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(0 if warm else 1, rounds + 1):
        images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(number))
        images = images.contiguous(memory_format=torch.channels_last)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            contestants[name](images)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, to: str) -> float:
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True))


def rows(name: str, rounds: int, share: int, with_peers: bool) -> list[tuple[str, str, float, float]]:
    """(method, what it is compared with, seconds, ratio) of one network."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval().to(memory_format=torch.channels_last)
    layer = default_layer(name, model)
    probe = Probe(model, [layer])
    block = supplied(probe, torch.zeros(1, 3, 224, 224)).ask.block
    prepared, hidden = Prepared(probe, share), patches(share)
    halved = copy.deepcopy(model).bfloat16()
    prepared_halved = Prepared(Probe(halved, [layer]), share)
    few: dict[str, Work] = {
        "forward": batch_forward(model),
        "look": look(probe),
        "ablation_cam": from_the_head(probe, ablation.ablation_cam),
        "recipro_cam": from_the_head(probe, ablation.recipro_cam),
    }
    many: dict[str, Work] = {
        "forwards": forward(model, share, block),
        "score_cam": prepared.score_cam,
        "rise": prepared.rise,
        "forwards, bf16": forward(halved, share, block),
        "score_cam, bf16": prepared_halved.score_cam,
    }
    windows: dict[str, Work] = {"forwards": forward(model, hidden + 1, block), "occlusion": prepared.occlusion}
    found = []
    for contestants, bare, what in (
        (few, "forward", "forward of 4"),
        (many, "forwards", f"{share} forwards"),
        (windows, "forwards", f"{hidden} + 1 forwards"),
    ):
        seconds = measure(contestants, rounds)
        found += [
            (method, what, statistics.median(seconds[method]), ratio(seconds, method, bare)) for method in contestants
        ]
        if "score_cam, bf16" in contestants:
            taken, times = (
                statistics.median(seconds["score_cam, bf16"]),
                ratio(seconds, "score_cam, bf16", "forwards, bf16"),
            )
            found.append(("score_cam, bf16", f"{what}, bf16", taken, times))
    if with_peers:
        channels = prepared.given(torch.randn(1, 3, 224, 224))[0].evidence.activations.shape[1]
        others = peers(model, layer, share)
        alone: dict[str, Work] = {"forward": batch_forward(model), "forwards": forward(model, share, block)}
        seconds = measure({**alone, **others}, 1, warm=False)
        for method in others:
            whole = method.startswith("Ablation")
            to, what = ("forward", "forward of 4") if whole else ("forwards", "as many forwards")
            images = 1.0 if whole else (hidden if "captum" in method else channels) / share
            found.append((method, what, seconds[method][0], ratio(seconds, method, to) / images))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet50", "vgg16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=int, default=64)
    parser.add_argument("--peers", action="store_true")
    known = parser.parse_args()
    tuned = keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()}, malloc tuned: {tuned}\n")
    print("| model | method | seconds | ratio to | ratio |\n|---|---|---|---|---|")
    for name in known.models:
        for method, what, seconds, times in rows(name, known.rounds, known.share, known.peers):
            print(f"| {name} | {method} | {seconds:.3f} | {what} | {times:.2f} |", flush=True)


if __name__ == "__main__":
    main()
