"""From a batch to heatmaps: one look, then every method on what it gave."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradcam_bench import augment
from gradcam_bench.answers import Case, asked_of, cases_of
from gradcam_bench.catalogue import Method
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError, verdict
from gradcam_bench.ledger import Cost
from gradcam_bench.models.network import Network
from gradcam_bench.probe import Probe
from gradcam_bench.samples import Annotation, Batch, Sample
from gradcam_bench.supplies import Looked, Supplies, shared_look

RECORD = {"head"}  # what the shared look has to be recorded for


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
            lambda logits: asked_of(logits, annotations, view, network),
            network,
            methods,
            budget,
            annotations[0],
        )
        evidence = looked.evidence
        cases = cases_of(batch.samples, evidence.logits, evidence.targets, evidence.image_index, network)
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
        classes, _ = asked_of(one_row(ahead or [logits]), [sample.annotation], view, network)
        index = torch.arange(len(logits)).repeat(len(classes))
        return classes.repeat_interleave(len(logits)).to(logits.device), index.to(logits.device)

    looks = [_look(probe, one, targets, network, methods, budget, sample.annotation) for one in fed]
    asked = looks[0].evidence.targets[:: len(fed[0])]
    row = one_row([looked.evidence.logits for looked in looks])
    cases = cases_of([sample], row, asked, torch.zeros_like(asked), network)
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
        made = method.function(**supplies.at(method.at).of(method.name, method.takes))
    except Exception as error:
        if verdict(error):
            raise
        raise UserError(f"method {method.label} failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, Tensor) or made.ndim != 3 or len(made) != len(supplies.names):
        shape = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise UserError(f"method {method.label} must return heatmaps [{len(supplies.names)},h,w]; it returned {shape}")
    return made.detach().float().cpu()


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
        return shared_look(probe, images, targets, None, record, budget, activation=answers, black=colour)
    except Exception as error:
        raise failed(error, network, images, example.image_id) from error


def failed(error: Exception, network: Network, images: Tensor, example: str = "") -> Exception:
    """Whatever the model itself raised as a sentence; what is not the model's fault (memory) as it is."""
    if verdict(error):
        return error
    such = f" such as {example}" if example else ""
    size = f"{images.shape[2]}x{images.shape[3]} input{such}"
    return UserError(f"model {network.name} fails on a {size}: {error}")
