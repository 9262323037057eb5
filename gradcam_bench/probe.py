"""One look: a forward pass and a backward pass through the head only. The one place that touches hooks and autograd.

The parameters are frozen for the look. The first target layer that the forward pass reaches becomes a new leaf of the
graph, so nothing below it is ever differentiated; a layer further on stays in the graph. Each hands a clone to the
network, so that a later in-place operation cannot change what was captured. All cases of one rank (the first class of
each image, the second of each, ...) share one backward pass. The model is left as it was found, also after an error.

What is differentiated is what the layer itself gives; a grid is made of it afterwards (`layouts`), and of its gradient
in the same way, so channels-last maps and token sequences are explained like any feature map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gradcam_bench.cases import Score, case_scores, check_cases, one_each, ranks_of, scores_in, unique_functions
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.frozen import as_found
from gradcam_bench.layouts import SPATIAL, Layout, layout
from gradcam_bench.resume import Rest, Route
from gradcam_bench.resume import route as find_route


@dataclass(frozen=True)
class Evidence:
    """What one look gives about Q cases in B images, at one layer with C channels on an h x w grid.

    logits [B,K] (means over positions where the model scores several; empty where it gives no scores), activations
    [B,C,h,w] (once an image), gradients [Q,C,h,w]: of each case's score. image_index [Q]: whose image a case is.
    targets [Q]: the classes, -1 where a callable was differentiated. head: (weights [K,C], bias [K]) of the last linear
    map to K classes, None where there is none; whether it follows global average pooling of this layer is for `cam` to
    check. scores [Q]: each case's score. rest: the network from the layer on, where the look recorded it.
    """

    logits: Tensor
    activations: Tensor
    gradients: Tensor
    image_index: Tensor
    targets: Tensor
    head: tuple[Tensor, Tensor] | None = None
    scores: Tensor | None = None
    rest: Rest | None = None

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
        moved: dict[str, Any] = {name: value.cpu() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, head=head, **moved)


class Probe:
    """A model and its target layers, to be looked through. A layer that is called several times is named `layer@0`,
    `layer@1`, ... in the order of the calls. score: as in `choices.View`."""

    def __init__(self, model: nn.Module, layers: Sequence[str], score: str = "logit") -> None:
        self.model, self.layers, self.score = model, tuple(layers), score
        self._modules = {layer: _module(model, layer) for layer in self.layers}
        # Walking through a model's modules costs a small network's look a tenth of its time, so it is done once.
        self._everything, self._parameters = tuple(model.modules()), tuple(model.parameters())
        self._spatial = tuple(module for module in self._everything if isinstance(module, SPATIAL))
        self._linear = tuple(module for module in self._everything if _is_linear(module))
        self._lies: dict[tuple[str, torch.Size], Layout] = {}  # for images of one size, once found
        self._routes: dict[torch.Size, Route] = {}  # likewise
        self.shortcuts: dict[torch.Size, tuple[nn.Linear, Route] | None] = {}  # likewise, see `head`
        self.sizes: dict[torch.Size, int] = {}  # likewise, see `ask`
        self.graphs: dict[torch.Size, int] = {}  # likewise, see `pixels`
        self.stages: dict[torch.Size, list[str]] = {}  # likewise, see `candidates.pyramid`
        self.attending: dict[torch.Size, Any] = {}  # likewise, see `attending`
        self._elsewhere: dict[str, Probe] = {}

    def at(self, layer: str) -> Probe:
        """A probe of the same model at another layer, always the same one."""
        if layer not in self._elsewhere:
            self._elsewhere[layer] = Probe(self.model, [layer], self.score)
        return self._elsewhere[layer]

    def look(
        self,
        images: Tensor,
        targets: Tensor | Sequence[int | Score] | Callable[[Tensor], tuple[Tensor, Tensor]],
        image_index: Tensor | None = None,
        record: bool = False,
    ) -> dict[str, Evidence]:
        """Evidence at each layer. images [B,3,H,W]; targets: Q classes (or callables of the model's output), with
        image_index [Q] (default: one an image, in order); or a function of the logits [B,K] that returns both.
        record: with what it takes to run the network again from the first layer on."""
        route = self._route(images) if record else None
        recording: AbstractContextManager[list[Any]] = route.recording() if route else nullcontext([])
        with recording as recorded, self.captured(images) as (output, captured, layouts):
            scores = scores_in(output)
            logits = scores.mean(2)
            if callable(targets):
                targets, image_index = targets(logits.detach())
            image_index = check_cases(images, logits, targets, image_index)
            functions = {id(t): one_each(t(output), len(images)) for t in unique_functions(targets)}
            gradients, asked = self._gradients(scores, functions, targets, image_index, captured)
        classes = torch.tensor([-1 if callable(t) else int(t) for t in targets], dtype=torch.int64).to(images.device)
        logits, head = logits.detach(), self._head(logits.shape[1])
        found = {
            layer: Evidence(
                logits, lies.grid(captured[layer].detach()), lies.grid(grad), image_index, classes, head, asked
            )
            for layer, lies, grad in ((layer, layouts[layer], gradients[layer]) for layer in self.layers)
        }
        if route:
            first = self.layers[0]
            rest = Rest(route, layouts[first], images, captured[first].detach(), recorded)
            found[first] = replace(found[first], rest=rest)
        return found

    @property
    def target(self) -> nn.Module:
        """The module of the first target layer."""
        return self._modules[self.layers[0]]

    def _route(self, images: Tensor) -> Route:
        """The way to the first layer, found once for images of one size."""
        size = images.shape[1:]
        if size not in self._routes:
            name, _, call = self.layers[0].partition("@")
            with self.as_found(), torch.inference_mode(False):
                pair = images.detach().clone()[[0, len(images) - 1]]
                try:
                    found = find_route(self.model, self._modules[self.layers[0]], pair, int(call or 0))
                except UserError as error:
                    raise UserError(f"layer {name}: {error}") from None
            self._routes[size] = found
        return self._routes[size]

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B,K] alone, without a graph, in evaluation mode."""
        with self.as_found(), torch.inference_mode():
            return scores_in(self.model(images)).mean(2)

    def _gradients(
        self,
        scores: Tensor,
        functions: dict[int, Tensor],
        targets: Any,
        image_index: Tensor,
        captured: dict[str, Tensor],
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The gradient of each case's score at each layer, [Q,...]: one backward pass for each rank of case; and the
        scores [Q]."""
        ranks = ranks_of(image_index)
        asked = scores.new_zeros(len(ranks)) if scores.numel() else torch.zeros(len(ranks), device=image_index.device)
        leaves = [captured[layer] for layer in self.layers]
        gradients = {layer: leaf.new_zeros((len(ranks), *leaf.shape[1:])) for layer, leaf in captured.items()}
        for rank in range(max(ranks, default=-1) + 1):
            cases = [q for q, r in enumerate(ranks) if r == rank]
            images = image_index[cases]
            values = case_scores(self.score, scores, functions, [targets[q] for q in cases], images)
            asked[cases], total = values.detach().to(asked.dtype), values.sum()
            if not total.requires_grad:
                raise UserError(f"the score does not depend on layer {' or '.join(self.layers)}: choose an earlier one")
            grads = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)
            for layer, grad in zip(self.layers, grads, strict=True):
                if grad is None:
                    raise UserError(f"the score does not depend on layer {layer}: choose an earlier one")
                gradients[layer][cases] = grad[images]
        return gradients, asked

    @contextmanager
    def captured(self, images: Tensor) -> Iterator[tuple[Any, dict[str, Tensor], dict[str, Layout]]]:
        """The model's output, the graph's node at each layer and how it lies; hooks live for the forward pass alone."""
        calls: dict[nn.Module, int] = {}
        captured: dict[str, Tensor] = {}
        layouts: dict[str, Layout] = {}
        known: list[tuple[int, int]] = []

        def capture(module: nn.Module, _inputs: Any, output: Any) -> Any:
            note_size(module, output, known)
            call = calls[module] = calls.get(module, -1) + 1
            for layer, target in self._modules.items():
                name, _, wanted = layer.partition("@")
                if target is not module or (wanted and int(wanted) != call):
                    continue
                if layer in captured:
                    raise UserError(f"layer {name} is called more than once: say which, as {name}@0 or {name}@{call}")
                layouts[layer] = self._layout(layer, module, output, images, known)
                captured[layer] = output if output.requires_grad else output.detach().requires_grad_()
                output = captured[layer].clone()
            return output

        found = all((layer, images.shape[1:]) in self._lies for layer in self.layers)
        with self.as_found(), torch.inference_mode(False), torch.enable_grad():
            with hooked([*(() if found else self._spatial), *self._modules.values()], capture):
                output = self.model(images.clone() if images.is_inference() else images.detach())
            for layer in self.layers:
                if layer not in captured:
                    raise UserError(f"layer {layer} took no part in the forward pass")
            yield output, captured, layouts

    def _layout(
        self, layer: str, module: nn.Module, output: Any, images: Tensor, known: Sequence[tuple[int, int]]
    ) -> Layout:
        """How the layer's output lies, found once for images of one size: hooks on all convolutions cost a little."""
        key = (layer, images.shape[1:])
        found = self._lies.get(key) or layout(module, output, images, known)
        if found is None:
            raise _no_grid(layer.partition("@")[0], output)
        self._lies[key] = found
        return found

    def _head(self, classes: int) -> tuple[Tensor, Tensor] | None:
        """The last linear map (or 1x1 convolution) to so many classes, if there is one. It may or may not follow global
        average pooling of a target layer; `cam` checks that it does."""
        linear = [module for module in self._linear if len(module.weight) == classes]  # type: ignore[arg-type]
        if not linear:
            return None
        weight, bias = linear[-1].weight.detach().flatten(1), linear[-1].bias  # type: ignore[operator]
        return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach()  # type: ignore[operator]

    def as_found(self) -> AbstractContextManager[None]:
        """The model frozen and in evaluation mode inside, as it was found after."""
        return as_found(self.model, self._everything, self._parameters)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def note_size(module: nn.Module, output: Any, known: list[tuple[int, int]]) -> None:
    """Adds the size (h, w) of what a convolution or a pooling gave: the grids that are known for certain."""
    if isinstance(module, SPATIAL) and isinstance(output, Tensor) and output.ndim == 4:
        known.append((output.shape[2], output.shape[3]))


def _no_grid(name: str, output: Any) -> UserError:
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    wanted = "a map [B,C,h,w] or [B,h,w,C] of the image's shape, or tokens [B,N,C] for a convolution's cells"
    return UserError(f"layer {name} gives no grid: its output is {shape}, not {wanted}")


@contextmanager
def hooked(modules: Iterable[nn.Module], hook: Any) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in dict.fromkeys(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _module(model: nn.Module, layer: str) -> nn.Module:
    """The module that a layer's name stands for, without the number of its call."""
    name, at, call = layer.partition("@")
    if at and not call.isdecimal():
        raise UserError(f"layer {layer}: after @ comes the number of the module's call, such as {name}@0")
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise unknown("layer", name, [n for n, _ in model.named_modules() if n]) from None
