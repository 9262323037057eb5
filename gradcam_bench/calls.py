"""The module calls of a forward pass, and passes that begin at one of them.

A pass over the same images by a network that has changed in one place only repeats itself up to that place. So what
the calls before it gave is kept, and a later pass takes it from there instead of computing it (`resume.instead`): calls
that ended before the place began give what they gave, calls around it run, and so do the functions between them. Of a
call whose output is overwritten in place later on a copy is kept. What came before the target layer alone is left out:
from there on a graph is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as trees

from gradcam_bench.frozen import as_found
from gradcam_bench.resume import instead

CHECKED = 6  # places at which it is tried whether a pass can begin there
CLOSE = 1e-4  # how far its scores may be from the whole pass', as a share of their range


@dataclass
class Call:
    """One call of a module. begins, ends: its place among all beginnings and ends of calls. writers: the calls in whose
    own code what it gave is overwritten in place. size: of what it gives for one image, in bytes."""

    module: nn.Module
    begins: int
    ends: int = 0
    writers: set[int] = field(default_factory=set)
    size: int = 0


@dataclass(frozen=True)
class Start:
    """Where a pass begins. left_out: the calls that give what they gave, by number, and whether as a copy. made: of
    each module the calls that do take place (or give what they gave), in order."""

    left_out: tuple[tuple[int, bool], ...]
    made: dict[nn.Module, tuple[int, ...]]


class Calls:
    """The calls of a forward pass of `model`, frozen and in evaluation mode, over images of the size of `image`
    [1,3,H,W]; `layer`: the target layer, to whose output gradients are wanted. Found by a dry run."""

    def __init__(self, model: nn.Module, image: Tensor, layer: nn.Module) -> None:
        self.model, self._layer = model, layer
        with as_found(model), torch.inference_mode(False), torch.no_grad():
            self.all = _traced(model, image.clone())
        self._found: dict[int, Start] = {}
        self.first: dict[nn.Module, int] = {}  # the event at which a module is first called
        for call in self.all:
            self.first.setdefault(call.module, call.begins)

    @cached_property
    def _last(self) -> int:
        """The event up to which calls may be left out: the target layer has given its output."""
        return next((call.ends + 1 for call in self.all if call.module is self._layer), 0)

    @cached_property
    def _around(self) -> frozenset[int]:
        """The calls that hold one of the target layer: a pass has to come by there."""
        inner = [call for call in self.all if call.module is self._layer]
        holds = (n for n, one in enumerate(self.all) if any(one.begins < i.begins and i.ends < one.ends for i in inner))
        return frozenset(holds)

    def start(self, event: int) -> Start:
        """A pass that leaves out whatever ended before an event, but nothing behind the target layer."""
        event, until = min(event, self._last), -1
        if event in self._found:
            return self._found[event]
        chosen: list[int] = []
        made: dict[nn.Module, list[int]] = {}
        for number, call in enumerate(self.all):  # in order of their beginning, so the outer one first
            if call.begins < until:
                continue
            made.setdefault(call.module, []).append(number)
            if call.ends < event and number not in self._around:
                chosen.append(number)
                until = call.ends
        inside = [(self.all[number].begins, self.all[number].ends) for number in chosen]

        def skipped(number: int) -> bool:
            return any(low <= self.all[number].begins <= high for low, high in inside)

        left_out = tuple((n, not all(map(skipped, self.all[n].writers))) for n in chosen)
        self._found[event] = Start(left_out, {module: tuple(numbers) for module, numbers in made.items()})
        return self._found[event]

    def size(self, starts: Sequence[Start]) -> int:
        """How many bytes an image are to be kept for passes that begin there."""
        return sum(self.all[n].size for n in {n for start in starts for n, _ in start.left_out})

    @contextmanager
    def passing(self, start: Start, kept: dict[int, Any], keep: Sequence[Start] = ()) -> Iterator[None]:
        """One forward pass inside begins at `start` with what is `kept` of an earlier one over the same images, and
        adds to that what passes that begin at `keep` are going to need."""
        wanted = {n for one in keep for n, _ in one.left_out} - {n for n, _ in start.left_out}
        order = {self.all[n].module: iter(start.made[self.all[n].module]) for n in wanted}

        def note(module: nn.Module, _inputs: Any, output: Any) -> None:
            number = next(order[module], None)
            if number in wanted:
                copied = bool(self.all[number].writers)
                kept[number] = trees.tree_map_only(
                    Tensor, lambda t: t.detach().clone() if copied else t.detach(), output
                )

        hooks = [module.register_forward_hook(note) for module in order]
        given = [
            trees.tree_map_only(Tensor, torch.clone, kept[n]) if copied else kept[n] for n, copied in start.left_out
        ]
        try:
            with instead([self.all[n].module for n, _ in start.left_out], given):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def hold(self, events: Sequence[int], image: Tensor) -> bool:
        """Whether passes that begin at events give what a whole pass gives, tried at some of them: a network that
        counts its calls, or is no function of its modules, has to be run whole."""
        tried = [self.start(e) for e in events[:: max(len(events) // CHECKED, 1)]]
        kept: dict[int, Any] = {}
        with as_found(self.model), torch.inference_mode(False), torch.no_grad():
            try:
                with self.passing(self.start(0), kept, tried):
                    whole = _scores(self.model(image.clone()))
                for start in tried:
                    with self.passing(start, kept):
                        again = _scores(self.model(image.clone()))
                    if again.shape != whole.shape or not _close(again, whole):
                        return False
            except (RuntimeError, AttributeError, TypeError, KeyError):  # scripted modules cannot be stood in for
                return False
        return True


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= CLOSE * (other.max() - other.min()).clamp(min=1e-12))


def _scores(output: Any) -> Tensor:
    """All numbers of a model's output in a row."""
    return torch.cat([t.float().flatten() for t in _tensors(output)])


def _traced(model: nn.Module, image: Tensor) -> list[Call]:
    """The calls of one pass in order of their beginning."""
    calls: list[Call] = []
    running: list[int] = []
    given: list[tuple[int, Tensor, int]] = []  # call, one tensor of its output, how often that had been written to
    events = 0

    def looks_for_writers() -> None:
        """Whatever was overwritten since the last event was so by the innermost call that is running."""
        for place, (number, tensor, version) in enumerate(given):
            if tensor._version != version:
                calls[number].writers.add(running[-1])
                given[place] = number, tensor, tensor._version

    def begins(module: nn.Module, _inputs: Any) -> None:
        nonlocal events
        looks_for_writers()
        running.append(len(calls))
        calls.append(Call(module, events))
        events += 1

    def ends(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal events
        looks_for_writers()
        call = calls[running[-1]]
        call.ends, events = events, events + 1
        for tensor in _tensors(output):
            given.append((running[-1], tensor, tensor._version))
            call.size += tensor.numel() * tensor.element_size()
        running.pop()

    hooks = []
    for module in model.modules():
        hooks += [module.register_forward_pre_hook(begins), module.register_forward_hook(ends)]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in trees.tree_leaves(tree) if isinstance(leaf, Tensor)]
