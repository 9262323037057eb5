"""Relevance rules: excitation backprop and layer-wise relevance propagation, as backward rules.

A linear map z = W x + b hands the relevance R at its output to its inputs in proportion to their share in z:

    R_in = sum_t x_t * W_t^T (R / (sum_t W_t x_t + b'))        nothing is handed on where the denominator is 0

    excitation     x, relu(W), no bias; all x >= 0                          Zhang et al. 2016, eq. 5 (marginal
                                                                            winning probabilities)
    epsilon        x, W, bias; the denominator + epsilon, with its sign     Bach et al. 2015, eq. 58
    gamma          x, W + gamma relu(W), bias likewise (see `signed`)       Montavon et al. 2019, table 1
    alpha1_beta0   relu(x), relu(W) and -relu(-x), -relu(-W), relu(bias)    Bach et al. 2015, eq. 60, alpha = 1
    box            x, W; low, -relu(W); high, relu(-W)                      Montavon et al. 2017, z^B: x in [low, high]

A batch norm that follows a convolution or linear map is part of it; elsewhere it is a linear map of its own. Sums (of
residual branches) and averages are linear maps with weights that are known. Activations pass relevance on as it is, a
max-pool to the winner; a gate (sigmoid of something, times a signal) leaves it to the signal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradcam_bench.errors import UserError, unknown
from gradcam_bench.rules import Rule
from gradcam_bench.tape import Call

SUMS = ("positive", "signed")
Part = tuple[Tensor, Tensor]  # of the input, and of the weights
Share = Callable[[Tensor, Tensor, "Tensor | None"], tuple[list[Part], "Tensor | None"]]  # x, W, b -> parts, bias
Stable = Callable[[Tensor], Tensor]
Treatment = Callable[[Call, Tensor], tuple[Tensor]]  # a call and R at its output -> (R_in,)


def exactly(total: Tensor) -> Tensor:
    """The denominator as it is; where it is 0, nothing is handed on."""
    return total.where(total != 0, torch.inf)


def stabilised(epsilon: float) -> Stable:
    """z + epsilon r sign(z), where sign(0) = 1, r the root mean square of z over a case's places and channels."""

    def stable(total: Tensor) -> Tensor:
        size = total.square().mean(tuple(range(1, total.ndim)), keepdim=True).sqrt()
        return exactly(total + epsilon * size * torch.where(total >= 0, 1.0, -1.0).to(total.dtype))

    return stable


