"""Gradients and relevances at the input: one forward pass over a batch, any number of backward rules asked of it.

The graph of the batch's own images is built at the first question and shared by all that follow; `close` (or the end of
the object) frees it. Other images, such as noisy or faded ones, are gone through block by block, each graph freed at
once. The model is frozen and in evaluation mode meanwhile and left as found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from gradcam_bench.cases import Score, case_scores, check_cases, one_each, ranks_of, scores_in, unique_functions
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.ledger import Cost
from gradcam_bench.machine import default_budget, now
from gradcam_bench.places import Place, cuts, noted, place_of
from gradcam_bench.probe import Probe
from gradcam_bench.rules import RULES, Rule
from gradcam_bench.tape import Tape

LARGEST = {"cpu": 8, "cuda": 64}  # images at once beyond which nothing is gained


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

    images [B,3,H,W] as fed to the probe's model; targets: Q classes (or callables of the model's output), image_index
    [Q] (by default one an image, in order). cost: what passes are added to. budget: bytes that a pass over other images
    may take. rehearsal: the first of other images stands for all, to see whether a method works at all.
    """

    def __init__(
        self,
        probe: Probe,
        images: Tensor,
        targets: Sequence[int | Score] | Tensor,
        image_index: Tensor | None = None,
        cost: Cost | None = None,
        budget: int | None = None,
        rehearsal: bool = False,
    ) -> None:
        self.images, self._probe, self._rehearsal = images, probe, rehearsal
        self._targets = [target if callable(target) else int(target) for target in targets]
        index = torch.arange(len(images)) if image_index is None else image_index
        self._image_index = torch.as_tensor(index, device=images.device, dtype=torch.int64)
        self._cost = Cost() if cost is None else cost
        self._budget = default_budget(images.device) if budget is None else budget
        self._own: _Pass | None = None
        self._counted, self._seconds = False, 0.0  # of the forward pass

    def begins(self) -> None:
        """Another method asks: it is charged for the forward pass, whoever had it made."""
        self._counted = False

    @property
    def layer(self) -> str:
        """The name of the target layer."""
        return self._probe.layers[0]

    @cached_property
    def block(self) -> int:
        """How many other images go through at once: the same for all images of one size."""
        size = self.images.shape[1:]
        if size not in self._probe.graphs:
            with noted(self._probe.model) as outputs, self._probe.as_found(), torch.no_grad():
                self._probe.model(self.images[:1])
            numbers = sum(shape.numel() for calls in outputs.values() for _, shape in calls)
            self._probe.graphs[size] = numbers * self.images.element_size()
        most = LARGEST.get(self.images.device.type, 8)
        return max(min(self._budget // max(self._probe.graphs[size], 1), most), 1)

    def __call__(
        self,
        rule: str | Rule = "plain",
        images: Tensor | None = None,
        cases: int | Tensor | None = None,
        layer: str | None = None,
    ) -> Tensor:
        """[N,3,H,W]: the cases' gradients under the rule, in the images' dtype, on their device.

        images None: the cases' own, N = Q. Else images [N,3,H,W], row n asked the target of case cases[n] (of case
        `cases` where that is a number), `block` rows a pass. layer: at what this module gives [N,...] in place of the
        pixels (`name@0`, `name@1` where it is called several times). Raises UserError where the rule does not apply.
        """
        rule = named(rule)
        if images is None:
            return self._asked(self._graph(), rule, self._targets, self._image_index, layer)
        rows = [cases] * len(images) if isinstance(cases, int) else torch.as_tensor(cases).tolist()
        count, parts = 1 if self._rehearsal else len(images), []
        for start in range(0, min(count, len(images)), self.block):
            rest = rows[start : min(start + self.block, count)]
            fed, targets = images[start : start + len(rest)].to(self.images), [self._targets[q] for q in rest]
            self._cost.forwards += len(fed)
            parts.append(self._asked(self._run(fed, targets), rule, targets, torch.arange(len(fed)), layer))
        if not parts:
            return torch.zeros_like(images)
        found = torch.cat(parts)
        return found if len(found) == len(images) else found.expand(len(images), *found.shape[1:])

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
        everyone = torch.arange(len(self.images), device=self.images.device)

        def see(call: Any, gradient: Tensor) -> None:
            if call in index:
                shape = [1] * gradient.ndim
                shape[call.channels] = -1
                rows = self._image_index[asked]
                mine = gradient if torch.equal(rows, everyone) else gradient[rows]
                folded = fold(mine * index[call].reshape(shape))
                found.setdefault(call, folded.new_zeros((len(self._targets), *folded.shape[1:])))[asked] = folded

        watch = Rule("biases", "full_grad", before={"weighted": see, "norm": see})
        gradients = self._asked(made, watch, self._targets, self._image_index, None, asked)
        return gradients, [found[call] for call in index if call in found]

    def at_stride(self, stride: int, method: str = "this method") -> str:
        """The name of a layer whose grid is so many times coarser than the image (or, without one, the next finer) and
        that all paths to the image pass through: the first max-pool of that size, else the last layer."""
        made, modules = self._graph(), dict(self._probe.model.named_modules())
        pools: list[tuple[int, str, Any]] = []
        others: list[tuple[int, str, Any]] = []
        for name, calls in made.outputs.items():
            (edge, shape), once = calls[-1], len(calls) == 1
            if edge is not None and len(shape) == 4 and shape[2] * shape[3] > 1 and name:
                found = round(self.images.shape[2] / shape[2]), name if once else f"{name}@{len(calls) - 1}", edge.node
                (pools if isinstance(modules[name], nn.MaxPool2d) else others).append(found)
        for _, name, node in sorted(pools + others[::-1], key=lambda one: -one[0] if one[0] <= stride else 0):
            if cuts(made.scores.grad_fn, node, made.input[0]):
                return name
        raise UserError(f"{method} does not apply: no layer gives a map that all paths to the image pass through")

    def close(self) -> None:
        """Frees the graph of the batch's own images; another question builds it anew."""
        self._own = None

    def _graph(self) -> _Pass:
        if self._own is None:
            start = now(self.images.device)
            self._own = self._run(self.images, self._targets)
            check_cases(self.images, self._own.scores[:, :, 0], self._targets, self._image_index)
            self._seconds = now(self.images.device) - start
            self._cost.seconds -= self._seconds  # charged below, as to all who ask later
        if not self._counted:
            self._cost.forwards += len(self._image_index.unique())
            self._cost.seconds += self._seconds
            self._counted = True
        return self._own

    def _run(self, images: Tensor, targets: list[Any]) -> _Pass:
        """One forward pass, recorded."""
        tape, outputs = Tape(), {}
        with self._frozen(), torch.enable_grad():
            leaf = (images.clone() if images.is_inference() else images.detach()).requires_grad_()
            with noted(self._probe.model) as outputs, tape:
                output = self._probe.model(leaf.clone())
            functions = {id(t): one_each(t(output), len(images)) for t in unique_functions(targets)}
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
        rule.check(made.tape, made.scores.grad_fn, type(self._probe.model).__name__)
        edge, shape = made.input if layer is None else place_of(made.outputs, layer)
        if edge is None:
            raise UserError(f"layer {layer} does not depend on the image: choose another")
        found = torch.zeros((len(targets), *shape[1:]), dtype=self.images.dtype, device=self.images.device)
        ranks, asked = ranks_of(index), [] if asked is None else asked
        for rank in range(max(ranks, default=-1) + 1):
            asked[:] = [q for q, r in enumerate(ranks) if r == rank]
            with self._frozen(), rule.in_force(made.tape):
                images, wanted = index[asked], [targets[q] for q in asked]
                outputs, seeds = self._seeded(made, rule, wanted, images)
                gradient = torch.autograd.grad(outputs, [edge], seeds, retain_graph=True, allow_unused=True)[0]
            self._cost.backwards += len(asked)
            if gradient is None:
                raise UserError(f"the score does not depend on layer {layer}: choose an earlier one")
            found[asked] = gradient[images]
        return found

    def _seeded(self, made: _Pass, rule: Rule, targets: list[Any], images: Tensor) -> tuple[list[Tensor], Any]:
        """What is differentiated, and with what a relevance starts."""
        if rule.seed == "gradient":
            total = case_scores(self._probe.score, made.scores, made.functions, targets, images).sum()
            if not total.requires_grad:
                raise UserError("the score does not depend on the image")
            return [total], None
        if any(callable(target) for target in targets):
            raise UserError(f"{rule.method} does not apply: its target must be a class, not a function of the output")
        seeds = torch.zeros_like(made.scores)
        if rule.seed == "contrast":
            seeds[images] = -1 / made.scores.shape[1]
        seeds[images, targets] = made.scores.detach()[images, targets] if rule.seed == "score" else 1.0
        return [made.scores], [seeds / made.scores.shape[2]]

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        with self._probe.as_found(), torch.inference_mode(False):
            yield


def named(rule: str | Rule) -> Rule:
    """The rule of a name."""
    if isinstance(rule, Rule):
        return rule
    if rule not in RULES:
        raise unknown("backward rule", rule, RULES)
    return RULES[rule]
