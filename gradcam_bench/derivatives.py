"""Derivatives of what the head makes of one case's activations, for methods that ask more than a look gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradcam_bench.errors import UserError
from gradcam_bench.probe import Evidence


@contextmanager
def leaf(evidence: Evidence, case: int) -> Iterator[Tensor]:
    """The case's activations [1,C,h,w] as a leaf of a new graph, at least in single precision; gradients are on inside.

    Attention is computed by its formula inside, as the fused kernels cannot be differentiated twice.
    """
    features = evidence.features[case : case + 1]
    with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        wide = features.to(torch.promote_types(features.dtype, torch.float32), copy=True)
        yield wide.detach().requires_grad_()


def gradient(value: Tensor, at: Tensor, again: bool = False) -> Tensor:
    """dvalue/dat, of `at`'s shape; zero where the value does not depend on it. again: it can be differentiated too."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    (found,) = torch.autograd.grad(value, [at], create_graph=again, retain_graph=True, allow_unused=True)
    return torch.zeros_like(at) if found is None else found


def class_of(label: str, evidence: Evidence, case: int) -> int:
    """The class that a case asks for. Raises UserError where it is a function; label: the method that needs a class."""
    target = int(evidence.targets[case])
    if target < 0:
        raise UserError(f"{label} does not apply: its target must be a class, not a function of the output")
    return target