def excited(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[list[Part], None]:
    return [(x, weight.relu())], None


def inhibited(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[list[Part], None]:
    """`excited` of the dual unit, whose weights are negated."""
    return [(x, (-weight).relu())], None


def whole(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[list[Part], Tensor | None]:
    return [(x, weight)], bias


def favoured(gamma: float, sign: int) -> Share:
    """For outputs of that sign: the contributions of the same sign count 1 + gamma times."""

    def share(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[list[Part], Tensor | None]:
        like, other = (weight + gamma * side * (side * weight).relu() for side in (sign, -sign))
        parts = [(x.relu(), like), (-(-x).relu(), other)] if (x < 0).any() else [(x, like)]
        return parts, None if bias is None else bias + gamma * sign * (sign * bias).relu()

    return share


def positive(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[list[Part], Tensor | None]:
    parts = [(x.relu(), weight.relu())]
    if (x < 0).any():
        parts.append((-(-x).relu(), -(-weight).relu()))
    return parts, None if bias is None else bias.relu()


def boxed(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[list[Part], None]:
    """The bounds are the least and the largest number in each image, as Lee et al. 2021's code has them."""
    low, high = (bound.expand_as(x) for bound in (x.amin((1, 2, 3), True), x.amax((1, 2, 3), True)))
    return [(x, weight), (low, -weight.relu()), (high, (-weight).relu())], None


def weighted(call: Call, relevance: Tensor, share: Share, stable: Stable) -> tuple[Tensor]:
    """R_in of a convolution or linear map, with the batch norm that follows it."""
    assert call.run is not None
    x, weight, bias = folded(call)
    parts, bias = share(x, weight, bias)
    fed = [x.detach().requires_grad_() for x, _ in parts]
    with torch.enable_grad():
        made = [call.run(x, part, bias if n == 0 else None) for n, (x, (_, part)) in enumerate(zip(fed, parts))]
        total: Any = sum(made)
        back = torch.autograd.grad(total, fed, relevance / stable(total.detach()))
    return (sum((x.detach() * one for x, one in zip(fed, back)), torch.zeros_like(back[0])),)


def signed(call: Call, relevance: Tensor, gamma: float, stable: Stable) -> tuple[Tensor]:
    """The gamma rule: outputs z > 0 favour positive contributions, z < 0 negative ones, so that no denominator is
    smaller than z itself. After a ReLU and before one, where R is 0 unless z > 0, that is Montavon et al.'s."""
    assert call.run is not None
    total = call.run(*folded(call))
    (found,) = weighted(call, relevance.where(total >= 0, 0.0), favoured(gamma, 1), stable)
    below = relevance.where(total < 0, 0.0)
    return (found + weighted(call, below, favoured(gamma, -1), stable)[0] if below.any() else found,)


def folded(call: Call) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input, weights and bias of a convolution or linear map, with the batch norm that follows it."""
    weight, bias = call.weight, call.bias
    assert weight is not None
    if call.scale is not None and call.shift is not None:
        weight = weight * call.scale.reshape(-1, *[1] * (weight.ndim - 1))
        bias = call.shift if bias is None else bias * call.scale + call.shift
    return call.read(), weight, bias


def normed(call: Call, relevance: Tensor, stable: Stable) -> tuple[Tensor]:
    """R_in of a batch norm: all, if it is part of the linear map before it."""
    if call.folded or call.scale is None or call.shift is None:
        return (relevance,)
    shape = [-1, *[1] * (relevance.ndim - 2)]
    part = call.read() * call.scale.reshape(shape)
    return (part * (relevance / stable(part + call.shift.reshape(shape))),)


def added(call: Call, relevance: Tensor, stable: Stable, only_positive: bool = False) -> tuple[Tensor, ...]:
    """R_in of the operands of a sum. only_positive: shares among their positive parts."""
    operands = [torch.as_tensor(call.read(n), dtype=relevance.dtype, device=relevance.device) for n in range(2)]
    if only_positive:
        operands = [operand.relu() for operand in operands]
    each = relevance / stable(operands[0] + operands[1])
    return tuple((operand * each).sum_to_size(operand.shape) for operand in operands)


def averaged(call: Call, relevance: Tensor, stable: Stable) -> tuple[Tensor]:
    """R_in of an average or sum over places."""
    assert call.run is not None
    x = call.read().detach().requires_grad_()
    with torch.enable_grad():
        total = call.run(x)
        (back,) = torch.autograd.grad(total, x, relevance / stable(total.detach()))
    return (x.detach() * back,)


def passed(_call: Call, relevance: Tensor) -> tuple[Tensor]:
    return (relevance,)


def multiplied(call: Call, relevance: Tensor) -> tuple[Tensor | None, ...]:
    """All to the signal; a gate gets none."""
    return tuple(relevance if signal else None for signal in call.inputs)


def excitation(method: str = "excitation_backprop", dual: bool = False, sums: str = "positive") -> Rule:
    """Marginal winning probabilities from 1 at the class; dual: from the unit whose weights (in the top linear map) are
    those of the class, negated. sums: operands share by their `positive` parts or as they are, `signed`. Refuses
    negative activations."""
    if sums not in SUMS:
        raise unknown(f"sums of {method}", sums, SUMS)

    def linear(call: Call, relevance: Tensor) -> tuple[Tensor]:
        if (call.read() < 0).any():
            raise UserError(f"{method} does not apply: activations that a {call.name} is given are not all >= 0")
        return weighted(call, relevance, inhibited if dual and call.last else excited, exactly)

    instead = {
        "weighted": linear,
        "norm": passed,
        "sum": lambda call, relevance: added(call, relevance, exactly, sums == "positive"),
        "average": lambda call, relevance: averaged(call, relevance, exactly),
        "activation": passed,
        "product": multiplied,
    }
    return Rule("excitation", method, instead=instead, seed="one")


def propagation(method: str, dense: Treatment, convolved: Treatment, first: Treatment, seed: str = "score") -> Rule:
    """Layer-wise relevance propagation: what is done at linear maps, at convolutions, and at the first of all, which
    sees the image. seed: `score` (the class's logit) or `contrast`."""

    def linear(call: Call, relevance: Tensor) -> tuple[Tensor]:
        return (first if call.first else dense if call.name == "linear" else convolved)(call, relevance)

    small = stabilised(1e-9)
    instead = {
        "weighted": linear,
        "norm": lambda call, relevance: normed(call, relevance, small),
        "sum": lambda call, relevance: added(call, relevance, small),
        "average": lambda call, relevance: averaged(call, relevance, small),
        "activation": passed,
        "product": multiplied,
    }
    return Rule("propagation", method, instead=instead, seed=seed)


PLUS: Treatment = partial(weighted, share=positive, stable=exactly)
BOX: Treatment = partial(weighted, share=boxed, stable=exactly)


def composite(name: str, epsilon: float = 1e-6, gamma: float = 0.25) -> Rule:
    """A named choice of rules: `epsilon` and `alpha1_beta0` everywhere; `gamma` everywhere but at the image, where it
    is box; `epsilon_plus`: epsilon in linear maps, alpha1_beta0 in convolutions; `epsilon_gamma_box`: epsilon in linear
    maps, gamma in convolutions, box at the image. epsilon: relative to a layer's output, see `stabilised`."""
    small: Treatment = partial(weighted, share=whole, stable=stabilised(epsilon))
    favour: Treatment = partial(signed, gamma=gamma, stable=stabilised(epsilon))
    chosen: dict[str, tuple[Treatment, Treatment, Treatment]] = {
        "epsilon": (small, small, small),
        "gamma": (favour, favour, BOX),
        "alpha1_beta0": (PLUS, PLUS, PLUS),
        "epsilon_plus": (small, PLUS, PLUS),
        "epsilon_gamma_box": (small, favour, BOX),
    }
    if name not in chosen:
        raise unknown("composite", name, chosen)
    return propagation(f"lrp_{name}", *chosen[name])
