"""A model lent to another library: what that may find, and what it leaves behind."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradcam_bench.frozen import as_found
from gradcam_bench.ledger import Cost


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """numpy's and Python's random state as found after; torch's is kept by `as_found`."""
    states = np.random.get_state(), random.getstate()  # noqa: NPY002 what the libraries draw from
    try:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        yield
    finally:
        np.random.set_state(states[0])  # noqa: NPY002
        random.setstate(states[1])


@contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """Frozen, in evaluation mode, nothing in place, gradients enabled; after it every module has the hooks, children
    and attributes it had, and every parameter its tensor and its gradient, also after an error."""
    modules, parameters = list(model.modules()), list(model.parameters())
    dictionaries = [vars(module) for module in modules]
    dictionaries += [value for found in dictionaries for value in found.values() if isinstance(value, dict)]
    before = [(found, dict(found)) for found in dictionaries]
    held = [(parameter, parameter.data, parameter.grad) for parameter in parameters]
    with as_found(model, modules, parameters), torch.enable_grad():
        try:
            for module in modules:
                if getattr(module, "inplace", False) is True:
                    module.inplace = False  # type: ignore[assignment]
            for parameter in parameters:
                parameter.grad = None
            yield
        finally:
            for found, was in before:
                found.clear()
                found.update(was)
            for parameter, data, gradient in held:
                if parameter.data_ptr() != data.data_ptr():
                    parameter.data = data
                parameter.grad = gradient


@contextmanager
def counted(model: nn.Module, cost: Cost) -> Iterator[None]:
    """Adds to a cost what is done with the model inside: an image's forward pass, and a backward pass for each row of
    its output that a gradient arrives at."""

    def arrived(gradient: Tensor) -> None:
        cost.backwards += len(gradient)

    def ran(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        cost.forwards += len(inputs[0])
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(arrived)

    handle = model.register_forward_hook(ran)
    try:
        yield
    finally:
        handle.remove()
