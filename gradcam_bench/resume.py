"""A network from a layer on: its forward pass with everything before the layer left out.

What ran to its end before the layer did is replaced, module call by module call, by what it gave; most of that nobody
reads again, and a zero of its shape stands for it. What somebody does read (the other branch of a skip connection, a
class token) is recorded when the image itself is looked at. Functions between modules run as they always do. So the
rest of any network that is a pure function of its modules can be run on other activations, without taking it apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as trees

from gradcam_bench.errors import UserError
from gradcam_bench.layouts import Layout


@dataclass(frozen=True)
class Before:
    """A call that ends before the layer's: the module, the number of its call in a whole forward pass, what it gave for
    two images (as shapes), whether anything after the layer reads that, and whether it is overwritten later."""

    module: nn.Module
    call: int
    gave: Any
    read: bool
    overwritten: bool


@dataclass(frozen=True)
class Route:
    """How a forward pass of `model` reaches a call of `layer`: the calls before it that no other such call contains, in
    order. input_read: whether anything after the layer reads the input. overwritten: whether what the layer gives is
    overwritten in place."""

    model: nn.Module
    layer: nn.Module
    before: tuple[Before, ...]
    input_read: bool = True
    overwritten: bool = True

    @contextmanager
    def recording(self) -> Iterator[list[Any]]:
        """A list that a whole forward pass inside fills with what is read after the layer, in the order of `before`."""
        wanted = {(one.module, one.call): n for n, one in enumerate(self.before) if one.read}
        calls: dict[nn.Module, int] = {}
        found: list[Any] = [None] * len(self.before)

        def note(module: nn.Module, _inputs: Any, output: Any) -> None:
            call = calls[module] = calls.get(module, -1) + 1
            number = wanted.get((module, call))
            if number is not None:
                keep = torch.clone if self.before[number].overwritten else torch.Tensor.detach
                found[number] = trees.tree_map_only(Tensor, keep, output)

        handles = [module.register_forward_hook(note) for module in dict.fromkeys(module for module, _ in wanted)]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()

    def run(self, native: Tensor, images: Tensor, recorded: Sequence[Any], rows: Tensor | int) -> Any:
        """The model's output for N rows of what the layer gives, as it gives it. rows: whose image each is of the B
        images [B,3,H,W] that were recorded, [N], or one for all. Differentiable in `native` where gradients are on."""
        count = len(native)
        given = []
        for one, stored in zip(self.before, recorded, strict=True):
            whole = stored if one.read else one.gave

            def fill(tensor: Tensor, one: Before = one) -> Tensor:
                made = _spread(tensor, count, rows, len(images)) if one.read else _blank(tensor, count, native.device)
                return made.clone() if one.overwritten else made

            given.append(trees.tree_map_only(Tensor, fill, whole))
        fed = _spread(images, count, rows, len(images)) if self.input_read else images[:1].expand(count, -1, -1, -1)
        with instead(self.modules, [*given, native.clone() if self.overwritten else native]):
            return self.model(fed)

    @property
    def modules(self) -> list[nn.Module]:
        """Whose calls are left out, in the order of the calls; the layer's is the last."""
        return [*(one.module for one in self.before), self.layer]


@dataclass(frozen=True)
class Rest:
    """What comes after a layer, for the B images [B,3,H,W] that were looked at. native: what the layer gave for them,
    as it gave it; layout: how that is a grid; recorded: what else is read."""

    route: Route
    layout: Layout
    images: Tensor
    native: Tensor
    recorded: Sequence[Any]

    def output(self, activations: Tensor, rows: Tensor | int) -> Any:
        """The model's output for activations [N,C,h,w] of the layer; rows: whose image each is, [N], or one for all."""
        like = _spread(self.native, len(activations), rows, len(self.images))
        return self.route.run(self.layout.native(activations, like), self.images, self.recorded, rows)


