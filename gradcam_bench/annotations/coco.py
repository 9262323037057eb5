"""COCO's instances JSON: images, categories, and annotations with a box (x, y, width, height) and a segmentation.

Coordinates are continuous, so a box is half-open as it stands. A segmentation is a list of polygons or a run-length
code (compressed or not); masks come from pycocotools. An annotation of a crowd has a mask and no box of one object: its
box is left aside, its class counts as present. Classes are numbered from 0 in the order of the category ids.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle

from gradcam_bench.annotations.pictures import without_suffix
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.geometry import Size
from gradcam_bench.samples import Annotation, annotation


@dataclass(frozen=True)
class Instance:
    """One annotation. box: half-open, None for a crowd. segmentation: polygons, a run-length code, or nothing."""

    number: Any
    label: int
    box: tuple[float, ...] | None
    segmentation: Any


@dataclass(frozen=True)
class Instances:
    """A file's annotations by image id, the file name without its suffix. A `Truth`. numbers: the file's own ids of the
    images; categories: those of the classes."""

    path: Path
    classes: tuple[str, ...]
    files: Mapping[str, str]
    sizes: Mapping[str, Size]
    objects: Mapping[str, list[Instance]]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    categories: tuple[int, ...] = ()

    def only(self, names: Sequence[str]) -> Instances:
        """The same with the classes of these names alone, numbered in their order; what else was there is left out."""
        for name in names:
            if name not in self.classes:
                raise unknown(f"class of {self.path.name}", name, self.classes)
        places = {self.classes.index(name): place for place, name in enumerate(names)}
        kept = {
            image_id: [replace(one, label=places[one.label]) for one in mine if one.label in places]
            for image_id, mine in self.objects.items()
        }
        categories = tuple(self.categories[label] for label in places)
        return replace(self, classes=tuple(names), objects=kept, categories=categories)

    def size(self, image_id: str) -> Size | None:
        return self.sizes.get(image_id)

    def annotate(self, image_id: str, size: Size, masks: bool) -> Annotation:
        mine = self.objects.get(image_id, [])
        boxes = [(one.label, one.box, False) for one in mine if one.box is not None]
        classes = list(dict.fromkeys(one.label for one in mine))
        found = self._masks(mine, size) if masks and any(one.segmentation for one in mine) else {}
        return annotation(image_id, size, boxes, classes=classes, **found)

    def facts(self, image_id: str) -> Any:
        return self.sizes.get(image_id), self.objects.get(image_id)

    def _masks(self, mine: list[Instance], size: Size) -> dict[str, Any]:
        drawn = [one for one in mine if one.segmentation]
        masks = [torch.from_numpy(self._mask(one, size)) for one in drawn]
        labels = torch.tensor([one.label for one in drawn], dtype=torch.int64)
        return {"masks": torch.stack(masks), "mask_labels": labels}

    def _mask(self, one: Instance, size: Size) -> np.ndarray:
        try:
            return _decode(one.segmentation, size)
        except Exception as error:  # pycocotools raises whatever it stumbles over
            why = str(error) or type(error).__name__
            raise UserError(
                f"{self.path}: the segmentation of annotation {one.number} cannot be read ({why})"
            ) from None


def _decode(segmentation: Any, size: Size) -> np.ndarray:
    """[H,W] bool. What pycocotools would take for something else, or crash on, is refused before it gets it."""
    if isinstance(segmentation, list):
        for polygon in segmentation:
            if len(polygon) < 6 or len(polygon) % 2 or not math.isfinite(sum(polygon)):
                raise ValueError(f"a polygon of {len(polygon)} numbers")
        code = rle.merge(rle.frPyObjects(segmentation, *size))
    else:
        height, width = segmentation["size"]
        if (height, width) != size:
            raise ValueError(f"the mask has {width}x{height} pixels, its picture {size[1]}x{size[0]}")
        code = segmentation
        if isinstance(segmentation["counts"], list):
            if sum(segmentation["counts"]) != height * width:
                raise ValueError(f"its runs do not add up to {width}x{height} pixels")
            code = rle.frPyObjects(segmentation, height, width)
    with warnings.catch_warnings():  # of pycocotools' own arrays, which know NumPy 1's protocol alone
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(rle.decode(code), dtype=bool)


def read(path: Path) -> Instances:
    """The annotations in an instances JSON. Raises UserError naming file and entry where it is not as it should be."""
    content = _load(path)
    numbers, classes = _categories(path, content["categories"])
    names: dict[Any, str] = {}
    files: dict[str, str] = {}
    sizes: dict[str, Size] = {}
    for entry in content["images"]:
        number, file = _field(path, "image", entry, "id"), str(_field(path, "image", entry, "file_name"))
        image_id = without_suffix(file)
        if number in names or image_id in files:
            raise UserError(f"{path}: image {number} ({file}) is listed twice")
        names[number], files[image_id] = image_id, file
        sides = entry.get("height"), entry.get("width")
        if sides != (None, None):
            if not all(isinstance(side, int) and side > 0 for side in sides):
                raise UserError(f"{path}: image {number} ({file}) has no whole height and width: {sides}")
            sizes[image_id] = sides  # type: ignore[assignment]
    objects: dict[str, list[Instance]] = {}
    for entry in content["annotations"]:
        number, image = entry.get("id"), _field(path, "annotation", entry, "image_id")
        if image not in names:
            raise UserError(f"{path}: annotation {number} is of image {image}, which the file does not list")
        objects.setdefault(names[image], []).append(_instance(path, entry, number, numbers))
    given = {image_id: number for number, image_id in names.items()}
    return Instances(path, classes, files, sizes, objects, given, tuple(sorted(numbers)))


def _instance(path: Path, entry: Mapping[str, Any], number: Any, numbers: Mapping[Any, int]) -> Instance:
    category = _field(path, "annotation", entry, "category_id")
    if category not in numbers:
        raise UserError(f"{path}: annotation {number} is of category {category}, which the file does not list")
    box = None
    if not entry.get("iscrowd"):
        given = _field(path, "annotation", entry, "bbox")
        try:
            x, y, width, height = (float(value) for value in given)
        except (TypeError, ValueError):
            x, y, width, height = [math.nan] * 4
        if not math.isfinite(x + y + width + height):
            raise UserError(f"{path}: the bbox of annotation {number} is not four numbers: {given}")
        box = x, y, x + width, y + height
    return Instance(number, numbers[category], box, entry.get("segmentation"))


def _categories(path: Path, entries: list[dict[str, Any]]) -> tuple[dict[Any, int], tuple[str, ...]]:
    """Category id -> class index, and the names in that order."""
    names: dict[Any, str] = {}
    for entry in entries:
        number = _field(path, "category", entry, "id")
        if number in names:
            raise UserError(f"{path}: category {number} is listed twice")
        names[number] = str(_field(path, "category", entry, "name"))
    return {number: index for index, number in enumerate(sorted(names))}, tuple(names[n] for n in sorted(names))


def _load(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such annotations") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: no readable JSON ({error})") from None
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f"{path}: no COCO annotations, which are a mapping with a list of '{key}'")
    return content


def _field(path: Path, what: str, entry: Mapping[str, Any], key: str) -> Any:
    value = entry.get(key)
    if value is None:
        raise UserError(f"{path}: {what} {entry.get('id', entry)} has no '{key}'")
    if key.endswith("id") and not isinstance(value, int if what == "category" else (int, str)):
        raise UserError(f"{path}: {what} {entry.get('id', entry)} has '{key}': {value!r}, which is no id")
    return value
