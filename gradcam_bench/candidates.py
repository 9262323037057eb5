"""Which layers of a model would do: those that give a grid and that the score depends on; the last of each stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from gradcam_bench.cases import scores_in
from gradcam_bench.layouts import layout
from gradcam_bench.places import cuts, noted
from gradcam_bench.probe import Probe, hooked, note_size


def candidates(model: nn.Module, images: Tensor, among: int = 64) -> list[str]:
    """Layers of the model that would do, in reverse order of execution: they give a grid of more than one cell for
    images [B,3,H,W], and the first score depends on it. Only the last `among` grids are tried, so that the graph stays
    small."""
    repeats = (nn.Identity, nn.Dropout)  # in evaluation mode
    names = [name for name, module in model.named_modules() if name and not isinstance(module, repeats)]
    tail = list(_grids(model, names, images))[-among:]
    with Probe(model, tail).captured(images) as (output, captured, layouts):
        total = scores_in(output)[:, :1].sum()
        leaves = [captured[layer] for layer in tail]
        grads = torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else [None] * len(tail)
        found = [n for n, g in zip(tail, grads, strict=True) if g is not None and layouts[n].grid(g).any()]
    return found[::-1]


def pyramid(probe: Probe, images: Tensor) -> list[str]:
    """The last layer of each grid size from the largest to the first target layer's, which is the last of its own;
    in order of execution. Layers that are called once and that all paths from the image to the scores pass through:
    a convolution of a block that a skip connection goes round is none. Found once for images of one size."""
    size = images.shape[1:]
    if size not in probe.stages:
        names = [name for name, _ in probe.model.named_modules() if name]
        found = _grids(probe.model, names, images[:1])
        target = probe.layers[0].partition("@")[0]
        before = list(found)[: list(found).index(target)] if target in found else []
        cells = math.prod(found.get(target, (0, 0)))
        larger = [name for name in before if math.prod(found[name]) > cells]
        last = {found[name]: name for name in _on_all_paths(probe, images[:1], larger)}  # a later one stays
        probe.stages[size] = [*last.values(), probe.layers[0]]
    return probe.stages[size]


def _on_all_paths(probe: Probe, images: Tensor, layers: Sequence[str]) -> list[str]:
    """Those of the layers, each called once, that all paths from the image to the scores pass through."""
    with probe.as_found(), torch.inference_mode(False), torch.enable_grad(), noted(probe.model) as places:
        leaf = images.detach().clone().requires_grad_()
        root = scores_in(probe.model(leaf.clone())).sum().grad_fn
    edges = {layer: places[layer][0][0] for layer in layers}
    start = get_gradient_edge(leaf)
    return [layer for layer, edge in edges.items() if edge is not None and cuts(root, edge.node, start)]


def _grids(model: nn.Module, layers: Sequence[str], images: Tensor) -> dict[str, tuple[int, int]]:
    """The layers that are called once and give a grid of more than one cell, in order of execution, with its size
    (height, width)."""
    found: dict[str, list[tuple[int, int] | None]] = {}
    known: list[tuple[int, int]] = []

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        note_size(module, output, known)
        lies = layout(module, output, images, known)
        fits = lies is not None and lies.size[0] * lies.size[1] > 1 and output.is_floating_point()
        for layer in names[module]:
            found.setdefault(layer, []).append(lies.size if lies and fits else None)

    names: dict[nn.Module, list[str]] = {}
    for layer in layers:
        names.setdefault(model.get_submodule(layer), []).append(layer)
    with Probe(model, []).as_found(), torch.inference_mode(), hooked(names, note):
        model(images)
    return {layer: sizes[0] for layer, sizes in found.items() if len(sizes) == 1 and sizes[0]}
