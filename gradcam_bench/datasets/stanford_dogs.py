"""Stanford Dogs: 20,580 pictures of 120 breeds out of ImageNet (12,000 to train, 8580 to test), a box for every dog.

    root/Images/n02085620-Chihuahua/n02085620_5927.jpg
    root/Annotation/n02085620-Chihuahua/n02085620_5927       VOC's XML, without a suffix
    root/{train_list, test_list, file_list}.mat              the splits, as cell arrays of paths (root/lists/ will do)

An id is <folder>/<name without suffix>. The boxes are ImageNet's own annotation of these pictures, so their corners are
read as those are: inclusive pixels from 0. The breeds keep the numbers that they have among ImageNet's 1000 classes, so
that a network of ImageNet can be asked as it is; `numbering=own` counts them from 0 to 119 in the order of their
synsets, for one that was trained on the 120. (Such a network of ImageNet has seen pictures of both splits.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradcam_bench.annotations import matlab, synsets, voc_xml
from gradcam_bench.annotations.annotated import Annotated, chosen
from gradcam_bench.annotations.lists import folder
from gradcam_bench.annotations.pictures import Pictures, without_suffix
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.geometry import Size
from gradcam_bench.samples import Annotation, annotation

SPLITS = {"test": "test_list.mat", "train": "train_list.mat", "all": "file_list.mat"}
NUMBERINGS = ("imagenet", "own")


@dataclass(frozen=True)
class Dogs:
    """The folder of the XML files, and the class of each image id. A `Truth`."""

    home: Path
    labels: Mapping[str, int]

    def size(self, image_id: str) -> Size | None:
        return voc_xml.declared(voc_xml.read(self.home / image_id))

    def annotate(self, image_id: str, size: Size, masks: bool) -> Annotation:
        label, found, problems = self.labels[image_id], [], []
        for number, (_, corners, difficult) in enumerate(voc_xml.objects(voc_xml.read(self.home / image_id))):
            if corners is None:
                problems.append(f"{image_id}: object {number} has no whole box")
                continue
            x0, y0, x1, y1 = corners
            found.append((label, (x0, y0, x1 + 1, y1 + 1), difficult))
        made = annotation(image_id, size, found, classes=[label])
        return replace(made, problems=(*problems, *made.problems))

    def facts(self, image_id: str) -> Any:
        path = self.home / image_id
        return self.labels[image_id], path.read_bytes() if path.is_file() else None


def stanford_dogs(
    root: str | None = None,
    split: str = "test",
    numbering: str = "imagenet",
    subset: str | None = None,
    name: str = "stanford_dogs",
) -> Annotated:
    """The data set. subset: as for `imagenet`."""
    if not root:
        raise UserError("dataset.root is missing: give the folder that holds Images/, Annotation/ and the lists (.mat)")
    for setting, value, valid in (("split", split, SPLITS), ("numbering", numbering, NUMBERINGS)):
        if value not in valid:
            raise unknown(f"dataset.{setting}", value, valid)
    home = folder("dataset.root", root)
    for place in ("Images", "Annotation"):
        if not (home / place).is_dir():
            raise UserError(f"dataset.root: no {place}/ in {home}")
    found = {
        without_suffix(file): home / "Images" / file for file in matlab.strings(_listing(home, split), "file_list")
    }
    labels, classes = _numbered(
        sorted(place.name for place in (home / "Images").iterdir() if place.is_dir()), numbering
    )
    strange = next((image_id for image_id in found if image_id.partition("/")[0] not in labels), None)
    if strange:
        raise UserError(f"{home / 'Images'}: no folder of {strange}, which the list of `{split}` names")
    truth = Dogs(home / "Annotation", {image_id: labels[image_id.partition("/")[0]] for image_id in found})
    pictures = Pictures(home / "Images", found)
    return Annotated(name, classes, chosen(list(found), subset, pictures, home), truth, pictures)


def _listing(home: Path, split: str) -> Path:
    inside = home / "lists" / SPLITS[split]
    return inside if inside.is_file() else home / SPLITS[split]


def _numbered(folders: list[str], numbering: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """The class of each breed's folder, n02085620-Chihuahua, and the names of the classes."""
    if numbering == "own":
        names = tuple(place.partition("-")[2].replace("_", " ") for place in folders)
        return {place: number for number, place in enumerate(folders)}, names
    numbers = synsets.index()
    for place in folders:
        if place.partition("-")[0] not in numbers:
            raise UserError(f"{place}: no class of ImageNet has that synset (dataset.numbering=own needs none)")
    return {place: numbers[place.partition("-")[0]] for place in folders}, synsets.names()
