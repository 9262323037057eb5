"""COCO (2014, 2017): 80 classes, boxes and masks of every instance, crowds marked.

    root/annotations/instances_<split>.json
    root/<split>/000000000139.jpg              or root/images/<split>/

An id is the file's name without suffix. How boxes, crowds and masks are read: `annotations.coco`.
"""

from __future__ import annotations

from pathlib import Path

from gradcam_bench.annotations import coco as instances
from gradcam_bench.annotations import groups
from gradcam_bench.annotations.annotated import Annotated, chosen
from gradcam_bench.annotations.lists import folder
from gradcam_bench.annotations.pictures import Pictures, holding, without_suffix
from gradcam_bench.errors import UserError


def coco(
    root: str | None = None,
    split: str = "val2017",
    annotations: str | None = None,
    subset: str | None = None,
    name: str = "coco",
    classes: str | None = None,
) -> Annotated:
    """The data set. annotations: an instances JSON elsewhere (root may then be missing). subset: as for `imagenet`.
    classes: only those that a file names, in its order (`annotations.groups`); all else counts as background."""
    if not root and not annotations:
        raise UserError("dataset.root is missing: give the folder that holds annotations/ and the pictures' folder")
    home = folder("dataset.root", root) if root else None
    path = Path(annotations or f"{home}/annotations/instances_{split}.json").expanduser()
    if not path.is_file():
        there = sorted(other.stem.removeprefix("instances_") for other in path.parent.glob("instances_*.json"))
        raise UserError(f"dataset.split={split}: no {path} (there: {', '.join(there) or 'none'})")
    truth = instances.read(path)
    if classes is not None:
        truth = truth.only(list(groups.read(classes, "dataset.classes")))
    files = list(truth.files.values())
    place = holding(home, (split, f"images/{split}", "images", "."), files) if home else None
    found = {image_id: place / file for image_id, file in truth.files.items()} if place else None
    pictures = Pictures(place, found)
    return Annotated(
        name, truth.classes, chosen(list(truth.files), subset, pictures, path, without_suffix), truth, pictures
    )
