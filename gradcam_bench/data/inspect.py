"""Every picture and annotation of a data set looked at once: what is there, what is broken, what is odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import Any

from gradcam_bench.annotations.pictures import measure
from gradcam_bench.errors import UserError
from gradcam_bench.samples import Dataset

BROKEN = ("picture", "annotation", "inverted", "empty", "outside", "mask", "count", "interrupted", "changed")
ODD = ("beyond the edge", "whole picture", "no object", "class without a picture", "unlisted")  # said, no fault


@dataclass(frozen=True)
class Finding:
    """One thing that is broken or odd. kind: one of BROKEN or ODD."""

    kind: str
    image_id: str
    what: str


@dataclass(frozen=True)
class Seen:
    """What one picture's look gave. digest: the sha256 of the file, None where it was not read."""

    image_id: str
    digest: str | None
    classes: tuple[int, ...]
    boxes: int
    masks: int
    findings: tuple[Finding, ...]


@dataclass
class Stock:
    """What is there. manifest: image id -> sha256 of the picture's file."""

    counts: Counter[str] = field(default_factory=Counter)
    classes: Counter[int] = field(default_factory=Counter)
    manifest: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, seen: Seen) -> None:
        self.counts.update(images=1, cases=len(seen.classes), boxes=seen.boxes, masks=seen.masks)
        self.classes.update(seen.classes)
        self.findings.extend(seen.findings)
        if seen.digest:
            self.manifest[seen.image_id] = seen.digest

    @property
    def pictures(self) -> str | None:
        """16 hex digits over all the pictures' files, the same wherever they lie."""
        listed = "".join(f"{image_id} {digest}\n" for image_id, digest in sorted(self.manifest.items()))
        return sha256(listed.encode()).hexdigest()[:16] if listed else None


def look(dataset: Dataset, index: int, quick: bool) -> Seen:
    """One picture with its annotation and masks. quick: of the picture only the header, of masks nothing."""
    image_id, digest, found = dataset.ids[index], None, []
    try:
        if quick:
            truth = dataset.annotate(index)
            measure(dataset.path(index)) if hasattr(dataset, "path") else None
        else:
            picture = dataset.read(index, masks=True)
            truth, digest = picture.annotation, picture.digest
    except UserError as error:
        return Seen(image_id, None, (), 0, 0, (Finding(_blamed(dataset, index), image_id, str(error)),))
    kinds = [(entry.partition(": ")[0], entry.partition(": ")[2]) for entry in truth.odd]
    found += [Finding(kind, image_id, f"box {which}") for kind, which in kinds]
    found += [Finding("annotation", image_id, text) for text in truth.problems if "covers no pixel" not in text]
    if not truth.classes:
        found.append(Finding("no object", image_id, "nothing is annotated in it"))
    masks = 0 if truth.masks is None else len(truth.masks)
    empty = [] if truth.masks is None else [number for number, mask in enumerate(truth.masks) if not mask.any()]
    found += [Finding("mask", image_id, f"mask {number} has no pixel") for number in empty]
    return Seen(image_id, digest, truth.classes, len(truth.boxes), masks, tuple(found))


def _blamed(dataset: Dataset, index: int) -> str:
    """Whether it is the picture or the annotation that cannot be read."""
    try:
        dataset.annotate(index)
        return "picture"
    except UserError:
        return "annotation"


def inspect(dataset: Dataset, quick: bool, workers: int, advance: Callable[[], None] = lambda: None) -> Stock:
    """Looks at every picture, in `workers` threads (decoders release the interpreter's lock)."""
    stock = Stock()
    for seen in _looks(dataset, quick, max(workers, 1)):
        stock.add(seen)
        advance()
    stock.findings += [
        Finding("class without a picture", "", f"class {label} ({name})")
        for label, name in enumerate(dataset.classes)
        if not stock.classes[label]
    ]
    listed = set(dataset.ids)
    stock.findings += [
        Finding("unlisted", image_id, "a picture that no list or annotation names")
        for image_id in _found(dataset)
        if image_id not in listed
    ]
    return stock


def _looks(dataset: Dataset, quick: bool, workers: int) -> Iterator[Seen]:
    """In the order of the pictures; a few hundred are under way at a time."""
    numbers = iter(range(len(dataset.ids)))
    with ThreadPoolExecutor(workers) as pool:
        while batch := list(islice(numbers, 64 * workers)):
            yield from pool.map(lambda index: look(dataset, index, quick), batch)


def _found(dataset: Any) -> Mapping[str, Any]:
    """The pictures by id, where the data set finds them by itself."""
    return getattr(getattr(dataset, "pictures", None), "found", None) or {}
