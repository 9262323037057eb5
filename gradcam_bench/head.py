"""The head: the network from the target layer on, as a function of that layer's activations.

What a perturbation of activations costs is a head's pass, not a network's. Where single channels are set to zero and
the head begins with poolings and a linear map, even that is shared: zeroing channel k takes the k-th block of the
linear map's input away, so its output is the whole one less a product with that block's columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gradcam_bench.cases import Score, case_scores, one_each, scores_in, unique_functions
from gradcam_bench.errors import UserError
from gradcam_bench.ledger import Cost
from gradcam_bench.probe import Evidence, Probe
from gradcam_bench.resume import Rest, Route, route

MANY = 64  # rows from which a linear map is worth a detour
SPARSE = 0.8  # the share of live inputs below which picking them out is worth it
ROOM = 8  # a row's activations take about so many times their size on the way through a head


class Head:
    """head(activations [N,C,h,w], cases) -> scores [N]; see `__call__`. targets: of the evidence's Q cases, classes or
    functions of the model's output. budget: bytes that its passes may take at once. rehearsal: one row stands for all,
    to see whether a method works at all. activation: see `cases.probabilities`."""

    def __init__(
        self,
        probe: Probe,
        evidence: Evidence,
        targets: Sequence[int | Score],
        cost: Cost,
        budget: int,
        rehearsal: bool = False,
        activation: str = "softmax",
    ) -> None:
        if evidence.rest is None:
            raise ValueError("the look did not record the head")
        self._probe, self._rest, self._cost, self._rehearsal = probe, evidence.rest, cost, rehearsal
        self._targets, self._image_index = list(targets), evidence.image_index
        self.activation = activation
        row = self._rest.native[0].numel() * self._rest.native.element_size()
        self.block = max(budget // (ROOM * max(row, 1)), 1)
        self._inner: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self, activations: Tensor, cases: Tensor | int) -> Tensor:
        """Scores [N] of cases (one for all rows, or [N]) when the layer gives activations [N,C,h,w] for their images.

        Differentiable, also twice, where the activations require grad (in one piece then); else without a graph and in
        blocks. What the head reads of the trunk beside the layer is the image's own.
        """
        if self._rehearsal and len(activations) > 1 and not activations.requires_grad:
            one = self(activations[:1], cases if isinstance(cases, int) else cases[:1])
            return one.expand(len(activations)).clone()
        return torch.cat([self._scores(output, part) for output, part in self._outputs(activations, cases)])

    def outputs(self, activations: Tensor, cases: Tensor | int) -> Tensor:
        """Logits [N,K] likewise (means over positions where the model scores several)."""
        return torch.cat([scores_in(output).mean(2) for output, _ in self._outputs(activations, cases)])

    def without_channels(self, case: int) -> Tensor:
        """[C]: the case's score with each channel in turn set to zero."""
        image, rest = int(self._image_index[case]), self._rest
        activations = rest.layout.grid(rest.native)[image]  # [C,h,w]
        channels = len(activations)
        way = _first_linear(self._probe, rest)
        if way is None:
            scores = []
            for start in range(0, channels, channels if self._rehearsal else self.block):
                rows = torch.arange(start, min(start + self.block, channels), device=activations.device)
                masked = activations.expand(len(rows), -1, -1, -1).clone()
                masked[torch.arange(len(rows)), rows] = 0
                scores.append(self(masked, case))
            return torch.cat(scores)
        linear, after = way
        fed, whole, less = self._lessened(linear, channels)
        live = fed[image].any(1)  # a channel that feeds nothing changes nothing when it is set to zero
        self._cost.head_forwards += channels
        with self._probe.as_found(), torch.no_grad():
            rows = torch.cat([whole[image : image + 1], less[image][live]])
            with _Linear():
                output = after.run(rows, rest.images, [None] * len(after.before), image)
            found = self._scores(output, torch.full((len(rows),), case, device=self._image_index.device))
        return found[0].expand(channels).clone().masked_scatter(live, found[1:])

    def _lessened(self, linear: nn.Linear, channels: int) -> tuple[Tensor, Tensor, Tensor]:
        """[B,C,d]: what the first linear map is fed by each channel of each image; [B,O]: what it gives; [B,C,O]: what
        it gives with each channel set to zero. Kept for the batch: the weights are read once for all of its images."""
        if self._inner is None:
            with self._probe.as_found(), torch.no_grad():
                fed = _fed_to(linear, self._rest)  # [B,D]
                blocks = fed.unflatten(1, (channels, -1))
                taken = torch.einsum("ocd,bcd->bco", linear.weight.unflatten(1, (channels, -1)), blocks)
                whole = taken.sum(1) if linear.bias is None else taken.sum(1) + linear.bias
                self._inner = blocks, whole, whole[:, None] - taken
        return self._inner

    def _outputs(self, activations: Tensor, cases: Tensor | int) -> list[tuple[Any, Tensor]]:
        """The model's output for blocks of rows, with their cases."""
        device = self._image_index.device
        index = torch.full((len(activations),), cases, device=device) if isinstance(cases, int) else cases.to(device)
        differentiable = activations.requires_grad
        block = len(activations) if differentiable else self.block
        self._cost.head_forwards += len(activations)
        if differentiable:
            activations.register_hook(self._went_back)
        found = []
        with self._probe.as_found(), torch.set_grad_enabled(differentiable):
            for part, mine in zip(activations.split(max(block, 1)), index.split(max(block, 1)), strict=True):
                rows = int(self._image_index[cases]) if isinstance(cases, int) else self._image_index[mine]
                found.append((self._rest.output(part.to(self._rest.native.dtype), rows), mine))
        return found

    def _went_back(self, gradients: Tensor) -> None:
        """Each backward pass that reaches the activations is counted."""
        self._cost.backwards += len(gradients)

    def _scores(self, output: Any, cases: Tensor) -> Tensor:
        targets = [self._targets[q] for q in cases.tolist()]
        functions = {id(t): one_each(t(output), len(cases)) for t in unique_functions(targets)}
        rows = torch.arange(len(cases), device=cases.device)
        return case_scores(self._probe.score, scores_in(output), functions, targets, rows)


