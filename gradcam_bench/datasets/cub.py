"""CUB-200-2011, and CUBV2, which Choe et al. (2020) collected for validation: 200 kinds of birds, one box a picture.

    root/CUB_200_2011/{images.txt, image_class_labels.txt, classes.txt, train_test_split.txt, bounding_boxes.txt}
    root/CUB_200_2011/images/001.Black_footed_Albatross/<name>.jpg
    root/CUB_200_2011/segmentations/001.Black_footed_Albatross/<name>.png     (or root/segmentations/)
    metadata/CUB/{test, val, train}/         or the text lists of wsolevaluation: `val` is CUBV2, which has no others

An id is <folder>/<name>.jpg. A box is published as x, y, width, height; the text lists have x + width and y + height as
inclusive corners (60, 27, 325, 304 became 60, 27, 385, 331), so here 1 is added to both, from either source, and the
box is cut off at the picture's edge. A segmentation is grey, by how many annotators agreed: half or more (128 of 255)
is the object here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gradcam_bench.annotations import wsol
from gradcam_bench.annotations.annotated import Annotated, chosen
from gradcam_bench.annotations.lists import finite, folder, once, table, whole
from gradcam_bench.annotations.pictures import Pictures, first_folder, holding, mask
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.geometry import Size
from gradcam_bench.samples import Annotation, annotation

SPLITS = {"train": "1", "test": "0"}  # as train_test_split.txt has them
CLASSES = 200


@dataclass(frozen=True)
class Birds:
    """Class and half-open box by image id, and the folder of the segmentations, where there is one. A `Truth`."""

    labels: Mapping[str, int]
    boxes: Mapping[str, tuple[float, ...]]
    segmentations: Path | None

    def size(self, image_id: str) -> Size | None:
        return None

    def annotate(self, image_id: str, size: Size, masks: bool) -> Annotation:
        label, found = self.labels[image_id], {}
        if masks and self.segmentations:
            seen = mask((self.segmentations / image_id).with_suffix(".png"), size, least=128)
            found = {"masks": seen[None], "mask_labels": torch.tensor([label])}
        return annotation(image_id, size, [(label, self.boxes[image_id], False)], classes=[label], **found)

    def facts(self, image_id: str) -> Any:
        return self.labels[image_id], self.boxes[image_id]


def cub(
    root: str | None = None,
    metadata: str | None = None,
    split: str = "test",
    subset: str | None = None,
    name: str = "cub",
) -> Annotated:
    """The data set. root may be missing where metadata is given. subset: as for `imagenet`."""
    if not root and not metadata:
        raise UserError(
            "dataset.root is missing: give the folder that holds CUB_200_2011/, or dataset.metadata=DIR with text lists"
        )
    home = folder("dataset.root", root) if root else None
    if metadata:
        lists = wsol.read(wsol.home(metadata, "CUB", split), CLASSES)
        pictures = Pictures(_pictures(home, lists.ids))
        ids = chosen(lists.ids, subset, pictures, lists.home)
        return Annotated(name, _names(lists.labels), ids, lists, pictures)
    if split not in SPLITS:
        raise unknown("dataset.split", split, SPLITS)
    home = _home(home) if home else Path()
    birds, ids = _official(home, split)
    pictures = Pictures(_pictures(home, ids))
    return Annotated(name, _names(birds.labels), chosen(ids, subset, pictures, home), birds, pictures)


def _home(root: Path) -> Path:
    for home in (root / "CUB_200_2011", root):
        if (home / "images.txt").is_file():
            return home
    raise UserError(f"dataset.root: no CUB_200_2011/images.txt in {root} (for text lists give dataset.metadata=DIR)")


def _pictures(root: Path | None, ids: Any) -> Path | None:
    return holding(root, ("CUB_200_2011/images", "images", "CUBV2", "CUB", "."), ids) if root else None


def _official(home: Path, split: str) -> tuple[Birds, list[str]]:
    """What the published tables say, and the ids of a split in their order. Tables name a picture by a number."""
    names = {number: fields[0] for number, (_, fields) in _read(home / "images.txt", "number,file").items()}
    sides = _read(home / "train_test_split.txt", "number,is_training", names)
    labels, boxes = {}, {}
    path = home / "image_class_labels.txt"
    for number, (line, fields) in _read(path, "number,class", names).items():
        labels[names[number]] = whole(path, line, fields[0], 1) - 1
        if labels[names[number]] >= CLASSES:
            raise UserError(f"{path}, line {line}: class {fields[0]}, but there are only {CLASSES} classes")
    path = home / "bounding_boxes.txt"
    for number, (line, fields) in _read(path, "number,x,y,width,height", names).items():
        x, y, width, height = finite(path, line, fields)
        boxes[names[number]] = x, y, x + width + 1, y + height + 1
    segmentations = first_folder(home, ("segmentations", "../segmentations"))
    mine = [file for number, file in names.items() if sides[number][1][0] == SPLITS[split]]
    return Birds(labels, boxes, segmentations), mine


def _read(path: Path, fields: str, names: Mapping[str, str] | None = None) -> dict[str, tuple[int, list[str]]]:
    """number -> (line, other fields) of a table; with names, refused where one of those has no line."""
    found: dict[str, tuple[int, list[str]]] = {}
    for line, (number, *rest) in table(path, fields, None):
        if names is None or number in names:
            found[once(path, line, number, found)] = line, rest
    for number, file in (names or {}).items():
        if number not in found:
            raise UserError(f"{path}: no line for {number} ({file}), which images.txt names")
    return found


def _names(labels: Mapping[str, int]) -> tuple[str, ...]:
    """Names by class from the folders of the pictures: 001.Black_footed_Albatross -> Black footed Albatross."""
    folders = {label: image_id.partition("/")[0] for image_id, label in labels.items()}
    plain = {label: re.sub(r"^\d+\.", "", place).replace("_", " ") for label, place in folders.items()}
    return tuple(plain.get(label, str(label)) for label in range(CLASSES))
