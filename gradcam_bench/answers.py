"""What a view asks of images, and what the network said of it: which classes become cases, and each case's facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.models.network import Network
from gradcam_bench.samples import Annotation, Sample

TOP = {"predicted": 1, "top5": 5}


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


def asked_of(logits: Tensor, annotations: Sequence[Annotation], view: View, network: Network) -> tuple[Tensor, Tensor]:
    """The classes [Q] that the view asks of images with logits [B,K], and whose image each is [Q]."""
    if view.target in ("gt", "gt_and_predicted"):
        first = [(c,) for c in logits[: len(annotations)].argmax(1).tolist()] if view.target != "gt" else repeat(())
        both = [dict.fromkeys((*a.classes, *more)) for a, more in zip(annotations, first, strict=False)]
        pairs = [(c, b) for b, classes in enumerate(both) for c in classes]
        outside = [c for c, _ in pairs if not 0 <= c < logits.shape[1]]
        if outside:
            has = f"{logits.shape[1]} classes (0 to {logits.shape[1] - 1})"
            raise UserError(f"class {outside[0]} is asked for, and the model has {has}")
    elif not network.compares:
        raise UserError(f"view.target={view.target}: outputs of {network.name} answer questions of their own")
    elif view.target == "positives":
        pairs = [(c, b) for b, c in (network.probabilities(logits[: len(annotations)]) > 0.5).nonzero().tolist()]
    else:
        chosen = logits[: len(annotations)].topk(min(TOP[view.target], logits.shape[1])).indices.tolist()
        pairs = [(c, b) for b, classes in enumerate(chosen) for c in classes]
    columns = torch.tensor(pairs, dtype=torch.int64, device=logits.device).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def cases_of(
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
