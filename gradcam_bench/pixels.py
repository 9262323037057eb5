"""Gradients and relevances at the input: one forward pass over a batch, any number of backward rules asked of it.

The graph of the batch's own images is built at the first question and shared by all that follow; `close` (or the end of
the object) frees it. Other images, such as noisy or faded ones, are gone through block by block, each graph freed at
once. The model is frozen and in evaluation mode meanwhile and left as found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from gradcam_bench.cases import check_cases, one_each, ranks_of, scores_in, total_score, unique_functions
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.frozen import as_found
from gradcam_bench.ledger import Cost
from gradcam_bench.rules import RULES, Rule
from gradcam_bench.tape import Tape

Place = tuple[GradientEdge, torch.Size]  # where a tensor lies in the graph, and its shape
BLOCK = 8  # images a pass, where a method asks for many; fixed, so that no number depends on the rest of the batch


@dataclass(frozen=True)
class _Pass:
    """One forward pass: where the images lie in the graph, scores [B,K,positions], what callable targets gave, the
    calls, and where each module's outputs lie, in the order of its calls."""

    input: Place
    scores: Tensor
    functions: dict[int, Tensor]
    tape: Tape
    outputs: dict[str, list[Place]]


class Pixels:
    """`pixels(rule, images, cases)`: the gradient (or relevance) of cases' scores at the input under a named rule.

    images [B,3,H,W] as fed to the model; targets: Q classes (or callables of the model's output), image_index [Q] (by
    default one an image, in order), score: as for `Probe`. cost: what passes are added to.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Sequence[Any] | Tensor,
        image_index: Tensor | None = None,
        score: str = "logit",
        cost: Cost | None = None,
        layer: str = "",
    ) -> None:
        self.model, self.images, self.score, self.layer = model, images, score, layer
        self.targets = [target if callable(target) else int(target) for target in targets]
        index = torch.arange(len(images)) if image_index is None else image_index
        self.image_index = torch.as_tensor(index, device=images.device, dtype=torch.int64)
        self.cost = Cost() if cost is None else cost
        self._everything, self._parameters = tuple(model.modules()), tuple(model.parameters())
        self._own: _Pass | None = None

    def __call__(
        self,
        rule: str | Rule = "plain",
        images: Tensor | None = None,
        cases: int | Tensor | None = None,
        layer: str | None = None,
    ) -> Tensor:
        """[N,3,H,W]: the cases' gradients under the rule, in the images' dtype, on their device.

        images None: the cases' own, N = Q. Else images [N,3,H,W], row n asked the target of case cases[n] (of case
        `cases` where that is a number), `BLOCK` rows a pass. layer: at what this module gives [N,...] in place of the
        pixels (`name@0`, `name@1` where it is called several times). Raises UserError where the rule does not apply.
        """
        rule = named(rule)
        if images is None:
            return self._asked(self._graph(), rule, self.targets, self.image_index, layer)
        rows = [cases] * len(images) if isinstance(cases, int) else torch.as_tensor(cases).tolist()
        found = []
        for start in range(0, len(images), BLOCK):
            block, targets = images[start : start + BLOCK], [self.targets[q] for q in rows[start : start + BLOCK]]
            found.append(self._asked(self._run(block, targets), rule, targets, torch.arange(len(block)), layer))
        return torch.cat(found) if found else torch.zeros_like(images)

    def biases(self, fold: Callable[[Tensor], Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The gradients [Q,3,H,W] at the input, and for each layer with a bias b, in order of execution, fold(b * g),
        g [Q,C,...] the gradient at its output: convolutions and linear maps, and batch norms with the bias that they
        have as linear maps."""
        made, index = self._graph(), {}
        for call in made.tape.calls:
            bias = call.bias if call.kind == "weighted" else call.shift if call.kind == "norm" else None
            if bias is not None:
                index[call] = bias
        found: dict[Any, Tensor] = {}
        asked: list[int] = []

        def see(call: Any, gradient: Tensor) -> None:
            if call in index:
                shape = [1] * gradient.ndim
                shape[call.channels] = -1
                folded = fold((gradient * index[call].reshape(shape))[self.image_index[asked]])
                found.setdefault(call, folded.new_zeros((len(self.targets), *folded.shape[1:])))[asked] = folded

        watch = Rule("biases", "full_grad", before={"weighted": see, "norm": see})
        gradients = self._asked(made, watch, self.targets, self.image_index, None, asked)
        return gradients, [found[call] for call in index if call in found]

    def outputs(self) -> dict[str, torch.Size]:
        """What each module gave, by name, in order of execution: the shape of its (last) output."""
        return {name: calls[-1][1] for name, calls in self._graph().outputs.items()}

    def close(self) -> None:
        """Frees the graph of the batch's own images; another question builds it anew."""
        self._own = None

    def _graph(self) -> _Pass:
        if self._own is None:
            self._own = self._run(self.images, self.targets)
            check_cases(self.images, self._own.scores[:, :, 0], self.targets, self.image_index)
        return self._own

    def _run(self, images: Tensor, targets: list[Any]) -> _Pass:
        """One forward pass, recorded."""
        tape, outputs = Tape(), {}
        with self._frozen(), torch.enable_grad():
            leaf = (images.clone() if images.is_inference() else images.detach()).requires_grad_()
            with _outputs(self.model) as outputs, tape:
                output = self.model(leaf.clone())
            functions = {id(t): one_each(t(output), len(images)) for t in unique_functions(targets)}
            self.cost.forwards += len(images)
            return _Pass((get_gradient_edge(leaf), leaf.shape), scores_in(output), functions, tape, outputs)

    def _asked(
        self,
        made: _Pass,
        rule: Rule,
        targets: list[Any],
        index: Tensor,
        layer: str | None,
        asked: list[int] | None = None,
    ) -> Tensor:
        """[N,...] for targets [N] of images index [N]: one backward pass for each rank of case. asked: is told which
        cases the pass under way is for."""
        rule.check(made.tape, made.scores.grad_fn, type(self.model).__name__)
        edge, shape = made.input if layer is None else _output(made, layer)
        found = torch.zeros((len(targets), *shape[1:]), dtype=self.images.dtype, device=self.images.device)
        ranks, asked = ranks_of(index), [] if asked is None else asked
        for rank in range(max(ranks, default=-1) + 1):
            asked[:] = [q for q, r in enumerate(ranks) if r == rank]
            images, wanted = index[asked], [targets[q] for q in asked]
            with self._frozen(), rule.in_force(made.tape):
                outputs, seeds = self._seeded(made, rule, wanted, images)
                gradient = torch.autograd.grad(outputs, [edge], seeds, retain_graph=True, allow_unused=True)[0]
            self.cost.backwards += len(asked)
            if gradient is None:
                raise UserError(f"the score does not depend on layer {layer}: choose an earlier one")
            found[asked] = gradient[images]
        return found

    def _seeded(self, made: _Pass, rule: Rule, targets: list[Any], images: Tensor) -> tuple[list[Tensor], Any]:
        """What is differentiated, and with what a relevance starts."""
        if rule.seed == "gradient":
            total = total_score(self.score, made.scores, made.functions, targets, images)
            if not total.requires_grad:
                raise UserError("the score does not depend on the image")
            return [total], None
        if any(callable(target) for target in targets):
            raise UserError(f"{rule.method} does not apply: its target must be a class, not a function of the output")
        seeds = torch.zeros_like(made.scores)
        values = made.scores.detach() if rule.seed == "score" else torch.ones_like(made.scores)
        seeds[images, targets] = values[images, targets] / made.scores.shape[2]
        return [made.scores], [seeds]

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        with as_found(self.model, self._everything, self._parameters), torch.inference_mode(False):
            yield


def named(rule: str | Rule) -> Rule:
    """The rule of a name."""
    if isinstance(rule, Rule):
        return rule
    if rule not in RULES:
        raise unknown("backward rule", rule, RULES)
    return RULES[rule]


@contextmanager
def _outputs(model: nn.Module) -> Iterator[dict[str, list[Place]]]:
    """Where each module's outputs lie in the graph, filled as they come; an edge, unlike the tensor, is not touched by
    what happens to it in place later."""
    found: dict[str, list[Place]] = {}
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.grad_fn is not None:
            found.setdefault(names[module], []).append((get_gradient_edge(output), output.shape))

    handles = [module.register_forward_hook(note) for module in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _output(made: _Pass, layer: str) -> Place:
    name, at, call = layer.partition("@")
    if name not in made.outputs:
        raise unknown("layer", name, made.outputs)
    calls = made.outputs[name]
    if not at and len(calls) > 1:
        raise UserError(f"layer {name} is called more than once: say which, as {name}@0 or {name}@{len(calls) - 1}")
    if at and not (call.isdecimal() and int(call) < len(calls)):
        raise UserError(f"layer {layer}: {name} is called {len(calls)} times: the last is {name}@{len(calls) - 1}")
    return calls[int(call or 0)]
