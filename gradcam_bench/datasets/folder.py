"""Your own data: a folder of pictures, with `boxes.csv` or with one subfolder a class.

    root/images/<image_id>.<jpg|png|...>      root/boxes.csv: image_id,class_index,x0,y0,x1,y1[,...]
    root/<class name>/<anything>.<jpg|png|...>                (no boxes: what needs boxes is not scored)

Boxes are inclusive pixels, as in the ILSVRC and VOC annotations (a box of one pixel has x0 == x1); further columns are
ignored, but `width` and `height`, where given, say on which raster the boxes were drawn.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path

from gradcam_bench.errors import UserError
from gradcam_bench.geometry import Size
from gradcam_bench.samples import Annotation, Picture, annotation, decode

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
WORDNET = re.compile(r"^n\d{8}\s+")  # ImageNet's lists put the synset before the name
COLUMNS = ("image_id", "class_index", "x0", "y0", "x1", "y1")


class Folder:
    """A dataset in a folder. classes: names in the order of the class indices, a list or a file with one a line."""

    def __init__(self, root: str | None, classes: str | Sequence[str] | None = None, name: str = "folder") -> None:
        if not root:
            raise UserError(
                "dataset.root is missing: give the folder that holds images/ and boxes.csv, or class folders"
            )
        self.name, self.root = name, Path(root).expanduser()
        if not self.root.is_dir():
            raise UserError(f"dataset.root: {self.root} is no folder")
        self._boxes: dict[str, list[tuple[int, tuple[float, ...], bool]]] = {}
        self._sizes: dict[str, Size] = {}
        self._labels: dict[str, int] = {}
        given = _read_classes(classes) if classes else ()
        table = self.root / "boxes.csv"
        if table.is_file():
            self._paths = _pictures(self.root / "images")
            try:
                self._read_boxes(table)
            except (UnicodeDecodeError, csv.Error) as error:
                raise UserError(f"{table}: no readable CSV in UTF-8 ({error})") from None
            highest = max((label for boxes in self._boxes.values() for label, _, _ in boxes), default=-1)
            self.classes = given or tuple(str(index) for index in range(highest + 1))
            if highest >= len(self.classes):
                raise UserError(f"{table}: class_index {highest}, but dataset.classes names only {len(self.classes)}")
            self.ids: list[str] = sorted(set(self._boxes) | set(self._paths))
        else:
            self.classes = given or tuple(sorted(p.name for p in self.root.iterdir() if p.is_dir()))
            self._paths = {}
            for index, label in enumerate(self.classes):
                for stem, path in _pictures(self.root / label, missing_ok=bool(given)).items():
                    self._paths[f"{label}/{stem}"] = path
                    self._labels[f"{label}/{stem}"] = index
            self.ids = sorted(self._paths)
        if not self.ids:
            raise UserError(
                f"{self.root} holds no pictures: put them in images/ beside boxes.csv, or one folder a class"
            )

    def annotate(self, index: int, masks: bool = False) -> Annotation:
        image_id = self.ids[index]
        size = self._sizes.get(image_id)
        return self._annotation(image_id, size or self.read(index).annotation.size)

    def read(self, index: int, masks: bool = False) -> Picture:
        image_id = self.ids[index]
        if image_id not in self._paths:
            raise UserError(f"{self.root / 'boxes.csv'}: no picture named {image_id} in {self.root / 'images'}")
        image, digest = decode(self._paths[image_id], self._sizes.get(image_id))
        return Picture(image, digest, self._annotation(image_id, (image.height, image.width)))

    def fingerprint(self) -> str:
        """sha256 (16 hex digits) over ids, classes, boxes and the pictures' sizes in bytes."""
        facts = [(i, self._boxes.get(i), self._labels.get(i), _bytes(self._paths.get(i))) for i in self.ids]
        return hashlib.sha256(repr((self.classes, facts)).encode()).hexdigest()[:16]

    def _annotation(self, image_id: str, size: Size) -> Annotation:
        if image_id in self._labels:
            return annotation(image_id, size, classes=[self._labels[image_id]])
        boxes = self._boxes.get(image_id, [])
        made = annotation(image_id, size, boxes, classes=list(dict.fromkeys(label for label, _, _ in boxes)))
        if image_id in self._sizes and self._sizes[image_id] != size:
            raise UserError(
                f"{image_id}: boxes.csv says {self._sizes[image_id][::-1]} pixels, the picture has {size[::-1]}"
            )
        return made

    def _read_boxes(self, table: Path) -> None:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{table}: no column {', '.join(missing)} (needed: {', '.join(COLUMNS)})")
            for row in reader:
                image_id, line = row["image_id"], reader.line_num
                try:
                    label = int(row["class_index"])
                    x0, y0, x1, y1 = (float(row[column]) for column in COLUMNS[2:])
                except (TypeError, ValueError):
                    raise UserError(f"{table}, line {line}: not a number in {dict(list(row.items())[:6])}") from None
                if label < 0 or not all(map(math.isfinite, (x0, y0, x1, y1))):
                    raise UserError(f"{table}, line {line}: class_index and corners must be finite and not negative")
                self._boxes.setdefault(image_id, []).append((label, (x0, y0, x1 + 1, y1 + 1), False))
                if (row.get("width") or "").isdigit() and (row.get("height") or "").isdigit():
                    self._sizes[image_id] = (int(row["height"]), int(row["width"]))


def _read_classes(classes: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(classes, str):
        return tuple(str(name) for name in classes)
    path = Path(classes).expanduser()
    if not path.is_file():
        raise UserError(f"dataset.classes: {path} is no file (one class name a line, in the order of the indices)")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"dataset.classes: {path} is no list of names in UTF-8 ({error})") from None
    if not lines:
        raise UserError(f"dataset.classes: {path} names no class")
    return tuple(WORDNET.sub("", line) for line in lines)


def _pictures(folder: Path, missing_ok: bool = False) -> dict[str, Path]:
    """Pictures in a folder by their name without suffix; two files of one name are refused."""
    if not folder.is_dir():
        if missing_ok:
            return {}
        raise UserError(f"{folder} is no folder: it should hold the pictures")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise UserError(f"{folder} holds both {found[path.stem].name} and {path.name}: image ids must differ")
            found[path.stem] = path
    return found


def _bytes(path: Path | None) -> int:
    return path.stat().st_size if path is not None else -1
