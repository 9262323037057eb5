"""Trials with a witness: a little network of which everything is known, on 16x16 pixels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from test_metrics_catalogue import Recording
from test_metrics_catalogue import trials as plain_trials
from torch import Tensor, nn

from gradcam_bench.axes import AXES
from gradcam_bench.trial import Trial
from gradcam_bench.witness import Witness

COLOUR = torch.zeros(3, 1, 1)


def network(seed: int = 0) -> nn.Module:
    """[N,3,H,W] -> [N,5], far from linear, in double precision inside so that blocks cannot matter."""
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 6, 5, 2), nn.Tanh(), nn.Conv2d(6, 6, 3, 2), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(24, 5)).double().requires_grad_(False)


def witness(image: Tensor, names: Sequence[str], seed: int = 0, kinds: Sequence[int] | None = None) -> Witness:
    """kinds: each unit's method, which its explanations depend on (default: a method a unit)."""
    net, methods = network(), range(len(names)) if kinds is None else kinds

    def explainer(images: Tensor, units: Sequence[int]) -> list[Tensor]:
        return [
            image.mean(0)[2::2, 3::3] * (1 + methods[u]) - image[0, ::2, 1::3][:7] ** 2
            for image, u in zip(images, units)
        ]

    def answer(images: Tensor) -> Tensor:
        return 8 * net(images.double()).float()

    return Witness(image, 4, answer, lambda x: x.softmax(1), explainer, names, seed, COLOUR - 2, COLOUR + 2.5)


def trials(axes: Mapping | None = None, reads: Iterable[str] = AXES, seen: set[str] | None = None) -> list[Trial]:
    """Those of `test_metrics_catalogue`, classes 0 and 1, each with a witness of a random picture."""
    made = []
    for number, one in enumerate(plain_trials(axes, reads, seen)):
        image = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(number))
        made.append(replace(one, witness=witness(image, [f"{number}#{c}" for c in one.classes])))
    return made


def some(given: Trial, units: Sequence[int]) -> Trial:
    """A trial of some of the units, in another order."""
    parts = ([list(part)[i] for i in units] for part in (given.grids, given.paper, given.classes, given.ranks))
    asked = given.witness
    assert asked is not None
    names = [asked.names[i] for i in units]
    alone = witness(asked.image, names, asked.seed, list(units))
    return Trial(*parts, given.frame, given.annotation, given.protocol, witness=alone)


__all__ = ["Recording", "network", "some", "trials", "witness"]
