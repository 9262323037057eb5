"""Where a network attends: attention met as it is computed, and how its tokens lie on the image.

Attention is `scaled_dot_product_attention`, or a softmax over the last of four dimensions (of three where there is one
head), whatever the module is called. Its weights become nodes of the graph; fused kernels are written out meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gradcam_bench.layouts import SPATIAL, tokens
from gradcam_bench.probe import Probe

SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
LISTS = (nn.Sequential, nn.ModuleList)
ROOM = 4  # attention weights, their logits, a copy and their gradient

# Under a function mode this function is handed over as a whole; a copy of it goes on to the attention inside.
_multi_head = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda _: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


class Watching(TorchFunctionMode):
    """Inside, the weights of every attention are kept in order of execution: [B,heads,N,N], or what else a softmax over
    keys gave. first: the number of the first that requires grad. modules: those under way, from the outermost; within:
    those of each attention."""

    def __init__(self, first: int = 0, modules: list[nn.Module] | None = None) -> None:
        super().__init__()
        self.weights: list[Tensor] = []
        self.within: list[list[nn.Module]] = []
        self._first, self._modules = first, [] if modules is None else modules

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if function is F.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        found = function(*args, **kwargs)
        if function in SOFTMAX and _over_keys(found, kwargs.get("dim", args[1] if len(args) > 1 else None)):
            return self._kept(found.unsqueeze(1)).squeeze(1) if found.ndim == 3 else self._kept(found).clone()
        return found

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """softmax(q k^T scale + mask) v, as PyTorch documents it; in evaluation mode nothing is dropped."""
        if enable_gqa:
            repeats = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
        logits = (query @ key.mT) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            logits = logits.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            logits = logits + attn_mask
        return (
            self._kept(logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)).to(value.dtype))
            @ value
        )

    def _multi_head(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """`nn.MultiheadAttention`, whose own way to give weights takes another road than its attention."""
        wanted, averaged = kwargs.pop("need_weights", True), kwargs.pop("average_attn_weights", True)
        with self:
            found, _ = _multi_head(*args, need_weights=False, **kwargs)
        weights = self.weights[-1].mean(1) if averaged else self.weights[-1]
        return found, weights if wanted else None

    def _kept(self, weights: Tensor) -> Tensor:
        asked = torch.is_grad_enabled() and len(self.weights) >= self._first
        node = weights if weights.requires_grad else weights.detach().requires_grad_(asked)
        self.weights.append(node)
        self.within.append(list(self._modules))
        return node


def _over_keys(found: Tensor, dim: int | None) -> bool:
    """Whether a softmax over this dimension can be attention."""
    if dim not in (-1, found.ndim - 1) or found.ndim < 3 or min(found.shape[-2:]) < 1:
        return False
    return found.ndim > 3 or found.shape[1] == found.shape[2]


@dataclass(frozen=True)
class Plan:
    """How a network attends to images of one size: tokens of a grid (h, w) after `prefix` others. blocks: the module in
    a list of modules that each attention lies in, None where there is none such. pooled: whether a pooling by attention
    comes last. bytes: of one image's graph."""

    size: tuple[int, int]
    prefix: int
    blocks: tuple[nn.Module | None, ...]
    pooled: bool
    bytes: int

    @property
    def count(self) -> int:
        """How many attentions there are."""
        return len(self.blocks) + self.pooled


def plan(probe: Probe, images: Tensor) -> Plan | str:
    """How the probe's model attends to images of this size, or why methods on attention do not apply to it. Found once,
    from one image in the place of two: what has other rows than two looks at parts of an image."""
    size = images.shape[1:]
    if size not in probe.attending:
        known: list[tuple[int, int]] = []
        numbers, under_way = [0], list[nn.Module]()
        noted = _noted(probe.model, known, numbers, under_way)
        with probe.as_found(), torch.no_grad(), noted, Watching(modules=under_way) as seen:
            probe.model(images[:1].expand(2, -1, -1, -1).clone())
        probe.attending[size] = _planned(probe.model, seen, known, numbers[0] * images.element_size() // 2)
    return probe.attending[size]


def _planned(model: nn.Module, seen: Watching, known: Sequence[tuple[int, int]], size: int) -> Plan | str:
    shapes = [weights.shape for weights in seen.weights]
    if not shapes:
        return "this network has no attention"
    if any(len(shape) != 4 or shape[0] != 2 for shape in shapes):
        return "this network attends to windows of the image, not to all of it at once"
    pooled = shapes[-1][2] != shapes[-1][3] and len(shapes) > 1
    count = shapes[0][3]
    if any(shape[2:] != (count, count) for shape in shapes[: len(shapes) - pooled]) or shapes[-1][3] != count:
        return "the tokens of this network's attention are not the same from block to block"
    lies = tokens(count, known)
    if lies is None:
        return f"the {count} tokens of this network's attention are no grid on the image"
    parents = {child: module for module in model.modules() for child in module.children()}
    within = seen.within[: len(shapes) - pooled]
    blocks = tuple(next((m for m in stack[::-1] if isinstance(parents.get(m), LISTS)), None) for stack in within)
    bytes_ = size + ROOM * sum(weights[0].numel() * weights.element_size() for weights in seen.weights)
    return Plan(lies.size, lies.prefix, blocks, pooled, max(bytes_, 1))


@contextmanager
def _noted(
    model: nn.Module, known: list[tuple[int, int]], numbers: list[int], under_way: list[nn.Module]
) -> Iterator[None]:
    """Fills what is given: sizes of grids that are known for certain, how many numbers modules gave in all, and the
    modules under way at any moment, from the outermost."""

    def enter(module: nn.Module, _inputs: Any) -> None:
        under_way.append(module)

    def leave(module: nn.Module, _inputs: Any, output: Any) -> None:
        under_way.pop()
        if isinstance(output, Tensor):
            numbers[0] += output.numel()
            if isinstance(module, SPATIAL) and output.ndim == 4:
                known.append((output.shape[2], output.shape[3]))

    handles = [module.register_forward_pre_hook(enter) for module in model.modules()]
    handles += [module.register_forward_hook(leave) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
