"""From a batch to heatmaps: one look, then every method on what it gave."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradcam_bench import augment
from gradcam_bench.candidates import candidates
from gradcam_bench.catalogue import Method
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError, verdict
from gradcam_bench.ledger import Cost
from gradcam_bench.models.network import Network
from gradcam_bench.probe import Probe
from gradcam_bench.samples import Annotation, Batch, Sample
from gradcam_bench.supplies import Looked, Supplies, shared_look

TOP = {"predicted": 1, "top5": 5}
RECORD = {"head"}  # what the shared look has to be recorded for


@dataclass(frozen=True)
class Case:
    """One question, "where is this class?": a sample, a class, and what the model says of it (None without a model).

    rank: the place of the class among the outputs, 0 the first. best: the best rank of a class that is annotated.
    Both are None where an output is not finite, and where outputs do not compare (`Network.compares`)."""

    sample: Sample
    target: int
    logit: float | None = None
    probability: float | None = None
    rank: int | None = None
    predicted: int | None = None
    best: int | None = None

    @property
    def id(self) -> str:
        return f"{self.sample.annotation.image_id}#{self.target}"


class Explained(NamedTuple):
    """Q cases of a batch with each method's heatmaps [Q,h,w], signed, float32, on the CPU, and what they cost together
    (each method's as if it alone had looked)."""

    cases: list[Case]
    maps: dict[str, Tensor]
    costs: dict[str, Cost]


def explain_batch(
    batch: Batch,
    network: Network | None,
    probe: Probe | None,
    methods: Sequence[Method],
    view: View,
    pad_to: int = 0,
    budget: int | None = None,
) -> Explained:
    """The batch's cases, image by image, with their heatmaps.

    pad_to: a smaller batch is filled up by repeating its last image, so that a network computes a partial batch exactly
    as a full one and a run that was interrupted or sharded gives the same numbers to the last bit. budget: bytes that
    methods that ask more of the network may take at once (None: a quarter of the machine's memory).
    """
    images = batch.images
    if network is not None and probe is not None and view.augment != "none":
        found = [_explain_pieces(sample, network, probe, methods, view, budget) for sample in batch.samples]
        return _together(found, methods)
    if network is None or probe is None:
        cases, looked = [Case(sample, target) for sample in batch.samples for target in sample.annotation.classes], None
    else:
        fed = filled_up(images, probe, pad_to)
        annotations = [sample.annotation for sample in batch.samples]
        looked = _look(
            probe,
            fed,
            lambda logits: _asked(logits, annotations, view, network),
            network,
            methods,
            budget,
            annotations[0],
        )
        evidence = looked.evidence
        cases = _cases(batch.samples, evidence.logits, evidence.targets, evidence.image_index, network)
    index = torch.tensor([batch.samples.index(case.sample) for case in cases], dtype=torch.int64)
    inputs = _inputs(images, index, methods, looked)
    maps, costs = heatmaps_of(methods, Supplies(inputs, [case.id for case in cases], view.seed, looked))
    return Explained(cases, maps, costs)


def explain_again(
    batch: Batch,
    cases: Sequence[Case],
    network: Network,
    probe: Probe,
    methods: Sequence[Method],
    view: View,
    pad_to: int = 0,
    budget: int | None = None,
    targets: Callable[[Tensor, Tensor], Tensor] | None = None,
    looking: AbstractContextManager[None] | None = None,
) -> dict[str, Tensor]:
    """Heatmaps [Q,h,w] of a batch's known cases by a network that may have changed since they were first explained.

    network, probe: of the one that is asked, which need not be the one that the cases come from. targets: the classes
    [Q] from its logits [B,K] and the cases' images [Q] (default: the cases' own). looking: entered for the one look
    that methods share. The random numbers of methods are those of the first time: what differs is the network's doing.
    """
    index = torch.tensor([batch.samples.index(case.sample) for case in cases], dtype=torch.int64)
    own = torch.tensor([case.target for case in cases], dtype=torch.int64)

    def asked(logits: Tensor) -> tuple[Tensor, Tensor]:
        wanted = own if targets is None else targets(logits, index.to(logits.device))
        return wanted.to(logits.device), index.to(logits.device)

    with looking or nullcontext():
        example = batch.samples[0].annotation
        looked = _look(probe, filled_up(batch.images, probe, pad_to), asked, network, methods, budget, example)
    inputs = _inputs(batch.images, index, methods, looked)
    return heatmaps_of(methods, Supplies(inputs, [case.id for case in cases], view.seed, looked))[0]


def _together(found: Sequence[Explained], methods: Sequence[Method]) -> Explained:
    """Images that were explained one by one as a batch."""
    return Explained(
        [case for one in found for case in one.cases],
        {method.label: torch.cat([one.maps[method.label] for one in found]) for method in methods},
        {method.label: sum((one.costs[method.label] for one in found), Cost()) for method in methods},
    )


def _inputs(images: Tensor, index: Tensor, methods: Sequence[Method], looked: Looked | None) -> Tensor:
    """Each case's input [Q,3,H,W] on the network's device; where no method looks at it, something of its shape."""
    if not any("images" in method.takes for method in methods):
        return images[:1].expand(len(index), -1, -1, -1)
    return images[index] if looked is None else images[index].to(looked.images.device)


def _explain_pieces(
    sample: Sample, network: Network, probe: Probe, methods: Sequence[Method], view: View, budget: int | None
) -> Explained:
    """One sample's cases and heatmaps [Q,H,W] by way of its pieces (`augment`): one look at those of one size, so that
    no number depends on what else is in a batch. Methods that take nothing of the network see the whole picture."""
    recipe, crop = augment.RECIPES[view.augment], int(view.crop or 0)
    colours = network.preprocessing.mean, network.preprocessing.std
    groups = augment.pieces(sample.pixels, recipe, crop, colours)
    fed = [_fed(pieces, probe) for pieces in groups]
    ahead = [probe.forward(one) for one in fed] if len(fed) > 1 and view.target != "gt" else None

    def one_row(logits: Sequence[Tensor]) -> Tensor:
        return augment.mean_logits(torch.cat([one.float().cpu() for one in logits]), network.activation, recipe)

    def targets(logits: Tensor) -> tuple[Tensor, Tensor]:  # every class of every piece
        classes, _ = _asked(one_row(ahead or [logits]), [sample.annotation], view, network)
        index = torch.arange(len(logits)).repeat(len(classes))
        return classes.repeat_interleave(len(logits)).to(logits.device), index.to(logits.device)

    looks = [_look(probe, one, targets, network, methods, budget, sample.annotation) for one in fed]
    asked = looks[0].evidence.targets[:: len(fed[0])]
    row = one_row([looked.evidence.logits for looked in looks])
    cases = _cases([sample], row, asked, torch.zeros_like(asked), network)
    names = [case.id for case in cases]
    blind, looking = ([method for method in methods if method.sees == sees] for sees in (False, True))
    maps, costs = heatmaps_of(blind, Supplies(sample.pixels[None].expand(len(names), -1, -1, -1), names, view.seed))
    costs |= {method.label: Cost() for method in looking}
    found: dict[str, list[Tensor]] = {method.label: [] for method in looking}
    for number, (pieces, looked) in enumerate(zip(groups, looks, strict=True)):
        start = number * len(pieces)
        each = [f"{name}/{piece}" for name in names for piece in range(start, start + len(pieces))]
        inputs = _inputs(pieces, looked.evidence.image_index.cpu(), looking, looked)
        seen, paid = heatmaps_of(looking, Supplies(inputs, each, view.seed, looked))
        for label, grids in seen.items():
            found[label].append(grids.unflatten(0, (len(names), len(pieces))))
            costs[label] += paid[label]
    for method in looking:
        maps[method.label] = augment.merge(found[method.label], sample.frame.input, crop, method.rectify, recipe)
    return Explained(cases, maps, costs)


def heatmaps_of(methods: Sequence[Method], supplies: Supplies) -> tuple[dict[str, Tensor], dict[str, Cost]]:
    """Each method's heatmaps [Q,h,w] float32 on the CPU, and what they would cost alone (see `ledger`)."""
    maps, costs = {}, {}
    for method in methods:
        supplies.begins()
        before, start = replace(supplies.cost), time.perf_counter()
        maps[method.label] = _made(method, supplies)
        costs[method.label] = supplies.cost - before + Cost(seconds=time.perf_counter() - start)
    return maps, costs


def _made(method: Method, supplies: Supplies) -> Tensor:
    """What a method's function returned, if that is [Q,h,w]; whatever it raises becomes a sentence that names it."""
    if method.sees and supplies.looked is None:
        raise UserError(f"method {method.label} needs a model, and there is none (model=none)")
    if not supplies.names:
        return torch.zeros(supplies.shape)
    try:
        made = method.function(**supplies.of(method.label, method.takes))
    except Exception as error:
        if verdict(error):
            raise
        raise UserError(f"method {method.label} failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, Tensor) or made.ndim != 3 or len(made) != len(supplies.names):
        shape = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise UserError(f"method {method.label} must return heatmaps [{len(supplies.names)},h,w]; it returned {shape}")
    return made.detach().float().cpu()


def check(network: Network, probe: Probe, methods: Sequence[Method], size: int) -> dict[str, str]:
    """A dry run on random pixels: refuses a layer that cannot be explained, and returns the methods that refuse this
    network, with their sentences. Raises UserError listing the layers that would do, or if no method is left."""
    parameter = next(network.module.parameters())
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((2, 3, size, size), generator=generator).to(parameter.device, parameter.dtype)
    try:
        evidence = probe.look(images, [0, 0])[probe.layers[0]]
        if not evidence.gradients.any():
            raise UserError(f"layer {probe.layers[0]}: the class score's gradient is zero everywhere")
    except UserError as error:
        found = ", ".join(candidates(network.module, images)[:8]) or "none"
        raise UserError(f"{error}; layers of {network.name} that would do: {found}") from None
    except Exception as error:
        raise _failed(error, network, images) from error
    refused = {}
    for method in methods:
        try:
            record = bool(RECORD.intersection(method.takes))
            colour = network.preprocessing.black
            looked = shared_look(probe, images, [0, 0], None, record, None, True, network.activation, colour)
            heatmaps_of([method], Supplies(images, ["0", "1"], 0, looked))
        except UserError as error:
            refused[method.label] = str(error)
    if len(refused) == len(methods):
        raise UserError("; ".join(dict.fromkeys(refused.values())))
    return refused


def _asked(logits: Tensor, annotations: Sequence[Annotation], view: View, network: Network) -> tuple[Tensor, Tensor]:
    """The classes [Q] that the view asks of images with logits [B,K], and whose image each is [Q]."""
    if view.target in ("gt", "gt_and_predicted"):
        first = [(c,) for c in logits[: len(annotations)].argmax(1).tolist()] if view.target != "gt" else repeat(())
        both = [dict.fromkeys((*a.classes, *more)) for a, more in zip(annotations, first, strict=False)]
        pairs = [(c, b) for b, classes in enumerate(both) for c in classes]
        outside = [c for c, _ in pairs if not 0 <= c < logits.shape[1]]
        if outside:
            raise UserError(f"the data set has class {outside[0]}, the model only {logits.shape[1]} classes")
    elif not network.compares:
        raise UserError(f"view.target={view.target}: outputs of {network.name} answer questions of their own")
    elif view.target == "positives":
        pairs = [(c, b) for b, c in (network.probabilities(logits[: len(annotations)]) > 0.5).nonzero().tolist()]
    else:
        chosen = logits[: len(annotations)].topk(min(TOP[view.target], logits.shape[1])).indices.tolist()
        pairs = [(c, b) for b, classes in enumerate(chosen) for c in classes]
    columns = torch.tensor(pairs, dtype=torch.int64, device=logits.device).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def filled_up(images: Tensor, probe: Probe, pad_to: int) -> Tensor:
    """A batch as it is fed, with its last image repeated up to so many."""
    padding = max(pad_to - len(images), 0)
    return _fed(torch.cat([images, images[-1:].expand(padding, -1, -1, -1)]) if padding else images, probe)


def _fed(images: Tensor, probe: Probe) -> Tensor:
    """Images as the network takes them: on its device, in its precision, channels last."""
    like = next(probe.model.parameters())
    return images.to(like.device, like.dtype, non_blocking=True, memory_format=torch.channels_last)


def _look(
    probe: Probe,
    images: Tensor,
    targets: Any,
    network: Network,
    methods: Sequence[Method],
    budget: int | None,
    example: Annotation,
) -> Looked:
    """The one look that all methods share; whatever the model itself raises becomes a sentence that names an image."""
    record = any(RECORD.intersection(method.takes) for method in methods)
    try:
        answers, colour = network.activation, network.preprocessing.black
        looked = shared_look(probe, images, targets, None, record, budget, activation=answers, black=colour)
    except Exception as error:
        raise _failed(error, network, images, example.image_id) from error
    if images.device.type == "mps":  # it has no float64, which some methods need; the evidence is small
        looked = replace(looked, evidence=looked.evidence.cpu())
    return looked


def _failed(error: Exception, network: Network, images: Tensor, example: str = "") -> Exception:
    """Whatever the model itself raised as a sentence; what is not the model's fault (memory) as it is."""
    if verdict(error):
        return error
    such = f" such as {example}" if example else ""
    size = f"{images.shape[2]}x{images.shape[3]} input{such}"
    return UserError(f"model {network.name} fails on a {size}: {error}")


def _cases(
    samples: Sequence[Sample], logits: Tensor, targets: Tensor, image_index: Tensor, network: Network
) -> list[Case]:
    logits = logits.float().cpu()
    probabilities, predicted = network.probabilities(logits), logits.argmax(1)
    cases = []
    for target, b in zip(targets.tolist(), image_index.tolist(), strict=True):
        logit, probability = float(logits[b, target]), float(probabilities[b, target])
        if not network.compares:
            cases.append(Case(samples[b], target, logit, probability))
            continue
        annotated = samples[b].annotation.classes
        ranks = [_rank(logits[b], c) for c in (target, *annotated) if c < logits.shape[1]]
        best = min((rank for rank in ranks[1:] if rank is not None), default=None)
        cases.append(Case(samples[b], target, logit, probability, ranks[0], int(predicted[b]), best))
    return cases


def _rank(logits: Tensor, target: int) -> int | None:
    """How many outputs [K] come before that of the class: larger ones, and equal ones of a smaller index."""
    if not logits.isfinite().all():
        return None
    return int((logits > logits[target]).sum() + (logits[:target] == logits[target]).sum())
