"""The dry run before a run: what cannot be explained is refused before any work is done."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gradcam_bench.candidates import candidates
from gradcam_bench.catalogue import Method
from gradcam_bench.errors import UserError
from gradcam_bench.explain import RECORD, failed, heatmaps_of
from gradcam_bench.models.network import Network
from gradcam_bench.probe import Probe
from gradcam_bench.supplies import Supplies, shared_look


def check(network: Network, probe: Probe, methods: Sequence[Method], size: int) -> dict[str, str]:
    """A dry run on random pixels: refuses a layer that cannot be explained, and returns the methods that refuse this
    network, with their sentences. Raises UserError listing the layers that would do, or if no method is left."""
    parameter = next(network.module.parameters())
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((2, 3, size, size), generator=generator).to(parameter.device, parameter.dtype)
    for layer in dict.fromkeys((probe.layers[0], *(method.at for method in methods if method.at))):
        try:
            here = probe if layer == probe.layers[0] else probe.at(layer)
            if not here.look(images, [0, 0])[layer].gradients.any():
                raise UserError(f"layer {layer}: the class score's gradient is zero everywhere")
        except UserError as error:
            found = ", ".join(candidates(network.module, images)[:8]) or "none"
            raise UserError(f"{error}; layers of {network.name} that would do: {found}") from None
        except Exception as error:
            raise failed(error, network, images) from error
    refused = {}
    for method in methods:
        try:
            record = bool(RECORD.intersection(method.takes))
            colour = network.preprocessing.black
            looked = shared_look(probe, images, [0, 0], None, record, None, True, network.activation, colour)
            heatmaps_of([method], Supplies(images, ["0", "1"], 0, looked))
        except UserError as error:
            refused[method.label] = str(error)
    if len(refused) == len(methods):
        raise UserError("; ".join(dict.fromkeys(refused.values())))
    return refused
