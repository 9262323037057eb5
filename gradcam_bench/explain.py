"""From a batch to heatmaps: one look, then every method on what it gave."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradcam_bench import crops
from gradcam_bench.catalogue import Method
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError, verdict
from gradcam_bench.models.network import Network
from gradcam_bench.probe import Evidence, Probe
from gradcam_bench.samples import Annotation, Batch, Sample

TOP = {"predicted": 1, "top5": 5}


@dataclass(frozen=True)
class Case:
    """One question, "where is this class?": a sample, a class, and what the model says of it (None without a model).

    rank: the place of the class among the outputs, 0 the first. best: the best rank of a class that is annotated.
    Both are None where an output is not finite."""

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


def explain_batch(
    batch: Batch, network: Network | None, probe: Probe | None, methods: Sequence[Method], view: View, pad_to: int = 0
) -> tuple[list[Case], dict[str, Tensor]]:
    """The batch's cases, image by image, and each method's heatmaps [Q,h,w], signed, float32, on the CPU.

    pad_to: a smaller batch is filled up by repeating its last image, so that a network computes a partial batch exactly
    as a full one and a run that was interrupted or sharded gives the same numbers to the last bit.
    """
    images = batch.images
    if network is not None and probe is not None and view.augment != "none":
        found = [_explain_crops(sample, network, probe, methods, view) for sample in batch.samples]
        cases = [case for mine, _ in found for case in mine]
        return cases, {method.label: torch.cat([maps[method.label] for _, maps in found]) for method in methods}
    if network is None or probe is None:
        cases = [Case(sample, target) for sample in batch.samples for target in sample.annotation.classes]
        evidence = None
    else:
        device = next(network.module.parameters()).device
        dtype = next(network.module.parameters()).dtype
        padding = max(pad_to - len(images), 0)
        fed = torch.cat([images, images[-1:].expand(padding, -1, -1, -1)]) if padding else images
        fed = fed.to(device, dtype, non_blocking=True, memory_format=torch.channels_last)
        annotations = [sample.annotation for sample in batch.samples]
        example = annotations[0].image_id
        evidence = _look(probe, fed, lambda logits: _asked(logits, annotations, view), network, example)
        if device.type == "mps":  # it has no float64, which some methods need; the evidence is small
            evidence = evidence.cpu()
        cases = _cases(batch.samples, evidence.logits, evidence.targets, evidence.image_index, network)
    index = torch.tensor([batch.samples.index(case.sample) for case in cases], dtype=torch.int64)
    seen = any("images" in method.takes for method in methods)
    inputs = images[index] if seen else images[:1].expand(len(cases), -1, -1, -1)  # only their shape is read
    return cases, heatmaps_of(methods, evidence, inputs, [case.id for case in cases], view.seed)


def _explain_crops(
    sample: Sample, network: Network, probe: Probe, methods: Sequence[Method], view: View
) -> tuple[list[Case], dict[str, Tensor]]:
    """One sample's cases and heatmaps [Q,H,W] by way of its ten crops: one look at them, so that no number depends on
    what else is in a batch. Methods that take nothing of the network see the whole picture."""
    recipe, parameter = crops.RECIPES[view.augment], next(network.module.parameters())
    pieces = crops.cut(sample.pixels, int(view.crop or 0))
    fed = pieces.to(parameter.device, parameter.dtype).contiguous(memory_format=torch.channels_last)

    def one_row(logits: Tensor) -> Tensor:
        return crops.mean_logits(logits.float().cpu(), network.activation, recipe)

    def targets(logits: Tensor) -> tuple[Tensor, Tensor]:  # every class of every crop
        classes, _ = _asked(one_row(logits), [sample.annotation], view)
        index = torch.arange(crops.COUNT).repeat(len(classes))
        return classes.repeat_interleave(crops.COUNT).to(logits.device), index.to(logits.device)

    evidence = _look(probe, fed, targets, network, sample.annotation.image_id)
    evidence = evidence.cpu() if parameter.device.type == "mps" else evidence
    asked = evidence.targets[:: crops.COUNT]
    cases = _cases([sample], one_row(evidence.logits), asked, torch.zeros_like(asked), network)
    return cases, _maps_of_crops(methods, evidence, pieces, sample, [case.id for case in cases], view)


def _maps_of_crops(
    methods: Sequence[Method], evidence: Evidence, pieces: Tensor, sample: Sample, names: Sequence[str], view: View
) -> dict[str, Tensor]:
    """Each method's heatmaps [Q,H,W] of Q cases: of the crops [10,3,h,w], merged, or of the whole picture."""
    blind = [method for method in methods if "evidence" not in method.takes]
    looking = [method for method in methods if method not in blind]
    maps = heatmaps_of(blind, None, sample.pixels[None].expand(len(names), -1, -1, -1), names, view.seed)
    each = [f"{name}/{crop}" for name in names for crop in range(crops.COUNT)]
    seen = heatmaps_of(looking, evidence, pieces.repeat(len(names), 1, 1, 1), each, view.seed)
    for method in looking:
        grids, recipe = seen[method.label].unflatten(0, (len(names), crops.COUNT)), crops.RECIPES[view.augment]
        maps[method.label] = crops.merge(grids, sample.frame.input, int(view.crop or 0), method.rectify, recipe)
    return maps


