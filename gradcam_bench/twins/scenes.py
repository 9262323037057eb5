"""Scenes to write in the layouts of data sets: `scenes(kind)` has `all` their objects, those of one `class`, or only
`one`, as a layout can hold it; and how a picture, a list and VOC's XML are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gradcam_bench.datasets.scenes import SPLIT_SEEDS, draw

COUNT = 6


@dataclass(frozen=True)
class Twin:
    """image [H,W,3] uint8; objects: label, half-open box, mask [H,W] bool of each."""

    image: NDArray[Any]
    labels: list[int]
    boxes: list[list[int]]
    masks: list[NDArray[Any]]

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def only(self, chosen: list[int]) -> Twin:
        labels, boxes = [self.labels[k] for k in chosen], [self.boxes[k] for k in chosen]
        return replace(self, labels=labels, boxes=boxes, masks=[self.masks[k] for k in chosen])


@dataclass(frozen=True)
class Written:
    """What to ask a reader for: the data set's name, its settings, and the image ids in the scenes' order."""

    dataset: str
    settings: dict[str, str]
    ids: list[str]


@cache
def scenes(kind: str = "all", count: int = COUNT) -> tuple[Twin, ...]:
    """The first `count` scenes of the test split, with the objects that `kind` keeps."""
    if kind == "all":
        return tuple(_twin(index) for index in range(count))
    keep = {"class": lambda twin: [k for k, label in enumerate(twin.labels) if label == twin.labels[0]]}
    return tuple(twin.only(keep.get(kind, lambda _: [0])(twin)) for twin in scenes("all", count))


def _twin(index: int) -> Twin:
    scene = draw(index, SPLIT_SEEDS["test"])
    masks = [scene.instances == k + 1 for k in range(len(scene.labels))]
    return Twin(scene.image, list(scene.labels), scene.boxes.tolist(), masks)


def biased(twins: tuple[Twin, ...]) -> tuple[Twin, ...]:
    """The same with a background whose shade goes with the class of the first object, so that a network could learn
    the one for the other."""
    made = []
    for twin in twins:
        image = twin.image.copy()
        background = ~np.any(twin.masks, axis=0)
        image[background] = image[background] // 2 + 12 * twin.labels[0]
        made.append(replace(twin, image=image))
    return tuple(made)


def picture(path: Path, twin: Twin) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(twin.image).save(path)


def text(path: Path, rows: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def xml(path: Path, twin: Twin, names: Sequence[str], first: int) -> None:
    """VOC's XML with inclusive corners that count from `first`."""
    height, width = twin.size
    objects = "".join(
        f"<object><name>{names[label]}</name><difficult>0</difficult><bndbox><xmin>{x0 + first}</xmin>"
        f"<ymin>{y0 + first}</ymin><xmax>{x1 - 1 + first}</xmax><ymax>{y1 - 1 + first}</ymax></bndbox></object>"
        for label, (x0, y0, x1, y1) in zip(twin.labels, twin.boxes, strict=True)
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    text(path, [f"<annotation><filename>{path.stem}</filename>{size}{objects}</annotation>"])