def route(model: nn.Module, layer: nn.Module, images: Tensor, call: int = 0) -> Route:
    """Found by two dry runs on two images [2,3,H,W] of the model, frozen and in evaluation mode. call: which one of the
    layer's. Raises UserError where the rest of the network cannot be run alone."""
    if len(images) != 2:
        raise ValueError("a route is found with two images")
    with torch.no_grad():
        calls, outputs, native = _completed(model, layer, images.clone(), call)
    with torch.enable_grad():
        leaves = [trees.tree_map_only(Tensor, _leaf, output) for output in (*outputs, native)]
        copies = [trees.tree_map_only(Tensor, torch.clone, leaf) for leaf in leaves]
        versions = [[t._version for t in _tensors(copy)] for copy in copies]
        fed = images.clone().requires_grad_()
        with instead([*(module for module, _ in calls), layer], copies):
            output = model(fed.clone())
        *reads, input_read = _read([*leaves[:-1], fed], output, leaves[-1])
    written = [[t._version for t in _tensors(copy)] != version for copy, version in zip(copies, versions, strict=True)]
    before = [
        Before(module, number, trees.tree_map_only(Tensor, lambda t: t.detach().to("meta"), gave), read, overwritten)
        for (module, number), gave, read, overwritten in zip(calls, outputs, reads, written, strict=False)
    ]
    return Route(model, layer, tuple(before), input_read, written[-1])


def _completed(
    model: nn.Module, layer: nn.Module, images: Tensor, wanted: int
) -> tuple[list[tuple[nn.Module, int]], list[Any], Tensor]:
    """The outermost calls that end before the layer's does, what they gave, and what the layer gave."""
    calls: dict[nn.Module, int] = {}
    done: list[tuple[nn.Module, int]] = []
    gave: list[Any] = []
    running: list[tuple[nn.Module, int, int]] = []  # module, call, how many were done before it began
    reached: list[Tensor] = []

    def begins(module: nn.Module, _inputs: Any) -> None:
        calls[module] = calls.get(module, -1) + 1
        running.append((module, calls[module], len(done)))

    def ends(module: nn.Module, _inputs: Any, output: Any) -> None:
        if reached:
            return
        _, call, start = running.pop()
        del done[start:], gave[start:]
        if module is layer and call == wanted:
            reached.append(output.detach().clone())
        else:
            done.append((module, call))
            gave.append(trees.tree_map_only(Tensor, lambda t: t.detach().clone(), output))

    hooks = []
    for module in model.modules():
        hooks += [module.register_forward_pre_hook(begins), module.register_forward_hook(ends)]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not reached:
        raise UserError("the layer took no part in the forward pass")
    return done, gave, reached[0]


def _read(parts: Sequence[Any], output: Any, last: Tensor) -> list[bool]:
    """Which of the parts (of tensors) the output depends on; what has no gradient (indices) counts as read."""
    totals = [t.float().sum() for t in _tensors(output) if t.requires_grad]
    if not totals:
        raise UserError("the scores do not depend on the layer")
    leaves = [t for part in parts for t in _tensors(part) if t.requires_grad]
    grads = torch.autograd.grad(torch.stack(totals).sum(), [*leaves, last], allow_unused=True)
    if grads[-1] is None:
        raise UserError("the scores do not depend on the layer")
    seen = {id(leaf): grad is not None for leaf, grad in zip(leaves, grads, strict=False)}
    return [any(seen.get(id(t), True) for t in _tensors(part)) for part in parts]


@contextmanager
def instead(modules: Sequence[nn.Module], outputs: Sequence[Any]) -> Iterator[None]:
    """The first calls of `modules` (one may be there several times) give `outputs` in their order instead of computing
    anything."""
    queues: dict[nn.Module, deque[Any]] = {}
    for module, output in zip(modules, outputs, strict=True):
        queues.setdefault(module, deque()).append(output)
    found = {module: vars(module).get("forward") for module in queues}  # an instance may have one of its own
    try:
        for module, queue in queues.items():
            module.forward = _stub(queue, module.forward)
        yield
    finally:
        for module, own in found.items():
            vars(module).pop("forward", None)
            if own is not None:
                module.forward = own


def _stub(queue: deque[Any], forward: Any) -> Any:
    """Gives what is in the queue, call by call; then what the module itself computes."""
    return lambda *args, **kwargs: queue.popleft() if queue else forward(*args, **kwargs)


def _leaf(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in trees.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _spread(tensor: Tensor, count: int, rows: Tensor | int, images: int) -> Tensor:
    """A batch's tensor as `count` rows of it; what has no row an image (a table of positions) as it is."""
    if not tensor.ndim or len(tensor) != images:
        return tensor
    if isinstance(rows, int):
        return tensor[rows : rows + 1].expand(count, *tensor.shape[1:])
    return tensor[rows]


def _blank(shape: Tensor, count: int, device: torch.device) -> Tensor:
    """Zeros of the shape of a tensor for two images, for `count`; they take no memory."""
    size = (count, *shape.shape[1:]) if shape.ndim and len(shape) == 2 else tuple(shape.shape)
    return torch.zeros((), dtype=shape.dtype, device=device).expand(size)
