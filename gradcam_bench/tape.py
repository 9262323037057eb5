"""What a network computes, written down while it runs once, so that many backward rules can be asked of that one pass.

Nothing is replaced: activations, sums and poolings run as they are, in place or not, as modules, functions or methods,
and the graph is autograd's own. A rule is a set of hooks on the nodes of the calls, there for one backward pass only,
so the plain gradient costs what it always costs. A convolution, linear map or average has one more node, at its input,
where a rule's answer takes the place of the gradient: its own backward pass is then never run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gradcam_bench.errors import UserError

ACTIVATIONS = (
    *("celu", "clamp", "clamp_min", "elu", "gelu", "hardswish", "hardtanh", "leaky_relu", "mish", "prelu", "relu"),
    *("relu6", "rrelu", "selu", "silu", "softplus", "threshold"),
)
KINDS = (
    dict.fromkeys(ACTIVATIONS, "activation")
    | dict.fromkeys(("conv1d", "conv2d", "conv3d", "linear"), "weighted")
    | {"batch_norm": "norm"}
    | dict.fromkeys(("add", "radd", "iadd", "sub"), "sum")
    | dict.fromkeys(("mul", "rmul", "imul", "div", "truediv"), "product")
    | dict.fromkeys(("mean", "sum", "avg_pool1d", "avg_pool2d", "avg_pool3d"), "average")
    | dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), "average")
)
GATES = ("Sigmoid", "Hardsigmoid", "Softmax", "Tanh")


@dataclass(eq=False)
class Call:
    """One call of an operation that a rule may treat. kind: `activation`, `weighted` (convolution, linear), `norm`
    (batch norm in evaluation mode), `sum`, `product`, `average`.

    inputs: what it was given, in the order of its node's inputs (none for an activation). run: the operation on other
    inputs (and weights). node: autograd's, of the output. scale, shift: a batch norm's, and of a convolution that a
    batch norm follows: both are then one linear map (the norm is `folded`). first, last: of the `weighted`.
    instead: what a rule in force gives back at the input, if anything.
    """

    kind: str
    name: str
    inputs: tuple[Any, ...] = ()
    run: Callable[..., Tensor] | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    node: Any = None
    entry: Any = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    folded: bool = False
    first: bool = False
    last: bool = False
    channels: int = 1  # the dimension of the output in which the channels lie
    instead: list[Tensor] = field(default_factory=list, repr=False)
    versions: tuple[int, ...] = field(default=(), repr=False)

    def read(self, n: int = 0) -> Any:
        """Input n as it was when the call was made."""
        found = self.inputs[n]
        if isinstance(found, Tensor) and found._version != self.versions[n]:
            raise UserError(f"an input of {self.name} is overwritten in place later, so that its value is lost")
        return found


class _Entry(torch.autograd.Function):
    """The identity; backward, what a rule has put into `instead`, else the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, instead: list[Tensor]) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.instead = instead  # not the call itself, which holds the graph: the two would keep each other
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> Any:
        return ctx.instead.pop() if ctx.instead else gradient, None


