"""A data set from two parts: where its pictures are, and what is known of them, whatever the format of either."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gradcam_bench.annotations.lists import lines, once
from gradcam_bench.annotations.pictures import Pictures, measure
from gradcam_bench.errors import UserError
from gradcam_bench.geometry import Size
from gradcam_bench.samples import Annotation, Picture, decode


class Truth(Protocol):
    """What a format knows of each image: its declared (height, width), None where it does not say; its annotation in
    an image of a size; and the facts behind that, for the fingerprint."""

    def size(self, image_id: str) -> Size | None: ...

    def annotate(self, image_id: str, size: Size, masks: bool) -> Annotation: ...

    def facts(self, image_id: str) -> Any: ...


@dataclass(frozen=True)
class Annotated:
    """A `samples.Dataset`. An annotation alone needs no picture where the truth declares sizes or there is a header."""

    name: str
    classes: tuple[str, ...]
    ids: Sequence[str]
    truth: Truth
    pictures: Pictures

    def path(self, index: int) -> Path:
        """The file of a picture, which may be missing."""
        return self.pictures.path(self.ids[index])

    def annotate(self, index: int, masks: bool = False) -> Annotation:
        image_id = self.ids[index]
        size = self.truth.size(image_id) or measure(self.pictures.path(image_id))
        return self.truth.annotate(image_id, size, masks)

    def read(self, index: int, masks: bool = False) -> Picture:
        """A picture of another size than the annotation declares is refused: its boxes would lie elsewhere."""
        image_id = self.ids[index]
        declared = self.truth.size(image_id)
        image, digest = decode(self.pictures.path(image_id), declared)
        size = image.height, image.width
        if declared not in (None, size):
            pixels = f"{declared[1]}x{declared[0]} pixels, the picture has {size[1]}x{size[0]}"
            raise UserError(f"{image_id}: annotated on {pixels}")
        return Picture(image, digest, self.truth.annotate(image_id, size, masks))

    def fingerprint(self) -> str:
        """sha256 (16 hex digits) over ids, classes and annotations."""
        found = hashlib.sha256(repr(self.classes).encode())
        for image_id in self.ids:
            found.update(repr((image_id, self.truth.facts(image_id))).encode())
        return found.hexdigest()[:16]


def chosen(ids: Sequence[str], subset: str | None, pictures: Pictures, where: Path, bare: Any = str) -> Sequence[str]:
    """The ids of `dataset.subset`: None all, `present` those with a picture, a file those it lists, in its order.

    where: what was read, for the sentence where nothing is left. bare: from an id as listed to the image id.
    """
    if subset == "present":
        if pictures.folder is None:
            raise UserError("dataset.subset=present: give dataset.root=DIR, the folder of the pictures")
        kept: Sequence[str] = [image_id for image_id in ids if image_id in pictures]
    elif subset is not None:
        kept = _listed(Path(subset).expanduser(), set(ids), bare)
    else:
        kept = ids
    if not kept:
        raise UserError(f"{where}: no image to use{' is present' if subset == 'present' else ''}")
    return kept


def _listed(path: Path, known: set[str], bare: Any) -> list[str]:
    if not path.is_file():
        raise UserError(f"dataset.subset: {path} is no file (one image id a line), and not 'present'")
    kept: dict[str, None] = {}
    for number, line in lines(path):
        image_id = bare(line)
        if image_id not in known:
            raise UserError(f"{path}, line {number}: the data set has no image {line}")
        kept[once(path, number, image_id, kept)] = None
    return list(kept)
