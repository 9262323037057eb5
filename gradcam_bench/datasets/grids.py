"""Mosaics: side x side pictures of different classes out of another data set, each class with its cell as its box.

GridPG, Rao, Böhle and Schiele 2022, sec. 3.1: a network that is sure of each picture by itself is shown all of them
side by side, so where the evidence for a class lies is known without annotation. They take pictures that all their
networks classify rightly with a probability of at least 0.99: give the cases.parquet of runs that say so.

A picture's shorter side is brought to 8/7 of the cell and its centre cut out, as 256 is to 224. Each picture is in one
mosaic at most, so there may be fewer of them than asked for. The view must leave mosaics as they are (resize: none).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gradcam_bench.errors import UserError
from gradcam_bench.files import read_table
from gradcam_bench.samples import Annotation, Dataset, Picture, annotation


@dataclass(frozen=True)
class Grids:
    """A `samples.Dataset`. mosaics: for each its cells in reading order, as (picture of the source, class).
    disconnected: each cell has `outputs` classes of its own, and only the first and the last are asked for."""

    name: str
    source: Dataset
    side: int
    cell: int
    mosaics: Sequence[tuple[tuple[int, int], ...]]
    disconnected: bool = False
    outputs: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        if not self.disconnected:
            return self.source.classes
        names = *self.source.classes, *(f"output {k}" for k in range(len(self.source.classes), self.outputs))
        return tuple(f"{name} in cell {n}" for n in range(self.side**2) for name in names)

    @property
    def ids(self) -> Sequence[str]:
        return [f"grid_{number:06d}" for number in range(len(self.mosaics))]

    def annotate(self, index: int, masks: bool = False) -> Annotation:
        objects = []
        for n, (_, label) in enumerate(self.mosaics[index]):
            x, y = float(self.cell * (n % self.side)), float(self.cell * (n // self.side))
            if self.disconnected:
                label += n * self.outputs
            if not self.disconnected or n in (0, self.side**2 - 1):
                objects.append((label, (x, y, x + self.cell, y + self.cell), False))
        return annotation(self.ids[index], (self.side * self.cell,) * 2, objects)

    def read(self, index: int, masks: bool = False) -> Picture:
        mosaic = Image.new("RGB", (self.side * self.cell,) * 2)
        digest = hashlib.sha256(f"{self.side}x{self.cell}".encode())
        for n, (number, _) in enumerate(self.mosaics[index]):
            picture = self.source.read(number)
            digest.update(picture.digest.encode())
            mosaic.paste(_cut(picture.image, self.cell), (self.cell * (n % self.side), self.cell * (n // self.side)))
        return Picture(mosaic, digest.hexdigest(), self.annotate(index))

    def fingerprint(self) -> str:
        facts: tuple[Any, ...] = self.source.fingerprint(), self.side, self.cell, tuple(self.mosaics)
        if self.disconnected:
            facts = *facts, self.outputs
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def grids(
    source: Any,
    side: int = 2,
    cell: int = 224,
    count: int = 500,
    cases: str | Sequence[str] | None = None,
    confidence: float = 0.99,
    seed: int = 0,
    disconnected: bool = False,
    outputs: int | None = None,
    name: str = "grids",
) -> Grids:
    """The data set. source: the data set whose pictures are used, those of one class. cases: a cases.parquet, or
    several, of runs on it: only pictures whose class is each one's first answer with at least `confidence`. count:
    mosaics at most. seed: of the draw. disconnected: for networks with a head for each cell.
    outputs: of each head, as many as the source has classes unless given."""
    if not hasattr(source, "annotate"):
        raise UserError("dataset.source is missing: choose a data set, as dataset@dataset.source=imagenet")
    if min(side, cell, count) < 1:
        raise UserError(f"dataset.side={side}, cell={cell}, count={count}: whole numbers from 1 on are needed")
    if disconnected and side < 2:
        raise UserError("dataset.disconnected=true needs cells beside the first: dataset.side of 2 or more")
    if outputs is not None and outputs < len(source.classes):
        raise UserError(f"dataset.outputs={outputs}: the source has {len(source.classes)} classes")
    paths = [cases] if isinstance(cases, str) else list(cases or ())
    sure = set.intersection(*(_sure_of(Path(path).expanduser(), confidence) for path in paths)) if paths else None
    by_class: dict[int, list[int]] = {}
    for number, image_id in enumerate(source.ids):
        if sure is None or image_id in sure:
            classes = source.annotate(number).classes
            if len(classes) == 1:
                by_class.setdefault(classes[0], []).append(number)
    mosaics = _drawn(by_class, side**2 - disconnected, count, np.random.default_rng(seed), repeated=disconnected)
    if not mosaics:
        raise UserError(
            f"dataset=grids: a mosaic takes pictures of {side**2 - disconnected} classes"
            f"{', two of one of them' if disconnected else ''}; there are {len(by_class)} with a picture "
            f"of one class{' that every run is sure of' if paths else ''}"
        )
    return Grids(name, source, side, cell, mosaics, disconnected, outputs or len(source.classes))


def _sure_of(path: Path, confidence: float) -> set[str]:
    """The images whose annotated class a run's network names first, with at least that probability."""
    try:
        table = read_table(path)
    except UserError:
        raise UserError(f"dataset.cases: {path} is no cases.parquet of a run") from None
    right = table[(table["rank"] == 0) & (table["probability"] >= confidence) & (table["target"].astype(str) == "gt")]
    return set(right["image_id"].astype(str))


def _drawn(
    by_class: dict[int, list[int]], cells: int, count: int, rng: np.random.Generator, repeated: bool = False
) -> list[tuple[tuple[int, int], ...]]:
    """Up to `count` draws of that many different classes, each with a picture that no other draw has. repeated: one
    more cell at the end, of the first one's class."""
    left = {label: rng.permutation(numbers).tolist() for label, numbers in sorted(by_class.items())}
    mosaics: list[tuple[tuple[int, int], ...]] = []
    while len(mosaics) < count and len(left) >= cells:
        chosen = rng.choice(sorted(left), cells, replace=False).tolist()
        if repeated:
            plenty = [label for label in sorted(left) if len(left[label]) > 1]
            if not plenty:
                break
            first = int(rng.choice(plenty))
            chosen = [first, *[label for label in chosen if label != first][: cells - 1], first]
        mosaics.append(tuple((left[label].pop(), label) for label in chosen))
        left = {label: numbers for label, numbers in left.items() if numbers}
    return mosaics


def _cut(image: Image.Image, cell: int) -> Image.Image:
    """The centre of a picture whose shorter side is brought to 8/7 of `cell`."""
    scale = cell * 8 / 7 / min(image.size)
    width, height = (max(round(side * scale), cell) for side in image.size)
    left, top = (width - cell) // 2, (height - cell) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + cell, top + cell))
