"""A model is used as it is and left as it was found: frozen and in evaluation mode meanwhile, also after an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def as_found(
    model: nn.Module, modules: Sequence[nn.Module] | None = None, parameters: Sequence[nn.Parameter] | None = None
) -> Iterator[None]:
    """Evaluation mode and frozen parameters inside; mode, requires_grad, .grad and random state as found after.

    modules, parameters: all of the model's, where they are at hand (walking through a model takes a while).
    """
    modules = tuple(model.modules()) if modules is None else modules
    parameters = tuple(model.parameters()) if parameters is None else parameters
    training = [module for module in modules if module.training]
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    devices = dict.fromkeys(p.device for p in parameters if p.is_cuda)
    with torch.random.fork_rng(devices=list(devices)):
        try:
            if training:
                model.eval()
            for parameter in learning:
                parameter.requires_grad_(False)
            yield
        finally:
            for module in training:
                module.training = True
            for parameter in learning:
                parameter.requires_grad_(True)
