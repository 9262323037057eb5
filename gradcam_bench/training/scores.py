"""What a training reports of an epoch: loss, accuracy, mean average precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F


def losses(logits: Tensor, targets: Tensor, several: bool) -> Tensor:
    """[B], one loss a picture, of logits [B,K] and targets [B,K] of 0 and 1.

    Cross-entropy, or with several classes the mean over classes of the binary one (`multilabel_soft_margin_loss`).
    """
    if several:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    return F.cross_entropy(logits, targets.argmax(1), reduction="none")


def right(logits: Tensor, targets: Tensor, several: bool) -> Tensor:
    """[B] bool: whether the first answer is the class; with several, whether every sigmoid is on its side of 0.5."""
    if several:
        return ((logits > 0) == (targets > 0.5)).all(1)
    return logits.argmax(1) == targets.argmax(1)


def mean_average_precision(logits: Tensor, targets: Tensor) -> float | None:
    """The mean over the classes that occur of the average precision: the mean, over a class' pictures, of the
    precision at each in the order of the logits (no interpolation; ties in the order given). None where none occurs."""
    found = []
    for scores, truth in zip(logits.T, targets.T > 0.5, strict=True):
        if truth.any():
            hits = truth[scores.argsort(descending=True, stable=True)].double()
            precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1, device=hits.device)
            found.append(float((precision * hits).sum() / hits.sum()))
    return sum(found) / len(found) if found else None


@dataclass
class Tally:
    """Running sums over an epoch's pictures. said: logits and targets, where they are kept for the whole."""

    several: bool
    keep: bool = False
    pictures: int = 0
    loss: float = 0.0
    correct: int = 0
    broken: list[str] = field(default_factory=list)
    said: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, logits: Tensor, targets: Tensor, each: Tensor) -> None:
        """One batch: logits [B,K], targets [B,K], the losses [B]."""
        self.pictures += len(logits)
        self.loss += float(each.detach().double().sum())
        self.correct += int(right(logits.detach(), targets, self.several).sum())
        if self.keep:
            self.said.append((logits.detach().float().cpu(), targets.cpu()))

    def merged(self, others: Sequence[Tally]) -> Tally:
        """The tallies of all processes as one."""
        whole = Tally(self.several, self.keep)
        for one in others:
            whole.pictures += one.pictures
            whole.loss += one.loss
            whole.correct += one.correct
            whole.broken += one.broken
            whole.said += one.said
        return whole

    def row(self, prefix: str = "") -> dict[str, float | int | None]:
        """Loss, accuracy and pictures by name; with several classes the mean average precision where it was kept."""
        count = max(self.pictures, 1)
        row: dict[str, float | int | None] = {
            f"{prefix}loss": self.loss / count,
            f"{prefix}accuracy": self.correct / count,
            f"{prefix}pictures": self.pictures,
        }
        if self.keep and self.several:
            logits, targets = (torch.cat(part) for part in zip(*self.said, strict=True)) if self.said else (None, None)
            found = mean_average_precision(logits, targets) if logits is not None and targets is not None else None
            row[f"{prefix}mean_average_precision"] = found
        return row
