"""A classifier whose outputs are put together to fewer classes: ImageNet's 118 dogs to COCO's one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradcam_bench.annotations import groups as files
from gradcam_bench.errors import UserError
from gradcam_bench.models.network import Network, fingerprint


class Grouped(nn.Module):
    """Logits [B,K] of K classes from a network's logits [B,N]: log sum exp over each class' outputs, so that under a
    softmax a class has the sum of their probabilities, as a share of all that are in a group."""

    def __init__(self, network: nn.Module, members: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.network = network
        self.members = [list(outputs) for outputs in members]

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return torch.stack([logits[:, outputs].logsumexp(1) for outputs in self.members], 1)


def grouped_network(network: Any, groups: str, layer: str | None = None) -> Network:
    """The network with a class for each line of `groups` (`annotations.groups`). layer: its default one, or another,
    by its name in the network. Raises UserError for outputs that the network lacks, and without a network."""
    if not isinstance(network, Network):
        raise UserError("model.network is missing: choose a network, as model@model.network=resnet18")
    members = files.read(groups, "model.groups")
    highest = max(max(outputs) for outputs in members.values())
    if network.classes is not None and highest >= len(network.classes):
        raise UserError(
            f"model.groups: output {highest}, but {network.name} has outputs 0 to {len(network.classes) - 1}"
        )
    module = Grouped(network.module, list(members.values())).eval()
    name = f"{network.name}_grouped"
    digest = fingerprint(f"{name}{sorted(members.items())}", module)
    place, known = f"network.{layer or network.layer}", tuple(members)
    untrained = None if network.untrained is None else partial(_untrained, network.untrained, module.members)
    told = (network.preprocessing, place, digest, network.activation, known)
    return Network(name, module, *told, untrained=untrained)


def _untrained(build: Callable[[], nn.Module], members: Sequence[Sequence[int]]) -> nn.Module:
    return Grouped(build(), members)
