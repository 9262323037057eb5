"""From a network, a view and the units of one image to the Witness that their metrics question."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradcam_bench.answers import Case
from gradcam_bench.ask import Ask
from gradcam_bench.catalogue import Method
from gradcam_bench.choices import View
from gradcam_bench.explain import RECORD, heatmaps_of
from gradcam_bench.ledger import Cost
from gradcam_bench.machine import default_budget
from gradcam_bench.models.network import Network
from gradcam_bench.probe import Probe
from gradcam_bench.supplies import Supplies, shared_look
from gradcam_bench.witness import Witness

BLOCK = {"cpu": 8, "cuda": 64}  # images at once: a call's last block is filled up, so that more would be wasted


def witness_of(
    network: Network, probe: Probe, view: View, where: Sequence[tuple[Case, Method]], budget: int | None = None
) -> Witness:
    """The witness of one image. where: each unit's case and method. budget: bytes that its passes may take at once
    (None: a quarter of the machine's memory)."""
    like = next(network.module.parameters())
    image = where[0][0].sample.pixels.to(like.device)
    memory = default_budget(like.device) if budget is None else budget
    fed = image[None].to(like.dtype, memory_format=torch.channels_last)
    ask = Ask(probe, fed, [], Cost(), memory)
    block = min(ask.block, BLOCK.get(like.device.type, 8))

    def explainer(images: Tensor, units: Sequence[int]) -> list[Tensor]:
        found: dict[int, Tensor] = {}
        methods = {where[unit][1].label: where[unit][1] for unit in units}
        for method in methods.values():
            mine = [n for n, unit in enumerate(units) if where[unit][1].label == method.label]
            for start in range(0, len(mine), block):
                some = mine[start : start + block]
                cases = [where[units[n]][0] for n in some]
                found |= zip(some, _explained(network, probe, method, images[some], cases, view, budget), strict=True)
        return [found[n] for n in range(len(units))]

    names = [case.id for case, _ in where]
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (network.preprocessing.mean, network.preprocessing.std)
    )
    black, white = ((raw - mean) / std for raw in (0.0, 1.0))
    return Witness(image, block, ask.outputs, network.probabilities, explainer, names, view.seed, black, white)


def _explained(
    network: Network,
    probe: Probe,
    method: Method,
    images: Tensor,
    cases: Sequence[Case],
    view: View,
    budget: int | None,
) -> Tensor:
    """Heatmaps [n,h,w] of images [n,3,H,W], one case each, by one look. How many there are depends on the image's cases
    and the metric alone, so no block needs filling up."""
    like = next(probe.model.parameters())
    fed = images.to(like.device, like.dtype, memory_format=torch.channels_last)
    targets = [case.target for case in cases]
    recorded = bool(RECORD.intersection(method.takes))
    rows, answers, colour = torch.arange(len(cases)), network.activation, network.preprocessing.black
    probe = probe.at(method.at) if method.at else probe
    looked = shared_look(probe, fed, targets, rows, recorded, budget, activation=answers, black=colour)
    supplies = Supplies(images.to(like.device), [case.id for case in cases], view.seed, looked)
    return heatmaps_of([method], supplies)[0][method.label]
