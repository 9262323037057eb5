"""What a method can be given about the cases of a batch, by the name of its parameter; made when first asked for.

`evidence` is one look at the target layer, shared by all methods that take it. The others look further: `head` runs the
network from that layer on, `ask` and `look` see other images, `pixels` goes back to the input, `pyramid` and
`attentions` look at other layers. All count what they do, so that a method's cost is known whatever it shares: the look
is charged to a method when it reads of it, forward pass and backward pass each for themselves (see `ledger`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from gradcam_bench.ask import Ask
from gradcam_bench.attentions import Attentions
from gradcam_bench.candidates import pyramid
from gradcam_bench.cases import Asked, Score
from gradcam_bench.errors import UserError
from gradcam_bench.head import Head
from gradcam_bench.ledger import Cost
from gradcam_bench.machine import default_budget, now
from gradcam_bench.pixels import Pixels
from gradcam_bench.probe import Evidence, Probe
from gradcam_bench.reading import FREE, Read, timed_look


@dataclass(frozen=True)
class Looked:
    """The one look that a batch's methods share. images [B,3,H,W]: what the network was fed. targets: Q classes or
    functions of the output. forward, backward: the cost of the two halves of the look. budget: bytes that later passes
    may take at once (None: a quarter of the machine's memory). rehearsal, activation: see `Ask`. black: that colour
    after the network's normalisation, where it is known."""

    probe: Probe
    images: Tensor
    targets: Sequence[int | Score]
    evidence: Evidence
    forward: Cost
    backward: Cost
    budget: int | None = None
    rehearsal: bool = False
    activation: str = "softmax"
    black: Sequence[float] | None = None


class Supplies:
    """Supplies of Q cases. images [Q,3,H,W] float32: each case's input; names: of the cases, from which random methods
    are seeded; looked None: there is no model."""

    def __init__(self, images: Tensor, names: Sequence[str], seed: int, looked: Looked | None = None) -> None:
        self.images, self.names, self.seed, self.looked = images, names, seed, looked
        self.cost = Cost()  # of all asked for so far; seconds: of shared passes, less those while a method's clock ran
        self._charged: set[str] = set()  # what the method that asks has been charged for
        self._elsewhere: dict[str, Supplies] = {}  # of other layers

    def at(self, layer: str | None) -> Supplies:
        """Those of the same cases at another layer (None: at the look's own), which all methods that ask for it share:
        one more look, charged as it is read."""
        if layer is None or self.looked is None or layer == self.looked.probe.layers[0]:
            return self
        if layer not in self._elsewhere:
            made, start = self.looked, now(self.looked.images.device)
            asked = made.probe.at(layer), made.images, made.targets, made.evidence.image_index
            record, rest = made.evidence.rest is not None, (made.budget, made.rehearsal, made.activation, made.black)
            self._elsewhere[layer] = Supplies(self.images, self.names, self.seed, shared_look(*asked, record, *rest))
            self._elsewhere[layer].cost = self.cost
            self.cost.seconds -= now(made.images.device) - start
        return self._elsewhere[layer]

    def of(self, label: str, takes: Sequence[str]) -> dict[str, Any]:
        """What a method takes, by name. Raises UserError where that needs a model and there is none."""
        named = {"generators": self.generators, "attentions": self.attentions}
        return {name: named[name](label) if name in named else getattr(self, name) for name in takes}

    def begins(self) -> None:
        """Another method asks: it is charged for what it shares, whoever had it made."""
        self._charged.clear()
        if "pixels" in vars(self):
            self.pixels.begins()
        for supplies in self._elsewhere.values():
            supplies.begins()

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.names), self.images.shape[-2], self.images.shape[-1]

    def generators(self, label: str) -> list[torch.Generator]:
        """One a case, seeded by (seed, method, case): whatever else is in the batch, a method draws the same."""
        return [_generator(self.seed, label, name) for name in self.names]

    def attentions(self, label: str) -> Attentions:
        """Attention, asked by the method of this name. Not shared: each method looks as deep as it needs."""
        made = self._look_made
        index = made.evidence.image_index.to(made.images.device)
        return Attentions(made.probe, made.images, made.targets, index, self.cost, self._budget, label)

    @property
    def evidence(self) -> Evidence:
        made = self._look_made
        return Read.of(made.evidence, partial(self._reads, "look", made.forward, made.backward))

    @property
    def network(self) -> Asked:
        made = self._look_made
        height, width = made.evidence.activations.shape[2:]
        layer, asked = made.probe.layers[0], made.evidence.targets
        return Asked(made.probe.model, layer, asked, made.rehearsal, (height, width), self.cost)

    @property
    def head(self) -> Head:
        self._charge("look", self._look_made.forward)
        return self._head

    @cached_property
    def _head(self) -> Head:
        made = self._look_made
        return Head(made.probe, made.evidence, made.targets, self.cost, self._budget, made.rehearsal, made.activation)

    @cached_property
    def ask(self) -> Ask:
        made = self._look_made
        return Ask(made.probe, made.images, made.targets, self.cost, self._budget, made.rehearsal, made.activation)

    @property
    def black(self) -> Tensor:
        """[3,1,1]: black after the network's normalisation."""
        if self._look_made.black is None:
            raise UserError("it is not known how the images were normalised, so not what black is")
        return self.images.new_tensor(self._look_made.black).reshape(3, 1, 1)

    @property
    def look(self) -> Any:
        return self._look

    @cached_property
    def pixels(self) -> Pixels:
        made = self._look_made
        index = made.evidence.image_index
        return Pixels(made.probe, made.images, made.targets, index, self.cost, self._budget, made.rehearsal)

    @property
    def pyramid(self) -> list[Evidence]:
        """Evidence at the last layer of each grid size up to the target layer, in order of execution."""
        found, forward, backward = self._pyramid
        return [Read.of(one, partial(self._reads, "pyramid", forward, backward)) for one in found.values()]

    @cached_property
    def _pyramid(self) -> tuple[dict[str, Evidence], Cost, Cost]:
        made, start = self._look_made, now(self._look_made.images.device)
        probe = Probe(made.probe.model, pyramid(made.probe, made.images), made.probe.score)
        found, forward, backward = timed_look(probe, made.images, made.targets, made.evidence.image_index)
        self.cost.seconds -= now(made.images.device) - start  # charged as it is read, also to who had it made
        return found, forward, backward

    def _look(self, images: Tensor, cases: Tensor) -> Evidence:
        """Evidence at the target layer for other images [N,3,H,W], each asked the target of its case [N].

        In blocks of as many as the batch has, the last one filled up, so that a number depends on no other case.
        """
        made = self._look_made
        count = 1 if made.rehearsal else len(images)
        self._count(count, count)
        block, parts = len(made.images), []
        like = next(made.probe.model.parameters())
        for start in range(0, count, block):
            part, mine = images[start : start + block][:count], cases[start : start + block][:count].tolist()
            part = torch.cat([part, part[-1:].expand(block - len(part), -1, -1, -1)])
            fed = part.to(like.device, like.dtype, memory_format=torch.channels_last)
            index = torch.arange(len(mine))
            found = made.probe.look(fed, [made.targets[q] for q in mine], index)[made.probe.layers[0]]
            parts.append(_first(found, len(mine)))
        return _joined(parts, len(images))

    @property
    def _look_made(self) -> Looked:
        if self.looked is None:
            raise UserError("there is no model (model=none)")
        return self.looked

    @property
    def _budget(self) -> int:
        made = self._look_made
        return default_budget(made.images.device) if made.budget is None else made.budget

    def _reads(self, look: str, forward: Cost, backward: Cost, part: str) -> None:
        """A method reads this part of a look's evidence."""
        if part not in FREE:
            self._charge(look, forward)
        if part == "gradients":
            self._charge(f"{look}, backward", backward)

    def _charge(self, what: str, cost: Cost) -> None:
        if what not in self._charged:
            self._charged.add(what)
            self.cost += cost

    def _count(self, forwards: int, backwards: int) -> None:
        self.cost.forwards += forwards
        self.cost.backwards += backwards