class _Linear(TorchFunctionMode):
    """Linear maps of many rows, as they are best computed: without the inputs that are zero in all rows, as after a
    ReLU many are, and on a CPU as a convolution, which takes half the time of its matrix product."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not F.linear or args[0].ndim != 2 or kwargs:
            return function(*args, **(kwargs or {}))
        rows, weight, *bias = args
        live = rows.any(0).nonzero()[:, 0]
        if len(live) < SPARSE * rows.shape[1]:
            rows, weight = rows.index_select(1, live), weight.index_select(1, live)
        if rows.device.type != "cpu" or len(rows) < MANY:
            return F.linear(rows, weight, *bias)
        return F.conv2d(rows.T[None, :, :, None], weight[:, :, None, None], *bias)[0, :, :, 0].T


def _first_linear(probe: Probe, rest: Rest) -> tuple[nn.Linear, Route] | None:
    """The linear map that is reached from the layer by what treats each channel on its own and leaves zeros zero, and
    the way from there on; None where there is none. Found once for images of one size, by trying."""
    size = rest.images.shape[1:]
    if size not in probe.shortcuts:
        with probe.as_found():
            probe.shortcuts[size] = _search(probe.model, rest)
    return probe.shortcuts[size]


def _search(model: nn.Module, rest: Rest) -> tuple[nn.Linear, Route] | None:
    seen: list[nn.Linear] = []
    linear = [module for module in model.modules() if type(module) is nn.Linear]
    hooks = [module.register_forward_hook(lambda module, _i, _o: seen.append(module)) for module in linear]
    activations = rest.layout.grid(rest.native)[:1]
    try:
        with torch.no_grad():
            rest.output(activations, 0)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen or seen.count(seen[0]) > 1:
        return None
    first, channels = seen[0], activations.shape[1]
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand((2, channels, 1, 1), generator=generator) < 0.5).to(activations)
    noise = torch.rand((2, *activations.shape[1:]), generator=generator).to(activations)
    with torch.no_grad():
        whole, masked = _fed_to(first, rest, noise), _fed_to(first, rest, noise * masks)
    if whole.ndim != 2 or whole.shape[1] % channels:
        return None
    blocks = masks.flatten(1).repeat_interleave(whole.shape[1] // channels, 1)
    if not torch.equal(masked, whole * blocks):
        return None
    try:
        after = route(model, first, rest.images[:1].expand(2, -1, -1, -1).clone())
    except UserError:
        return None
    return None if after.input_read or any(one.read for one in after.before) else (first, after)


def _fed_to(linear: nn.Linear, rest: Rest, activations: Tensor | None = None) -> Tensor:
    """What a linear map is given for activations [N,C,h,w] of the first image (default: for the batch's own)."""
    fed: list[Tensor] = []
    hook = linear.register_forward_pre_hook(lambda _module, inputs: fed.append(inputs[0].detach()))
    try:
        if activations is None:
            rest.output(rest.layout.grid(rest.native), torch.arange(len(rest.images), device=rest.native.device))
        else:
            rest.output(activations, 0)
    finally:
        hook.remove()
    return fed[0]