class Tape(TorchFunctionMode):
    """The calls of one forward pass, in order of execution."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._by_node: dict[Any, Call] = {}
        self._copied: set[Any] = set()  # nodes of views (and what they are views of) that an activation was put into
        self._last: Call | None = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        kind = KINDS.get(name.strip("_"))
        if kind is None:
            return function(*args, **kwargs)
        return getattr(self, f"_{kind}")(name, function, args, kwargs)

    def _note(self, call: Call, out: Any) -> Any:
        """The output; the call goes on the tape if the output depends on the image."""
        if isinstance(out, Tensor) and out.grad_fn is not None:
            call.node = out.grad_fn
            call.versions = tuple(x._version if isinstance(x, Tensor) else 0 for x in call.inputs)
            self.calls.append(call)
            self._by_node[call.node] = call
            if call.kind == "weighted":
                call.first, call.last = self._last is None, True
                if self._last is not None:
                    self._last.last = False
                self._last = call
        return out

    def _activation(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        if name.startswith("clamp") and not _is_zero(args[1] if len(args) > 1 else kwargs.get("min")):
            return function(*args, **kwargs)  # no rectifier
        first, rest = (args[0], args[1:]) if args else (kwargs["input"], ())
        others = {key: value for key, value in kwargs.items() if key != "input"}
        in_place = _in_place(name) or any(value is True for value in (*rest, kwargs.get("inplace")))
        if in_place and first._is_view():  # autograd would hide the activation's node in that of the view
            first.copy_(self._note(Call("activation", name), function(first.clone(), *rest, **others)))
            self._copied |= {first.grad_fn, first._base.grad_fn}
            return first
        return self._note(Call("activation", name), function(first, *rest, **others))

    def _weighted(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        given = dict(zip(("input", "weight", "bias"), args)) | kwargs
        x, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        rest = args[3:]
        call = Call("weighted", name, (x.detach(),), weight=weight.detach())
        call.bias = None if bias is None else bias.detach()
        call.run = lambda x, weight, bias: function(x, weight, bias, *rest, **given)
        if x.requires_grad:
            x = self._entered(x, call)
        call.channels = -1 if name == "linear" else 1 if x.ndim == weight.ndim else 0
        return self._note(call, call.run(x, weight, bias))

    def _norm(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        out = function(*args, **kwargs)
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        given = dict(zip(names, args)) | kwargs
        if given.get("training") or given.get("running_mean") is None:
            return out  # statistics of the batch: no linear map
        deviation = (given["running_var"].detach() + given.get("eps", 1e-5)).sqrt()
        weight, bias = given.get("weight"), given.get("bias")
        scale = 1 / deviation if weight is None else weight.detach() / deviation
        shift = -given["running_mean"].detach() * scale
        call = Call("norm", name, (given["input"].detach(),), scale=scale)
        call.shift = shift if bias is None else shift + bias.detach()
        before = self._by_node.get(given["input"].grad_fn)
        if before is not None and before.kind == "weighted":
            before.scale, before.shift, call.folded = call.scale, call.shift, True
        return self._note(call, out)

    def _sum(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        if len(args) != 2 or kwargs:
            return function(*args, **kwargs)
        nodes = [x.grad_fn if isinstance(x, Tensor) else None for x in args]
        kept = [x.detach() if isinstance(x, Tensor) else x for x in args]
        if _in_place(name) and nodes[0] is not None:
            kept[0] = kept[0].clone()  # is about to be overwritten
        out = function(*args)
        if not _straight(out, nodes):
            return out
        if name.strip("_") == "sub":
            kept[1] = -kept[1]
        return self._note(Call("sum", name, tuple(kept)), out)

    def _product(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        nodes = [x.grad_fn if isinstance(x, Tensor) else None for x in args]
        out = function(*args, **kwargs)
        if len(args) != 2 or kwargs or not _straight(out, nodes):
            return out
        signals = [n for n, node in enumerate(nodes) if node is not None and not node.name().startswith(GATES)]
        if name.strip("_").endswith(("div", "divide")) and nodes[1] is not None:
            return out  # divided by something of the image
        if len(signals) == 2:  # the one that is broadcast is the gate
            signals = [n for n in signals if args[n].shape == out.shape]
        call = Call("product", name, tuple(n in signals for n in range(2)))
        return self._note(call, out) if len(signals) == 1 else out

    def _average(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        first, rest = (args[0], args[1:]) if args else (kwargs["input"], ())
        others = {key: value for key, value in kwargs.items() if key != "input"}
        if not isinstance(first, Tensor) or not first.requires_grad:
            return function(*args, **kwargs)
        call = Call("average", name, (first.detach(),), lambda x: function(x, *rest, **others))
        return self._note(call, function(self._entered(first, call), *rest, **others))

    def _entered(self, x: Tensor, call: Call) -> Tensor:
        """The input with a node of its own, so that the operation may be any number of autograd's."""
        x = _Entry.apply(x, call.instead)
        call.entry = x.grad_fn
        return x

    def foreign(self, root: Any) -> str | None:
        """The first operation between the output (its node) and the image that is neither on the tape nor a mere
        rearrangement of numbers, by autograd's name; None if there is none."""
        seen, waiting = set(), [root]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            call = self._by_node.get(node)
            if call is not None and call.entry is not None:
                waiting.append(call.entry)
                continue
            name = re.sub(r"Backward\d*$", "", node.name().rpartition("::")[2])
            if call is None and name not in ROUTES and node not in self._copied:
                return name
            others = [other for other, _ in node.next_functions]
            signals = call.inputs if call is not None and call.kind == "product" else [True] * len(others)
            waiting += [other for other, signal in zip(others, signals) if signal]
        return None


ROUTES = (
    *("_Entry", "AccumulateGrad", "Alias", "Cat", "Clone", "ConstantPadNd", "CopyBackwards", "Expand", "Flip"),
    *("AdaptiveMaxPool2D", "MaxPool2DWithIndices", "NativeChannelShuffle", "Permute", "PixelShuffle"),
    *("PixelUnshuffle", "Reshape"),
    *("ReshapeAlias", "Roll", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "Stack", "T", "ToCopy"),
    *("Transpose", "Unbind", "UnsafeView", "Unsqueeze", "View"),
)


def _is_zero(bound: object) -> bool:
    return isinstance(bound, int | float) and bound == 0


def _in_place(name: str) -> bool:
    return name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def _straight(out: Any, nodes: list[Any]) -> bool:
    """Whether the output's node hands its gradients straight to the nodes of the inputs."""
    if not isinstance(out, Tensor) or out.grad_fn is None:
        return False
    return {node for node, _ in out.grad_fn.next_functions if node is not None} <= set(nodes)
