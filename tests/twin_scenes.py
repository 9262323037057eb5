"""Six scenes to write in the layouts of data sets: `scenes(kind)` has `all` their objects, those of one `class`, or
only `one`, as a layout can hold it; and how a picture, a list and VOC's XML are written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from gradcam_bench.datasets.scenes import SPLIT_SEEDS, draw

COUNT = 6


@dataclass(frozen=True)
class Twin:
    """image [H,W,3]; objects: label, half-open box, mask [H,W] of each."""

    image: np.ndarray
    labels: list[int]
    boxes: list[list[int]]
    masks: list[np.ndarray]

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def only(self, chosen: list[int]) -> Twin:
        return replace(
            self, **{name: [getattr(self, name)[k] for k in chosen] for name in ("labels", "boxes", "masks")}
        )


@dataclass(frozen=True)
class Written:
    dataset: str
    settings: dict[str, str]
    ids: list[str]


@cache
def scenes(kind: str = "all") -> tuple[Twin, ...]:
    if kind == "all":
        return tuple(_twin(index) for index in range(COUNT))
    keep = {"class": lambda twin: [k for k, label in enumerate(twin.labels) if label == twin.labels[0]]}
    return tuple(twin.only(keep.get(kind, lambda _: [0])(twin)) for twin in scenes())


def _twin(index: int) -> Twin:
    scene = draw(index, SPLIT_SEEDS["test"])
    masks = [scene.instances == k + 1 for k in range(len(scene.labels))]
    return Twin(scene.image, list(scene.labels), scene.boxes.tolist(), masks)


def picture(path: Path, twin: Twin) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(twin.image).save(path)


def text(path: Path, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def xml(path: Path, twin: Twin, names: list[str], first: int) -> None:
    """VOC's XML with inclusive corners that count from `first`."""
    height, width = twin.size
    objects = "".join(
        f"<object><name>{names[label]}</name><difficult>0</difficult><bndbox><xmin>{x0 + first}</xmin>"
        f"<ymin>{y0 + first}</ymin><xmax>{x1 - 1 + first}</xmax><ymax>{y1 - 1 + first}</ymax></bndbox></object>"
        for label, (x0, y0, x1, y1) in zip(twin.labels, twin.boxes, strict=True)
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    text(path, [f"<annotation><filename>{path.stem}</filename>{size}{objects}</annotation>"])
