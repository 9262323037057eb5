"""Oxford-IIIT Pet: 37 breeds of cats and dogs, 3680 pictures to train and validate, 3669 to test, each with a trimap.

    root/images/<name>.jpg
    root/annotations/{trainval, test, list}.txt     name, class from 1, species, breed of the species, a line a picture
    root/annotations/trimaps/<name>.png             1 the pet, 2 background, 3 neither (its outline)
    root/annotations/xmls/<name>.xml                VOC's XML with a box of the *head*; trainval alone, some are missing

The mask is what the trimap calls the pet, its outline counts neither way. The published boxes are of heads, which is
not where a pet is; so by default (`boxes=body`) the box is the one that just holds the mask. `boxes=head` reads the
published ones, which count from 1 as VOC's do; a picture without one then has no box.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gradcam_bench.annotations import voc_xml
from gradcam_bench.annotations.annotated import Annotated, chosen
from gradcam_bench.annotations.lists import folder, lines, once, whole
from gradcam_bench.annotations.pictures import Pictures
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.geometry import Size
from gradcam_bench.samples import Annotation, annotation

CLASSES = 37
SPLITS = {"test": "test.txt", "trainval": "trainval.txt", "all": "list.txt"}
BOXES = ("body", "head")
PET, OUTLINE = 1, 3
Corners = tuple[float, ...]


@dataclass(frozen=True)
class Pets:
    """The folder of the annotations, the class of each image id, and which boxes are wanted. A `Truth`."""

    home: Path
    labels: Mapping[str, int]
    boxes: str

    def size(self, image_id: str) -> Size | None:
        return None

    def annotate(self, image_id: str, size: Size, masks: bool) -> Annotation:
        label = self.labels[image_id]
        trimap = self._trimap(image_id, size) if masks or self.boxes == "body" else None
        boxes = self._heads(image_id) if self.boxes == "head" else _around(trimap)
        found: dict[str, Any] = {}
        if masks and trimap is not None:
            found = {"masks": torch.from_numpy(trimap == PET)[None], "mask_labels": torch.tensor([label])}
            found["ignore"] = torch.from_numpy(trimap == OUTLINE)
        return annotation(image_id, size, [(label, box, False) for box in boxes], classes=[label], **found)

    def facts(self, image_id: str) -> Any:
        place = f"trimaps/{image_id}.png" if self.boxes == "body" else f"xmls/{image_id}.xml"
        path = self.home / place
        return self.labels[image_id], path.read_bytes() if path.is_file() else None

    def _trimap(self, image_id: str, size: Size) -> np.ndarray:
        path = self.home / "trimaps" / f"{image_id}.png"
        try:
            with Image.open(path) as image:
                numbers = np.array(image)
        except FileNotFoundError:
            raise UserError(f"{path}: no such trimap") from None
        except Exception as error:  # on bytes that are no picture decoders raise whatever they stumble over
            raise UserError(f"{path}: cannot be decoded ({error})") from None
        if numbers.shape != size:
            raise UserError(f"{path}: the trimap has the shape {numbers.shape}, its picture {size}")
        return numbers

    def _heads(self, image_id: str) -> list[Corners]:
        path = self.home / "xmls" / f"{image_id}.xml"
        found = voc_xml.objects(voc_xml.read(path)) if path.is_file() else ()
        return [(c[0] - 1, c[1] - 1, c[2], c[3]) for _, c, _ in found if c is not None]


def _around(trimap: np.ndarray | None) -> list[Corners]:
    """The box that just holds the pet; none where there is no pixel of one."""
    if trimap is None or not (trimap == PET).any():
        return []
    rows, columns = np.nonzero(trimap == PET)
    return [(columns.min(), rows.min(), columns.max() + 1.0, rows.max() + 1.0)]


def oxford_pet(
    root: str | None = None,
    split: str = "test",
    boxes: str = "body",
    subset: str | None = None,
    name: str = "oxford_pet",
) -> Annotated:
    """The data set. boxes: `body` or `head`. subset: as for `imagenet`."""
    if not root:
        raise UserError("dataset.root is missing: give the folder that holds images/ and annotations/")
    for setting, value, valid in (("split", split, SPLITS), ("boxes", boxes, BOXES)):
        if value not in valid:
            raise unknown(f"dataset.{setting}", value, valid)
    home = folder("dataset.root", root)
    labels = _labels(home / "annotations" / SPLITS[split])
    pictures = Pictures(home / "images", {image_id: home / "images" / f"{image_id}.jpg" for image_id in labels})
    ids = chosen(list(labels), subset, pictures, home)
    return Annotated(name, _names(labels), ids, Pets(home / "annotations", labels, boxes), pictures)


def _labels(path: Path) -> dict[str, int]:
    labels: dict[str, int] = {}
    for line, text in lines(path):
        if text.startswith("#"):  # the head of list.txt
            continue
        image_id, number = (*text.split(), "")[:2]
        label = whole(path, line, number, 1) - 1
        if label >= CLASSES:
            raise UserError(f"{path}, line {line}: class {number}, but there are only {CLASSES} classes")
        labels[once(path, line, image_id, labels)] = label
    return labels


def _names(labels: Mapping[str, int]) -> tuple[str, ...]:
    """Names by class, from those of the pictures: great_pyrenees_12 -> great pyrenees."""
    names = {label: image_id.rpartition("_")[0].replace("_", " ") for image_id, label in labels.items()}
    return tuple(names.get(label, str(label)) for label in range(CLASSES))