def heatmaps_of(
    methods: Sequence[Method], evidence: Evidence | None, images: Tensor, names: Sequence[str], seed: int
) -> dict[str, Tensor]:
    """Each method's heatmaps [Q,h,w] float32 on the CPU. images [Q,3,H,W]: each case's input; names: of the Q cases.

    A random method draws for each case from a generator seeded by (seed, method, case), whatever else is in the batch.
    """
    maps = {}
    for method in methods:
        shape = (len(names), images.shape[-2], images.shape[-1])
        supply: dict[str, object] = {"images": images, "evidence": evidence, "shape": shape}
        if "generators" in method.takes:
            supply["generators"] = [_generator(seed, method.label, name) for name in names]
        if "evidence" in method.takes and evidence is None:
            raise UserError(f"method {method.label} needs a model, and there is none (model=none)")
        maps[method.label] = _made(method, {name: supply[name] for name in method.takes}, len(names))
    return maps


def _made(method: Method, supply: dict[str, object], count: int) -> Tensor:
    """What a method's function returned, if that is [Q,h,w]; whatever it raises becomes a sentence that names it."""
    try:
        made = method.function(**supply)
    except Exception as error:
        if verdict(error):
            raise
        raise UserError(f"method {method.label} failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, Tensor) or made.ndim != 3 or len(made) != count:
        shape = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise UserError(f"method {method.label} must return heatmaps [{count},h,w]; it returned {shape}")
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
        raise UserError(
            f"{error}; layers of {network.name} that would do: {', '.join(probe.candidates(images)[:8]) or 'none'}"
        ) from None
    except Exception as error:
        raise _failed(error, network, images) from error
    refused = {}
    for method in methods:
        try:
            heatmaps_of([method], evidence, images, ["0", "1"], 0)
        except UserError as error:
            refused[method.label] = str(error)
    if len(refused) == len(methods):
        raise UserError("; ".join(dict.fromkeys(refused.values())))
    return refused


def _asked(logits: Tensor, annotations: Sequence[Annotation], view: View) -> tuple[Tensor, Tensor]:
    """The classes [Q] that the view asks of images with logits [B,K], and whose image each is [Q]."""
    if view.target == "gt":
        pairs = [(c, b) for b, annotation in enumerate(annotations) for c in annotation.classes]
        outside = [c for c, _ in pairs if not 0 <= c < logits.shape[1]]
        if outside:
            raise UserError(f"the data set has class {outside[0]}, the model only {logits.shape[1]} classes")
    else:
        chosen = logits[: len(annotations)].topk(min(TOP[view.target], logits.shape[1])).indices.tolist()
        pairs = [(c, b) for b, classes in enumerate(chosen) for c in classes]
    columns = torch.tensor(pairs, dtype=torch.int64, device=logits.device).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def _look(probe: Probe, images: Tensor, targets: Any, network: Network, example: str) -> Evidence:
    """The probe's one look; whatever the model itself raises becomes a sentence that names an image."""
    try:
        return probe.look(images, targets)[probe.layers[0]]
    except Exception as error:
        raise _failed(error, network, images, example) from error


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


def _generator(seed: int, label: str, name: str) -> torch.Generator:
    state = hashlib.sha256(f"{seed}/{label}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(state[:8], "big") >> 1)
