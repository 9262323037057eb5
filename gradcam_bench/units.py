"""What of a network can be randomised: its units, in the order in which a forward pass reaches them.

A unit is a module with the parameters that it holds itself, or a block of such modules. The order is that of execution,
not that in which modules were defined.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gradcam_bench.calls import Calls
from gradcam_bench.cases import scores_in
from gradcam_bench.errors import UserError
from gradcam_bench.frozen import as_found

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
ALIKE = 3  # so many children of one kind, each of several parts, are blocks of a stack


@dataclass(frozen=True)
class Held:
    """One parameter: the module that holds it, with its name, and its name there."""

    owner: nn.Module
    name: str
    key: str

    @property
    def parameter(self) -> nn.Parameter:
        return self.owner._parameters[self.key]  # type: ignore[return-value]


@dataclass(frozen=True)
class Unit:
    """What is randomised at once. begins: the event (`calls.Calls`) at which a forward pass reaches it."""

    name: str
    begins: int
    parts: tuple[Held, ...]


def find_units(
    calls: Calls, image: Tensor, granularity: str = "layer", batch_norm: str = "redraw_affine"
) -> list[Unit]:
    """The network's units in order of execution. image [1,3,H,W].

    Every parameter that the scores depend on belongs to one: a module that is never called itself (the projection of an
    attention) is part of the next one up that is; bare parameters (a class token, positions) are under the name of the
    module that holds them, or their own where that is the network. Shared ones belong to the first that uses them.
    """
    model = calls.model
    used = _used(model, image)
    names = {module: name for name, module in model.named_modules()}
    parts: dict[str, list[tuple[int, Held]]] = {}
    for name, module in model.named_modules():
        if batch_norm == "keep" and isinstance(module, _BatchNorm):
            continue
        reached = next(up for up in _upwards(model, name) if up in calls.first)
        for key, parameter in module._parameters.items():
            if parameter is not None and parameter in used:
                label = names[reached] or key
                label = _block(model, label) if granularity == "block" else label
                parts.setdefault(label, []).append((calls.first[reached], Held(module, name, key)))
    made: list[Unit] = []
    seen: set[nn.Parameter] = set()
    for label, held in sorted(parts.items(), key=lambda item: min(event for event, _ in item[1])):
        own = [one for _, one in sorted(held, key=lambda item: item[0]) if one.parameter not in seen]
        seen.update(one.parameter for one in own)
        if own:
            made.append(Unit(label, min(event for event, _ in held), tuple(own)))
    if not made:
        raise UserError(f"{type(model).__name__} has no weights to randomise (randomize.batch_norm={batch_norm})")
    return made


def _upwards(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """A module, and those that hold it, outwards."""
    parts = name.split(".") if name else []
    for count in range(len(parts), -1, -1):
        yield model.get_submodule(".".join(parts[:count]))


def _used(model: nn.Module, image: Tensor) -> set[nn.Parameter]:
    """The parameters that the scores depend on."""
    parameters = list(dict.fromkeys(model.parameters()))
    with as_found(model), torch.inference_mode(False), torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_(True)
        try:
            output = model(image.clone())
            grads = torch.autograd.grad(scores_in(output).float().sum(), parameters, allow_unused=True)
        finally:
            for parameter in parameters:
                parameter.requires_grad_(False)
    return {parameter for parameter, grad in zip(parameters, grads, strict=True) if grad is not None}


def _block(model: nn.Module, name: str) -> str:
    """The name of the block that a module of this name is in: a child of the network, or of a stack of blocks in it."""
    found: nn.Module = model
    parts = name.split(".")
    for depth, part in enumerate(parts, 1):
        if part not in found._modules:
            return ".".join(parts[: depth - 1]) or name
        found = found.get_submodule(part)
        if not (_is_stack(found) or any(_is_stack(child) and _alike(child) for child in found.children())):
            return ".".join(parts[:depth])
    return name


def _is_stack(module: nn.Module) -> bool:
    return type(module) in CONTAINERS and any(True for _ in module.children())


def _alike(stack: nn.Module) -> bool:
    kinds = [type(child) for child in stack.children()]
    return len(kinds) >= ALIKE and len(set(kinds)) == 1 and any(True for _ in next(stack.children()).children())
