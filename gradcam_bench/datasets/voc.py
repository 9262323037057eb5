"""PASCAL VOC devkits (2007, 2012), and whatever else is laid out like one.

    root/VOCdevkit/VOC2012/{JPEGImages/<id>.jpg|.png, Annotations/<id>.xml, ImageSets/Main/<split>.txt,
                            SegmentationClass/<id>.png, SegmentationObject/<id>.png}

Boxes in the XML are 1-based and inclusive: xmin=1, xmax=1 is the first column, (0, 1) half-open. Mask pictures hold
class or object numbers, 0 for background, 255 for pixels that count neither way. Segmentations have splits of their own
in ImageSets/Segmentation (2012: 1464 pictures to train, 1449 to validate). The 10582 of `train_aug`, with the masks of
Hariharan et al. 2011 (SBD), come as a list and a folder that is usually called SegmentationClassAug.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradcam_bench.annotations import voc_xml
from gradcam_bench.annotations.pictures import bare
from gradcam_bench.errors import UserError
from gradcam_bench.geometry import Size
from gradcam_bench.samples import Annotation, Picture, annotation, decode

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOID = 255


class Voc:
    """A VOC devkit. root: the folder that holds VOCdevkit/, or VOC<year>/, or a VOC<year>/ itself.

    split: a list's name in ImageSets/<lists>, or a text file (.txt) of one's own; of a line the first word counts, of a
    path its last part without suffix. masks: the folder of class masks; SegmentationObject belongs to SegmentationClass
    alone.
    """

    def __init__(
        self,
        root: str | Path | None,
        year: int = 2012,
        split: str = "val",
        classes: Sequence[str] = CLASSES,
        name: str = "voc",
        lists: str = "Main",
        masks: str = "SegmentationClass",
    ) -> None:
        if not root:
            raise UserError("dataset.root is missing: give the folder that holds VOCdevkit/")
        self.name, self.classes = name, tuple(classes)
        self.home = _home(Path(root).expanduser(), int(year))
        self.masks = self.home / masks
        own = Path(split).expanduser()
        listing = own if own.suffix == ".txt" else self.home / "ImageSets" / lists / f"{split}.txt"
        if not listing.is_file():
            there = sorted(path.stem for path in listing.parent.glob("*.txt"))
            raise UserError(f"dataset.split={split}: no {listing} (there: {', '.join(there) or 'none'})")
        lines = listing.read_text(encoding="utf-8").splitlines()
        self.ids = list(dict.fromkeys(bare(line.split()[0]) for line in lines if line.strip()))
        if not self.ids:
            raise UserError(f"{listing} names no image")
        if not self.masks.is_dir() and masks != "SegmentationClass":
            raise UserError(f"dataset.masks={masks}: no folder {self.masks}")

    def path(self, index: int) -> Path:
        """The file of a picture, which may be missing."""
        return self._picture(self.ids[index])

    def annotate(self, index: int, masks: bool = False) -> Annotation:
        image_id = self.ids[index]
        return self._annotation(image_id, None, masks)

    def read(self, index: int, masks: bool = False) -> Picture:
        image_id = self.ids[index]
        image, digest = decode(self._picture(image_id), voc_xml.declared(self._xml(image_id)))
        return Picture(image, digest, self._annotation(image_id, (image.height, image.width), masks))

    def fingerprint(self) -> str:
        """sha256 (16 hex digits) over ids, classes and the annotation files."""
        found = hashlib.sha256(repr((self.classes, self.ids)).encode())
        for image_id in self.ids:
            path = self.home / "Annotations" / f"{image_id}.xml"
            found.update(path.read_bytes() if path.is_file() else b"missing")
        return found.hexdigest()[:16]

    def _picture(self, image_id: str) -> Path:
        folder = self.home / "JPEGImages"
        for suffix in (".jpg", ".png", ".jpeg", ".JPEG"):
            if (folder / f"{image_id}{suffix}").is_file():
                return folder / f"{image_id}{suffix}"
        return folder / f"{image_id}.jpg"

    def _xml(self, image_id: str) -> Element:
        return voc_xml.read(self.home / "Annotations" / f"{image_id}.xml")

    def _annotation(self, image_id: str, actual: Size | None, masks: bool) -> Annotation:
        root = self._xml(image_id)
        declared = voc_xml.declared(root)
        size = actual or declared or _actual_size(self._picture(image_id))
        objects, problems = [], []
        if declared not in (None, size):
            problems.append(f"{image_id}: annotated on {_text(declared)} pixels, the picture has {_text(size)}")
        for number, (label, corners, difficult) in enumerate(voc_xml.objects(root)):
            if label not in self.classes or corners is None:
                problems.append(
                    f"{image_id}: object {number} ({label or 'no name'}) has no known class or no whole box"
                )
                continue
            x0, y0, x1, y1 = corners
            objects.append((self.classes.index(label), (x0 - 1, y0 - 1, x1, y1), difficult))
        found = self._masks(image_id, size) if masks else {}
        made = annotation(
            image_id, size, objects, classes=list(dict.fromkeys(label for label, _, _ in objects)), **found
        )
        return Annotation(**{**made.__dict__, "problems": (*problems, *made.problems)})

    def _masks(self, image_id: str, size: Size) -> dict[str, Tensor]:
        """Instance masks where SegmentationObject has them, else class masks; empty where there are none."""
        classes = _labels(self.masks / f"{image_id}.png", size)
        if classes is None:
            return {}
        whose = self.home / "SegmentationObject" / f"{image_id}.png"
        objects = _labels(whose, size) if self.masks.name == "SegmentationClass" else None
        numbers = classes if objects is None else objects
        masks, labels = [], []
        for number in np.unique(numbers):
            if number in (0, VOID):
                continue
            mask = numbers == number
            label = int(np.bincount(classes[mask]).argmax())
            if 0 < label <= len(self.classes):
                masks.append(torch.from_numpy(mask))
                labels.append(label - 1)
        stacked = torch.stack(masks) if masks else torch.zeros((0, *size), dtype=torch.bool)
        ignore = torch.from_numpy(classes == VOID)
        return {"masks": stacked, "mask_labels": torch.tensor(labels, dtype=torch.int64), "ignore": ignore}


def _home(root: Path, year: int) -> Path:
    for home in (root / "VOCdevkit" / f"VOC{year}", root / f"VOC{year}", root):
        if (home / "ImageSets").is_dir():
            return home
    raise UserError(f"dataset.root: no VOC{year} devkit in {root} (it should hold VOCdevkit/VOC{year}/ImageSets)")


def _actual_size(path: Path) -> Size:
    image, _ = decode(path)
    return image.height, image.width


def _text(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _labels(path: Path, size: Size) -> np.ndarray | None:
    """The numbers [H,W] uint8 in a palette picture, None where the file is not there."""
    if not path.is_file():
        return None
    try:
        with Image.open(path) as image:
            numbers = np.array(image, dtype=np.uint8)
    except Exception as error:  # as in samples.decode
        raise UserError(f"{path}: cannot be decoded ({error})") from None
    if numbers.ndim != 2:
        raise UserError(f"{path}: no palette or grey picture, as masks are")
    if numbers.shape != size:
        raise UserError(f"{path}: {_text(numbers.shape)} pixels, its picture has {_text(size)}")
    return numbers
