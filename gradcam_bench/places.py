"""Where the outputs of a model's modules lie in the graph of a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from gradcam_bench.errors import UserError, unknown

Place = tuple[GradientEdge | None, torch.Size]  # an edge of the graph (None: not in it), and the tensor's shape


@contextmanager
def noted(model: nn.Module) -> Iterator[dict[str, list[Place]]]:
    """Where each module's outputs lie in the graph, filled as they come; an edge, unlike the tensor, is not touched by
    what happens to it in place later."""
    found: dict[str, list[Place]] = {}
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            edge = get_gradient_edge(output) if output.requires_grad else None
            found.setdefault(names[module], []).append((edge, output.shape))

    handles = [module.register_forward_hook(note) for module in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def place_of(outputs: dict[str, list[Place]], layer: str) -> Place:
    name, at, call = layer.partition("@")
    if name not in outputs:
        raise unknown("layer", name, outputs)
    calls = outputs[name]
    if not at and len(calls) > 1:
        raise UserError(f"layer {name} is called more than once: say which, as {name}@0 or {name}@{len(calls) - 1}")
    if at and not (call.isdecimal() and int(call) < len(calls)):
        raise UserError(f"layer {layer}: {name} is called {len(calls)} times: the last is {name}@{len(calls) - 1}")
    return calls[int(call or 0)]


def cuts(root: Any, node: Any, leaf: Any) -> bool:
    """Whether all ways through the graph from the root to the leaf pass through the node."""
    seen, waiting = {node}, [root]
    while waiting:
        here = waiting.pop()
        if here is not None and here not in seen:
            if here is leaf.node:
                return False
            seen.add(here)
            waiting += [other for other, _ in here.next_functions]
    return True
