"""Targets for `explain` that are functions of the model's output: anything differentiable can be asked about.

    gb.explain(captioner, images, [gb.targets.phrase(captioner, "a red ring", 2)], layer="eyes.look")

Each maker returns a function of what the model returned for a batch of B images to one number an image, [B]. Grad-CAM
of it says where in the picture that number comes from (Selvaraju et al. 2020, sec. 3: any differentiable activation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torchvision.ops import box_iou

from gradcam_bench.errors import UserError

Target = Callable[[Any], Tensor]


class Captions(Protocol):
    def score(self, seen: Tensor, words: Sequence[str], start: int = 0) -> Tensor: ...


class Answers(Protocol):
    def score(self, seen: Tensor, question: Sequence[str], answer: str) -> Tensor: ...


def phrase(captioner: Captions, sentence: str | Sequence[str], start: int = 0, stop: int | None = None) -> Target:
    """log p(words start to stop - 1 | the words before, image), stop None: to the end of the sentence.

    `captioner(images)` is what is seen; `captioner.score(seen, words, start)` the log-probabilities [B] of
    words[start:] after words[:start]. A word alone is start=t, stop=t + 1.  Selvaraju et al. 2020, sec. 8.1.
    """
    words = tuple(sentence.split() if isinstance(sentence, str) else sentence)
    end = len(words) if stop is None else stop
    if not 0 <= start < end <= len(words):
        raise UserError(f"words {start} to {stop} of a sentence of {len(words)} words: give 0 <= start < stop")
    return lambda seen: captioner.score(seen, words[:end], start)


def answer(answerer: Answers, question: str | Sequence[str], answer: str) -> Target:
    """log p(answer | question, image): `answerer.score` of what `answerer(images)` saw.  Selvaraju et al. 2020, 8.2."""
    words = tuple(question.rstrip("?").split() if isinstance(question, str) else question)
    return lambda seen: answerer.score(seen, words, answer)


def segmentation(index: int, mask: Tensor | None = None, key: str = "out") -> Target:
    """A class' logits [B,K,H,W] summed over the pixels of mask [H,W] (None: over all), as in torchvision's `["out"]`.

    Vinogradova et al. 2020 (Seg-Grad-CAM), eq. 3.
    """

    def score(output: Any) -> Tensor:
        logits = output[key] if isinstance(output, Mapping) else output
        if not isinstance(logits, Tensor) or logits.ndim != 4 or not 0 <= index < logits.shape[1]:
            raise UserError(f"class {index} of a segmentation: the model's output holds no logits [B,K,H,W] of it")
        chosen = logits[:, index]
        if mask is not None and mask.shape != chosen.shape[1:]:
            raise UserError(f"a mask {list(mask.shape)} for logits of {list(chosen.shape[1:])} pixels")
        return (chosen if mask is None else chosen * mask.to(chosen)).sum((1, 2))

    return score


def detection(box: Tensor | Sequence[float], label: int) -> Target:
    """The score of the detection of a label that overlaps box (xyxy, input pixels) most, as torchvision's detectors
    list them. Raises UserError where an image has no detection of the label.

    Which detection that is does not depend on the gradient; detectors that take a list of images take a batch as well.
    """
    place = torch.as_tensor(box, dtype=torch.float32).reshape(1, 4)

    def score(output: Sequence[Mapping[str, Tensor]]) -> Tensor:
        scores = []
        for number, found in enumerate(output):
            mine = (found["labels"] == label).nonzero()[:, 0]
            if not len(mine):
                raise UserError(f"image {number} of the batch has no detection of label {label}")
            overlaps = box_iou(found["boxes"].detach()[mine], place.to(found["boxes"]))[:, 0]
            scores.append(found["scores"][mine[overlaps.argmax()]])
        return torch.stack(scores)

    return score


def embedding(vector: Tensor) -> Target:
    """The cosine between an image's embedding [B,D] and a vector [D]: of another image, of a text."""
    if vector.ndim != 1:
        raise UserError(f"an embedding to compare with must be [D], got {list(vector.shape)}")
    return lambda embedded: cosine_similarity(embedded, vector.to(embedded)[None])
