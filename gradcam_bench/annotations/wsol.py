"""The text lists of wsolevaluation (Choe et al. 2020), which hold the annotations of ImageNet, CUB and OpenImages.

    image_ids.txt      val/ILSVRC2012_val_00000001.JPEG
    class_labels.txt   val/ILSVRC2012_val_00000001.JPEG,65
    image_sizes.txt    val/ILSVRC2012_val_00000001.JPEG,500,375                width, height; empty for OpenImages
    localization.txt   val/ILSVRC2012_val_00000001.JPEG,111,108,441,193        x0, y0, x1, y1, a line a box
                       test/0bt9lr/1.jpg,test/0bt9lr/1_m0.png,test/0bt9lr/1_ignore.png     a line a mask

Corners are inclusive pixels from 0: their evaluator adds 1 to every side (evaluation.py, calculate_multiple_iou), no x1
reaches the width, and 6086 of the 80,477 boxes of `ILSVRC/test` end at width - 1. So 1 is added to x1 and y1 here, and
`protocol.iou=wsol` takes it off again. Only the first mask line of an image may name a picture of what to ignore.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gradcam_bench.annotations.lists import finite, folder, lines, once, table, whole
from gradcam_bench.annotations.pictures import Pictures, mask
from gradcam_bench.errors import UserError
from gradcam_bench.geometry import Size
from gradcam_bench.samples import Annotation, annotation

Corners = tuple[float, ...]
Masks = tuple[str, str]  # paths of an instance's mask and, or empty, of the region to ignore


@dataclass(frozen=True)
class Lists:
    """Annotations by image id. boxes: half-open; masks: below `pictures.folder`. A `Truth`."""

    home: Path
    ids: tuple[str, ...]
    labels: Mapping[str, int]
    sizes: Mapping[str, Size]
    boxes: Mapping[str, list[Corners]]
    masks: Mapping[str, list[Masks]]
    pictures: Pictures = field(default_factory=Pictures)

    def size(self, image_id: str) -> Size | None:
        return self.sizes.get(image_id)

    def annotate(self, image_id: str, size: Size, masks: bool) -> Annotation:
        label = self.labels[image_id]
        objects = [(label, box, False) for box in self.boxes.get(image_id, ())]
        found = self._masks(image_id, size) if masks and image_id in self.masks else {}
        return annotation(image_id, size, objects, classes=[label], **found)

    def facts(self, image_id: str) -> Any:
        return (
            self.labels[image_id],
            self.sizes.get(image_id),
            self.boxes.get(image_id),
            self.masks.get(image_id),
        )

    def _masks(self, image_id: str, size: Size) -> dict[str, Any]:
        """Masks are as large as the annotators' pictures were, so they are resized, as their evaluator does."""
        parts, ignore = [], torch.zeros(size, dtype=torch.bool)
        for part, ignored in self.masks[image_id]:
            parts.append(mask(self.pictures.path(part), size, resized=True))
            if ignored:
                ignore |= mask(self.pictures.path(ignored), size, resized=True)
        masks = torch.stack(parts)
        labels = torch.full((len(parts),), self.labels[image_id], dtype=torch.int64)
        return {"masks": masks, "mask_labels": labels, "ignore": ignore & ~masks.any(0)}


def home(metadata: str | Path, collection: str, split: str) -> Path:
    """The folder with the lists: `metadata` itself, or below it <split>, <collection>/<split>, or metadata/..."""
    given = folder("dataset.metadata", metadata)
    inside = ("", split, f"{collection}/{split}", f"metadata/{collection}/{split}")
    for place in inside:
        if (given / place / "image_ids.txt").is_file():
            return given / place
    raise UserError(f"dataset.metadata: no image_ids.txt in {given}, nor in its {', '.join(inside[1:])}")


def read(home: Path, classes: int, masks: bool = False, bare: Callable[[str], str] = str) -> Lists:
    """The lists in a folder. classes: how many there are. masks: localization.txt names masks, not boxes.

    bare: from an id as listed to the image id. Lines about images that image_ids.txt does not name are left aside, so
    that a shorter image_ids.txt is a subset.
    """
    ids: dict[str, None] = {}
    for number, line in lines(home / "image_ids.txt"):
        ids[once(home / "image_ids.txt", number, bare(line), ids)] = None
    if not ids:
        raise UserError(f"{home / 'image_ids.txt'} names no image")
    labels = _labels(home / "class_labels.txt", classes, bare)
    sizes = _sizes(home / "image_sizes.txt", bare)
    for what, known in (("class_labels", labels), ("image_sizes", sizes)):
        if known or what == "class_labels":
            missing = next((image_id for image_id in ids if image_id not in known), None)
            if missing is not None:
                raise UserError(f"{home / what}.txt: no line for {missing}, which image_ids.txt names")
    boxes = {} if masks else _boxes(home / "localization.txt", bare)
    parts = _masks(home / "localization.txt", bare) if masks else {}
    return Lists(home, tuple(ids), labels, sizes, boxes, parts)


def _labels(path: Path, classes: int, bare: Callable[[str], str]) -> dict[str, int]:
    labels: dict[str, int] = {}
    for number, (listed, text) in table(path, "image,class_index"):
        label = whole(path, number, text)
        if label >= classes:
            raise UserError(f"{path}, line {number}: class {label}, but there are only {classes} classes")
        labels[once(path, number, bare(listed), labels)] = label
    return labels


def _sizes(path: Path, bare: Callable[[str], str]) -> dict[str, Size]:
    sizes: dict[str, Size] = {}
    for number, (listed, *texts) in table(path, "image,width,height") if path.is_file() else ():
        width, height = (whole(path, number, text, 1) for text in texts)
        sizes[once(path, number, bare(listed), sizes)] = height, width
    return sizes


def _boxes(path: Path, bare: Callable[[str], str]) -> dict[str, list[Corners]]:
    boxes: dict[str, list[Corners]] = {}
    for number, (listed, *texts) in table(path, "image,x0,y0,x1,y1"):
        x0, y0, x1, y1 = finite(path, number, texts)
        boxes.setdefault(bare(listed), []).append((x0, y0, x1 + 1, y1 + 1))
    return boxes


def _masks(path: Path, bare: Callable[[str], str]) -> dict[str, list[Masks]]:
    masks: dict[str, list[Masks]] = {}
    for number, (listed, part, ignored) in table(path, "image,mask,ignored region"):
        if not part:
            raise UserError(f"{path}, line {number}: no mask of {listed} is named")
        masks.setdefault(bare(listed), []).append((part, ignored))
    return masks
