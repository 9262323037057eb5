"""Scenes with words: each case is a word of a picture's caption, or an answer to a question about it (`language`).

A class is a phrase in its sentence, or an answer to its question; its boxes and masks are those of the objects that it
names, so that "where is this class?" is "what did the network look at when it said this word?". `kinds` says of each
class what kind of word it is. The networks `captioner` and `answerer` have one output for each class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from gradcam_bench.errors import unknown
from gradcam_bench.language import Book, Objects, Painted, painted, phrasebook, questionnaire
from gradcam_bench.samples import Annotation, Picture, annotation


@dataclass(frozen=True)
class Words:
    """A `samples.Dataset`. classes: names, of which several may be the same word in other sentences; kinds: of each.
    only: the kinds of which there are cases, the others being there all the same as outputs; empty: all."""

    name: str
    book: Book[Any]
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind in self.only:
            if kind not in self.kinds:
                raise unknown("kind of dataset.kinds", kind, sorted(set(self.kinds)))

    @property
    def classes(self) -> tuple[str, ...]:
        absent = [" (absent)" if entry.kind.startswith("absent") else "" for entry in self.book.entries]
        return tuple(entry.said + note for entry, note in zip(self.book.entries, absent, strict=True))

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(entry.kind for entry in self.book.entries)

    @property
    def ids(self) -> Sequence[str]:
        return [f"scene_{index:06d}" for index in self.book.scenes]

    def read(self, index: int, masks: bool = False) -> Picture:
        scene = self._scene(index)
        digest = hashlib.sha256(f"{scene.image.shape}".encode() + scene.image.tobytes()).hexdigest()
        return Picture(Image.fromarray(scene.image), digest, self.annotate(index, masks))

    def annotate(self, index: int, masks: bool = False) -> Annotation:
        scene, named = self._scene(index), self._named(index)
        pairs = [(n, k) for n, objects in named for k in objects]
        boxes = [(n, scene.scene.boxes[k].tolist(), False) for n, k in pairs]
        classes = [n for n, _ in named]
        made = annotation(self.ids[index], scene.scene.instances.shape, boxes, classes)
        if not masks:
            return made
        instances = torch.from_numpy(scene.scene.instances)
        drawn = torch.stack([instances == k + 1 for _, k in pairs])
        return replace(made, masks=drawn, mask_labels=torch.tensor([n for n, _ in pairs], dtype=torch.int64))

    def _named(self, index: int) -> list[tuple[int, Objects]]:
        """A scene's entries that are cases, each with the objects that it names."""
        return [(n, k) for n, k in self.book.named[index] if not self.only or self.book.entries[n].kind in self.only]

    def _scene(self, index: int) -> Painted:
        found = painted(self.book.scenes[index], self.book.seed)
        assert found is not None  # the book holds clear scenes alone
        return found

    def fingerprint(self) -> str:
        """sha256 (16 hex digits) over pictures, words and what they name."""
        found = hashlib.sha256(repr((self.book.entries, self.book.named, *self.only)).encode())
        for index in range(len(self.ids)):
            found.update(self._scene(index).image.tobytes())
        return found.hexdigest()[:16]


def captions(split: str = "test", count: int = 40, name: str = "captions", kinds: Sequence[str] | None = None) -> Words:
    """The words of captions of a split's first `count` clear scenes. kinds: of words, of which there are cases."""
    return Words(name, phrasebook(split, count), tuple(kinds or ()))


def answers(split: str = "test", count: int = 60, name: str = "answers", kinds: Sequence[str] | None = None) -> Words:
    """Answers to questions about a split's first `count` clear scenes. kinds: of questions, as of `captions`."""
    return Words(name, questionnaire(split, count), tuple(kinds or ()))
