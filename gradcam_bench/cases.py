"""Cases asked of a model's output: that they fit it, and the scores that are differentiated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradcam_bench.errors import UserError
from gradcam_bench.ledger import Cost

Score = Callable[[Any], Tensor]  # the model's output for the batch -> one number an image [B]


@dataclass(frozen=True)
class Asked:
    """The network itself, for methods of other libraries: module, target layer, targets [Q] (-1: a function).
    rehearsal: a dry run, of which only failures matter. grid: the size (h, w) of the layer's, where it is known. cost:
    what passes are added to."""

    module: nn.Module
    layer: str
    targets: Tensor
    rehearsal: bool = False
    grid: tuple[int, int] | None = None
    cost: Cost = field(default_factory=Cost)


def scores_in(output: Any) -> Tensor:
    """The scores [B,K,positions] in a model's output, a tensor, `.logits`, or the first of a tuple, that is [B,K] (one
    position) or [B,K,h,w]; empty if there are none."""
    found = getattr(output, "logits", output[0] if isinstance(output, tuple | list) and output else output)
    if not isinstance(found, Tensor) or found.ndim not in (2, 4):
        return torch.empty(0, 0, 1)
    return found.unsqueeze(2) if found.ndim == 2 else found.flatten(2)


def probabilities(logits: Tensor, activation: str) -> Tensor:
    """[N,K] in [0, 1] from logits [N,K]; activation: `softmax`, `sigmoid` where each class has its own, or `exp` where
    outputs are log-probabilities already, each of a question of its own. In single precision, or wider where the logits
    are."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if activation == "exp":
        return logits.exp()
    return logits.softmax(1) if activation == "softmax" else logits.sigmoid()


def case_scores(
    kind: str, scores: Tensor, functions: dict[int, Tensor], targets: Sequence[Any], rows: Tensor
) -> Tensor:
    """Each case's score [n], of the row that it asks of scores [B,K,positions]; kind: as `choices.View.score`.

    functions: what each target function, by its id, made of the output [B]. Only what is asked is touched: a score of
    another row or class that overflows spoils none.
    """
    if not any(callable(t) for t in targets):
        return _class_scores(kind, scores, rows, [int(t) for t in targets])
    values = [
        functions[id(t)][row] if callable(t) else _class_scores(kind, scores, row[None], [int(t)])[0]
        for t, row in zip(targets, rows, strict=True)
    ]
    return torch.stack(values)


def _class_scores(kind: str, scores: Tensor, rows: Tensor, classes: Sequence[int]) -> Tensor:
    if kind in ("softmax", "log_softmax"):
        scores = scores.mean(2, keepdim=True)
        scores = scores.softmax(1) if kind == "softmax" else scores.log_softmax(1)
    found = scores[rows, torch.tensor(classes, dtype=torch.int64, device=scores.device)]  # [n, positions]
    found = found.logsumexp(1) if kind == "log_sum_exp" else found.mean(1)
    return found.exp() if kind == "exp" else found.sigmoid() if kind == "sigmoid" else found


def unique_functions(targets: Any) -> list[Score]:
    return list({id(t): t for t in targets if callable(t)}.values())


def one_each(score: Any, images: int) -> Tensor:
    """What a target function returned, if it is one number an image [B]."""
    if not isinstance(score, Tensor) or score.shape != (images,):
        shape = list(score.shape) if isinstance(score, Tensor) else type(score).__name__
        raise UserError(f"a target function must return one number an image, shape [{images}]; it returned {shape}")
    return score


def ranks_of(image_index: Tensor) -> list[int]:
    """For each case, how many cases of the same image come before it."""
    seen: dict[int, int] = {}
    ranks = []
    for image in image_index.tolist():
        ranks.append(seen.get(image, 0))
        seen[image] = ranks[-1] + 1
    return ranks


def check_cases(images: Tensor, logits: Tensor, targets: Any, image_index: Tensor | None) -> Tensor:
    """image_index [Q] on the images' device, after checking that it, the targets and the images fit together."""
    if image_index is None:
        if len(targets) != len(images):
            raise UserError(f"{len(targets)} targets for {len(images)} images: give one each, or image_index too")
        image_index = torch.arange(len(images))
    if len(image_index) != len(targets):
        raise UserError(f"{len(targets)} targets but {len(image_index)} entries in image_index: give one each")
    index = torch.as_tensor(image_index, device=images.device, dtype=torch.int64)
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(images):
        raise UserError(
            f"image_index spans {int(index.min())} to {int(index.max())} but there are {len(images)} images"
        )
    for target in targets:
        if not callable(target) and not logits.shape[1]:
            raise UserError(f"target class {int(target)}: the model's output holds no scores [B,K] or [B,K,h,w]")
        if not callable(target) and not 0 <= int(target) < logits.shape[1]:
            raise UserError(f"target class {int(target)}: the model has classes 0 to {logits.shape[1] - 1}")
    return index
