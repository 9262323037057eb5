"""Your own data: a folder of pictures, with `boxes.csv`, with COCO annotations, or with one subfolder a class.

    root/images/<image_id>.<jpg|png|...>      root/boxes.csv: image_id,class_index,x0,y0,x1,y1[,...]
    root/images/<file_name>                   root/annotations.json: COCO's instances format (file names as it has them)
    root/<class name>/<anything>.<jpg|png|...>                (no boxes: what needs boxes is not scored; no `.hidden`)

Boxes of the table are inclusive pixels, as in the ILSVRC and VOC annotations (a box of one pixel has x0 == x1); further
columns are ignored, but `width` and `height`, where given, say on which raster the boxes were drawn.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradcam_bench.annotations import coco, lists
from gradcam_bench.annotations.annotated import Annotated
from gradcam_bench.annotations.pictures import Pictures, holding, in_folder, without_suffix
from gradcam_bench.errors import UserError
from gradcam_bench.geometry import Size
from gradcam_bench.samples import Annotation, annotation

COLUMNS = ("image_id", "class_index", "x0", "y0", "x1", "y1")
MOST_CLASSES = 1_000_000  # an index beyond is a slip, such as a picture number in the wrong column


@dataclass(frozen=True)
class Rows:
    """What a table, or the class folders, say of each image id: (class, half-open box) pairs, the raster, or the class
    alone. A `Truth`."""

    boxes: Mapping[str, list[tuple[int, tuple[float, ...]]]]
    sizes: Mapping[str, Size]
    labels: Mapping[str, int]
    pictures: Pictures

    def size(self, image_id: str) -> Size | None:
        return self.sizes.get(image_id)

    def annotate(self, image_id: str, size: Size, masks: bool) -> Annotation:
        objects = [(label, box, False) for label, box in self.boxes.get(image_id, ())]
        alone = [self.labels[image_id]] if image_id in self.labels else []
        classes = list(dict.fromkeys(alone + [label for label, _, _ in objects]))
        return annotation(image_id, size, objects, classes=classes)

    def facts(self, image_id: str) -> Any:
        """With the size of the picture in bytes: one's own pictures change."""
        there = self.pictures.path(image_id).stat().st_size if image_id in self.pictures else None
        return self.boxes.get(image_id), self.labels.get(image_id), there


def folder(
    root: str | None,
    classes: str | Sequence[str] | None = None,
    annotations: str | None = None,
    name: str = "folder",
) -> Annotated:
    """The data set. classes: names in the order of the class indices, a list or a file with one a line. annotations: a
    COCO JSON elsewhere than in root/annotations.json."""
    if not root:
        raise UserError("dataset.root is missing: give the folder that holds images/ and boxes.csv, or class folders")
    home = lists.folder("dataset.root", root)
    given = lists.class_names(classes) if classes else ()
    table, instances = home / "boxes.csv", Path(annotations or home / "annotations.json").expanduser()
    if annotations or (instances.is_file() and not table.is_file()):
        made = _coco(home, instances)
    else:
        made = _table(home, table, given) if table.is_file() else _by_class(home, given)
    if given and len(made.classes) > len(given):
        raise UserError(f"dataset.classes names only {len(given)} classes, {instances} has {len(made.classes)}")
    if not made.ids:
        raise UserError(f"{home} holds no pictures: put them in images/ beside boxes.csv, or one folder a class")
    return replace(made, name=name, classes=given or made.classes)


def _coco(home: Path, path: Path) -> Annotated:
    truth = coco.read(path)
    place = holding(home, ("images", "."), list(truth.files.values()))
    pictures = Pictures(place, {image_id: place / file for image_id, file in truth.files.items()})
    return Annotated("", truth.classes, sorted(truth.files), truth, pictures)


def _table(home: Path, path: Path, given: tuple[str, ...]) -> Annotated:
    pictures = Pictures(home / "images", in_folder(home / "images"))
    try:
        rows = _read_rows(path, pictures)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: no readable CSV in UTF-8 ({error})") from None
    highest = max((label for boxes in rows.boxes.values() for label, _ in boxes), default=-1)
    if given and highest >= len(given):
        raise UserError(f"{path}: class_index {highest}, but dataset.classes names only {len(given)}")
    classes = given or tuple(str(index) for index in range(highest + 1))
    return Annotated("", classes, sorted({*rows.boxes, *(pictures.found or ())}), rows, pictures)


def _by_class(home: Path, given: tuple[str, ...]) -> Annotated:
    there = sorted(path.name for path in home.iterdir() if path.is_dir() and not path.name.startswith("."))
    if there == ["images"] and "images" not in given:
        raise UserError(f"{home} has images/ and neither boxes.csv nor annotations.json beside it, nor class folders")
    classes = given or tuple(there)
    found: dict[str, Path] = {}
    labels: dict[str, int] = {}
    for index, label in enumerate(classes):
        mine = in_folder(home / label, f"{label}/") if (home / label).is_dir() else {}
        found |= mine
        labels |= dict.fromkeys(mine, index)
    pictures = Pictures(home, found)
    return Annotated("", classes, sorted(found), Rows({}, {}, labels, pictures), pictures)


def _read_rows(path: Path, pictures: Pictures) -> Rows:
    boxes: dict[str, list[tuple[int, tuple[float, ...]]]] = {}
    sizes: dict[str, Size] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{path}: no column {', '.join(missing)} (needed: {', '.join(COLUMNS)})")
        for row in reader:
            line = reader.line_num
            image_id = row["image_id"] if row["image_id"] in (pictures.found or {}) else without_suffix(row["image_id"])
            label = lists.whole(path, line, row["class_index"] or "")
            if label >= MOST_CLASSES:
                raise UserError(f"{path}, line {line}: class_index {label}: that is no index of a class")
            x0, y0, x1, y1 = lists.finite(path, line, [row[column] or "" for column in COLUMNS[2:]])
            boxes.setdefault(image_id, []).append((label, (x0, y0, x1 + 1, y1 + 1)))
            if row.get("width") and row.get("height"):
                sizes[image_id] = lists.whole(path, line, row["height"], 1), lists.whole(path, line, row["width"], 1)
    return Rows(boxes, sizes, {}, pictures)
