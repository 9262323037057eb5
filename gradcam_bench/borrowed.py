"""A model lent to another library: what that may find, and what it leaves behind."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from gradcam_bench.frozen import as_found


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
