"""Backward rules: what a backward pass does at some operations in place of the derivative.

Gradient rules differ at activations f alone, with x the input and g the gradient at the output:

    plain    f'(x) g
    guided   f'(x) relu(g)   Springenberg et al. 2015, section 3.4
    deconv   relu(g)         Zeiler and Fergus 2014, section 2.1: the rectifier is applied to the signal, no gate

For ReLU these are the papers'; for other activations (GELU, SiLU, hardswish, ELU, ...) the same formulas extend them.
Sigmoid, hardsigmoid, tanh and softmax gate signals and keep their derivative. Relevance rules: `relevance`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gradcam_bench.errors import UserError
from gradcam_bench.tape import Call, Tape

Answer = Callable[[Call, Tensor], Any]


@dataclass(frozen=True)
class Rule:
    """method: whose name a refusal begins with. seed: what stands at the output: `gradient` (of the score), `one` (1 at
    the class), `score` (the class's logit), `contrast` (1 at the class, -1/K at the K - 1 others).

    before[kind](call, gradient): what takes the place of the gradient at the output of a call of that kind (None: it
    stays). instead[kind](call, gradient): the tuple that takes the place of the gradients at its inputs.
    """

    name: str
    method: str
    before: Mapping[str, Answer] = field(default_factory=dict)
    instead: Mapping[str, Answer] = field(default_factory=dict)
    seed: str = "gradient"

    def check(self, tape: Tape, output: Any, network: str) -> None:
        """Raises UserError where the rule says nothing about a network whose forward pass is on the tape; output: the
        node of its scores."""
        if self.seed != "gradient":
            found = tape.foreign(output)
            if found:
                raise UserError(f"{self.method} does not apply: it has no rule for {found}, which {network} contains")
        elif "activation" in {*self.before, *self.instead} and not any(c.kind == "activation" for c in tape.calls):
            raise UserError(
                f"{self.method} does not apply: no activation function (ReLU, GELU, ...) runs in the network {network}"
            )

    @contextmanager
    def in_force(self, tape: Tape) -> Iterator[None]:
        """Hooks on the nodes of a forward pass, for one backward pass."""
        handles = []
        try:
            for call in tape.calls:
                if call.kind in self.before:
                    handles.append(call.node.register_prehook(_before(call, self.before[call.kind])))
                if call.kind in self.instead and call.entry is not None:
                    handles.append(call.node.register_prehook(_skip(call, self.instead[call.kind])))
                elif call.kind in self.instead:
                    handles.append(call.node.register_hook(_instead(call, self.instead[call.kind])))
            yield
        finally:
            for handle in handles:
                handle.remove()
            for call in tape.calls:
                call.instead.clear()


def _before(call: Call, rule: Answer) -> Any:
    def hook(gradients: tuple[Tensor | None, ...]) -> Any:
        found = None if gradients[0] is None else rule(call, gradients[0])
        return None if found is None else (found, *gradients[1:])

    return hook


def _skip(call: Call, rule: Answer) -> Any:
    """Hands the rule's answer to the call's entry; without a gradient the call's own backward pass does nothing."""

    def hook(gradients: tuple[Tensor | None, ...]) -> Any:
        if gradients[0] is None:
            return None
        call.instead[:] = rule(call, gradients[0])
        return (None,) * len(gradients)

    return hook


def _instead(call: Call, rule: Answer) -> Any:
    def hook(found: tuple[Tensor | None, ...], gradients: tuple[Tensor | None, ...]) -> Any:
        if gradients[0] is None:
            return None
        answers = rule(call, gradients[0])
        answers += (None,) * (len(found) - len(answers))
        return tuple(None if one is None else answer for one, answer in zip(found, answers, strict=True))

    return hook


def _rectified(call: Call, gradient: Tensor) -> Tensor:
    return gradient.relu()


def _ungated(call: Call, gradient: Tensor) -> tuple[Tensor]:
    return (gradient.relu(),)


PLAIN = Rule("plain", "saliency")
GUIDED = Rule("guided", "guided_backprop", before={"activation": _rectified})
DECONV = Rule("deconv", "deconvnet", instead={"activation": _ungated})
RULES = {rule.name: rule for rule in (PLAIN, GUIDED, DECONV)}