def shared_look(
    probe: Probe,
    images: Tensor,
    targets: Any,
    image_index: Tensor | None = None,
    record: bool = False,
    budget: int | None = None,
    rehearsal: bool = False,
    activation: str = "softmax",
    black: Sequence[float] | None = None,
) -> Looked:
    """The look of a batch [B,3,H,W] that its methods share; targets, image_index, record: as in `Probe.look`; budget,
    rehearsal, activation, black: as in `Looked`."""
    found, forward, backward = timed_look(probe, images, targets, image_index, record)
    evidence = found[probe.layers[0]]
    if images.device.type == "mps":  # it has no float64, which some methods need; the evidence is small
        evidence = evidence.cpu()
    asked = evidence.targets.tolist() if callable(targets) else [t if callable(t) else int(t) for t in targets]
    return Looked(probe, images, asked, evidence, forward, backward, budget, rehearsal, activation, black)


def _first(evidence: Evidence, count: int) -> Evidence:
    """Of a look at a block of images, each asked once, the first so many."""
    scores = evidence.scores
    return Evidence(
        evidence.logits[:count],
        evidence.activations[:count],
        evidence.gradients,
        evidence.image_index,
        evidence.targets,
        evidence.head,
        scores,
    )


def _joined(parts: Sequence[Evidence], count: int) -> Evidence:
    """Looks at one image a case as one, repeated to `count` cases where only some were made."""

    def whole(tensors: Sequence[Tensor]) -> Tensor:
        made = torch.cat(list(tensors))
        return made if len(made) == count else made[torch.zeros(count, dtype=torch.int64)]

    if not parts:
        raise ValueError("no image to look at")
    return Evidence(
        whole([part.logits for part in parts]),
        whole([part.activations for part in parts]),
        whole([part.gradients for part in parts]),
        torch.arange(count, device=parts[0].image_index.device),
        whole([part.targets for part in parts]),
        parts[0].head,
        whole([part.scores for part in parts if part.scores is not None]),
    )


def _generator(seed: int, label: str, name: str) -> torch.Generator:
    state = hashlib.sha256(f"{seed}/{label}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(state[:8], "big") >> 1)
