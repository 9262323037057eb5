"""One look: a forward pass and a backward pass through the head only. The one place that touches hooks and autograd.

The parameters are frozen for the look. The first target layer that the forward pass reaches becomes a new leaf of the
graph, so nothing below it is ever differentiated; a layer further on stays in the graph. Each hands a clone to the
network, so that a later in-place operation cannot change what was captured. All cases of one rank (the first class of
each image, the second of each, ...) share one backward pass. The model is left as it was found, also after an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradcam_bench.errors import UserError, unknown

Score = Callable[[Any], Tensor]  # the model's output for the batch -> one number an image [B]


@dataclass(frozen=True)
class Evidence:
    """What one look gives about Q cases in B images, at one layer with C channels on an h x w grid.

    logits [B,K] (empty where the model's output is no [B,K] tensor), activations [B,C,h,w] (once an image),
    gradients [Q,C,h,w]: of each case's score. image_index [Q]: whose image a case is. targets [Q]: the classes, -1
    where a callable was differentiated. head: (weights [K,C], bias [K]) where the network ends, after this layer, in
    global average pooling and one linear map, else None.
    """

    logits: Tensor
    activations: Tensor
    gradients: Tensor
    image_index: Tensor
    targets: Tensor
    head: tuple[Tensor, Tensor] | None = None

    @property
    def features(self) -> Tensor:
        """[Q,C,h,w]: the activations, once a case."""
        one_each = len(self.image_index) == len(self.activations) and bool(
            (self.image_index == torch.arange(len(self.image_index), device=self.image_index.device)).all()
        )
        return self.activations if one_each else self.activations[self.image_index]

    def cpu(self) -> Evidence:
        """The same on the CPU."""
        head = None if self.head is None else (self.head[0].cpu(), self.head[1].cpu())
        return Evidence(
            self.logits.cpu(),
            self.activations.cpu(),
            self.gradients.cpu(),
            self.image_index.cpu(),
            self.targets.cpu(),
            head,
        )


class Probe:
    """A model and its target layers, to be looked through. A layer that is called several times is named `layer@0`,
    `layer@1`, ... in the order of the calls."""

    def __init__(self, model: nn.Module, layers: Sequence[str], score: str = "logit") -> None:
        self.model, self.layers, self.score = model, tuple(layers), score
        self._modules = {layer: _module(model, layer) for layer in self.layers}

    def look(
        self,
        images: Tensor,
        targets: Tensor | Sequence[int | Score] | Callable[[Tensor], tuple[Tensor, Tensor]],
        image_index: Tensor | None = None,
    ) -> dict[str, Evidence]:
        """Evidence at each layer. images [B,3,H,W]; targets: Q classes (or callables of the model's output), with
        image_index [Q] (default: one an image, in order); or a function of the logits [B,K] that returns both."""
        with self._captured(images) as (output, captured):
            logits = _logits(output)
            if callable(targets):
                targets, image_index = targets(logits.detach())
            image_index = _check_cases(images, logits, targets, image_index)
            functions = {id(t): _one_each(t(output), len(images)) for t in _unique_functions(targets)}
            gradients = self._gradients(logits, functions, targets, image_index, captured)
        classes = torch.tensor([-1 if callable(t) else int(t) for t in targets], dtype=torch.int64).to(images.device)
        return {
            layer: Evidence(
                logits.detach(), captured[layer].detach(), gradients[layer], image_index, classes, self._head(layer)
            )
            for layer in self.layers
        }

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B,K] alone, without a graph, in evaluation mode."""
        with _as_found(self.model), torch.inference_mode():
            return _logits(self.model(images))

    def _gradients(
        self,
        logits: Tensor,
        functions: dict[int, Tensor],
        targets: Any,
        image_index: Tensor,
        captured: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """The gradient of each case's score at each layer, [Q,C,h,w]: one backward pass for each rank of case."""
        ranks = _ranks(image_index)
        leaves = [captured[layer] for layer in self.layers]
        gradients = {layer: leaf.new_zeros((len(ranks), *leaf.shape[1:])) for layer, leaf in captured.items()}
        for rank in range(max(ranks, default=-1) + 1):
            cases = [q for q, r in enumerate(ranks) if r == rank]
            images = image_index[cases]
            total = self._total(logits, functions, [targets[q] for q in cases], images)
            if not total.requires_grad:
                raise UserError(f"the score does not depend on layer {' or '.join(self.layers)}: choose an earlier one")
            grads = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)
            for layer, grad in zip(self.layers, grads, strict=True):
                if grad is None:
                    raise UserError(f"the score does not depend on layer {layer}: choose an earlier one")
                gradients[layer][cases] = grad[images]
        return gradients

    def _total(self, logits: Tensor, functions: dict[int, Tensor], targets: list[Any], images: Tensor) -> Tensor:
        """The sum of the scores of cases of different images, and of no others: one that overflows spoils none."""
        values = [functions[id(t)][b] for t, b in zip(targets, images, strict=True) if callable(t)]
        asked = [n for n, t in enumerate(targets) if not callable(t)]
        if asked:
            scores = logits.softmax(1) if self.score == "softmax" else logits
            scores = scores[images[asked], [int(targets[n]) for n in asked]]
            values.append((scores.exp() if self.score == "exp" else scores).sum())
        return torch.stack(values).sum()

    @contextmanager
    def _captured(self, images: Tensor) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        """The model's output and the graph's node at each layer; hooks live no longer than the forward pass."""
        calls: dict[nn.Module, int] = {}
        captured: dict[str, Tensor] = {}

        def capture(module: nn.Module, _inputs: Any, output: Any) -> Any:
            call = calls[module] = calls.get(module, -1) + 1
            for layer, target in self._modules.items():
                name, _, wanted = layer.partition("@")
                if target is not module or (wanted and int(wanted) != call):
                    continue
                if layer in captured:
                    raise UserError(f"layer {name} is called more than once: say which, as {name}@0 or {name}@{call}")
                if not isinstance(output, Tensor) or output.ndim != 4:
                    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                    raise UserError(f"layer {name} gives no grid: its output is {shape}, not [B,C,h,w]")
                captured[layer] = output if output.requires_grad else output.detach().requires_grad_()
                output = captured[layer].clone()
            return output

        with _as_found(self.model), torch.inference_mode(False), torch.enable_grad():
            handles = [module.register_forward_hook(capture) for module in dict.fromkeys(self._modules.values())]
            try:
                output = self.model(images.clone() if images.is_inference() else images.detach())
            finally:
                for handle in handles:
                    handle.remove()
            for layer in self.layers:
                if layer not in captured:
                    raise UserError(f"layer {layer} took no part in the forward pass")
            yield output, captured

    def _head(self, layer: str) -> tuple[Tensor, Tensor] | None:
        """The last linear map, if it may be the one that follows global average pooling; `cam` checks that it is."""
        linear = [m for m in self.model.modules() if isinstance(m, nn.Linear)]
        if len(linear) != 1:
            return None
        weight, bias = linear[0].weight.detach(), linear[0].bias
        return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach()


def _module(model: nn.Module, layer: str) -> nn.Module:
    """The module that a layer's name stands for, without the number of its call."""
    name, at, call = layer.partition("@")
    if at and not call.isdecimal():
        raise UserError(f"layer {layer}: after @ comes the number of the module's call, such as {name}@0")
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise unknown("layer", name, [n for n, _ in model.named_modules() if n]) from None


def _logits(output: Any) -> Tensor:
    """The [B,K] scores in a model's output: a tensor, `.logits`, or the first of a tuple; empty if there are none."""
    found = getattr(output, "logits", output[0] if isinstance(output, tuple | list) and output else output)
    return found if isinstance(found, Tensor) and found.ndim == 2 else torch.empty(0, 0)


def _unique_functions(targets: Any) -> list[Score]:
    return list({id(t): t for t in targets if callable(t)}.values())


def _one_each(score: Any, images: int) -> Tensor:
    """What a target function returned, if it is one number an image [B]."""
    if not isinstance(score, Tensor) or score.shape != (images,):
        shape = list(score.shape) if isinstance(score, Tensor) else type(score).__name__
        raise UserError(f"a target function must return one number an image, shape [{images}]; it returned {shape}")
    return score


def _ranks(image_index: Tensor) -> list[int]:
    """For each case, how many cases of the same image come before it."""
    seen: dict[int, int] = {}
    ranks = []
    for image in image_index.tolist():
        ranks.append(seen.get(image, 0))
        seen[image] = ranks[-1] + 1
    return ranks


def _check_cases(images: Tensor, logits: Tensor, targets: Any, image_index: Tensor | None) -> Tensor:
    """image_index [Q] on the images' device, after checking that it, the targets and the images fit together."""
    if image_index is None:
        if len(targets) != len(images):
            raise UserError(f"{len(targets)} targets for {len(images)} images: give one each, or image_index too")
        image_index = torch.arange(len(images))
    if len(image_index) != len(targets):
        raise UserError(f"{len(targets)} targets but {len(image_index)} entries in image_index: give one each")
    index = torch.as_tensor(image_index, device=images.device, dtype=torch.int64)
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(images):
        raise UserError(
            f"image_index spans {int(index.min())} to {int(index.max())} but there are {len(images)} images"
        )
    for target in targets:
        if not callable(target) and not logits.shape[1]:
            raise UserError(f"target class {int(target)}: the model's output holds no scores [B,K]")
        if not callable(target) and not 0 <= int(target) < logits.shape[1]:
            raise UserError(f"target class {int(target)}: the model has classes 0 to {logits.shape[1] - 1}")
    return index


@contextmanager
def _as_found(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and frozen parameters inside; mode, requires_grad, .grad and random state as found afterwards."""
    training = [module for module in model.modules() if module.training]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    devices = [p.device for p in model.parameters() if p.device.type == "cuda"]
    with torch.random.fork_rng(devices=list(dict.fromkeys(devices))):
        try:
            model.eval()
            for parameter in learning:
                parameter.requires_grad_(False)
            yield
        finally:
            for module in training:
                module.training = True
            for parameter in learning:
                parameter.requires_grad_(True)
