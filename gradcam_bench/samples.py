"""A sample is one image with its annotation; the cases asked of it are (image, class) pairs.

Every dataset, whatever it looks like on disk, becomes this one annotation model: boxes and masks of objects with their
classes, flags, and a region to ignore. `Samples` decodes lazily (in worker processes) under a view and never hides
what is broken: an image that cannot be read comes out as `Skipped`, a bad box as a problem of its annotation.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.geometry import Frame, Size


@dataclass(frozen=True, eq=False)
class Annotation:
    """What is known of one image. N boxes, M masks, all in pixels of the upright source image; classes are indices.

    size: (height, width). classes: the classes present. boxes [N,4] float32 half-open with labels [N] int64 and
    difficult [N] bool. masks [M,H,W] bool with mask_labels [M] (one mask an instance or one a class, as the dataset has
    it), None where not asked for or not there. ignore [H,W] bool: pixels that count neither way. problems: sentences.
    odd: what is unusual about boxes as they were given, `kind: which` each (see `_oddity`), for who checks the data.
    """

    image_id: str
    size: Size
    classes: tuple[int, ...]
    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    masks: Tensor | None = None
    mask_labels: Tensor | None = None
    ignore: Tensor | None = None
    problems: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()


def annotation(
    image_id: str,
    size: Size,
    objects: Sequence[tuple[int, Sequence[float], bool]] = (),
    classes: Sequence[int] | None = None,
    **masks: Any,
) -> Annotation:
    """An Annotation from (class, half-open box, difficult) triples; boxes are clipped to the image.

    A box without area, inverted or wholly outside, is left out and named in `problems`. classes: those of the objects
    unless given (an image may have a label without a box).
    """
    height, width = size
    kept, problems, odd = [], [], []
    for label, (x0, y0, x1, y1), difficult in objects:
        kind = _oddity((x0, y0, x1, y1), size)
        odd += [f"{kind}: ({x0:g}, {y0:g}, {x1:g}, {y1:g}) of class {label} in {width}x{height}"] if kind else []
        box = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
        if box[2] > box[0] and box[3] > box[1]:
            kept.append((label, box, difficult))
        else:
            where = f"({x0:g}, {y0:g}, {x1:g}, {y1:g})"
            problems.append(f"{image_id}: box {where} of class {label} covers no pixel of the {width}x{height} image")
    return Annotation(
        image_id,
        size,
        tuple(dict.fromkeys(label for label, _, _ in kept)) if classes is None else tuple(classes),
        torch.tensor([box for _, box, _ in kept], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([label for label, _, _ in kept], dtype=torch.int64),
        torch.tensor([flag for _, _, flag in kept], dtype=torch.bool),
        problems=tuple(problems),
        odd=tuple(odd),
        **masks,
    )


def _oddity(box: Sequence[float], size: Size) -> str | None:
    """`inverted`, `empty`, `outside`, `beyond the edge` (by more than a pixel: counting from 0 or 1 is no oddity),
    `whole picture`, or None."""
    (x0, y0, x1, y1), (height, width) = box, size
    if x1 < x0 or y1 < y0:
        return "inverted"
    if x1 == x0 or y1 == y0:
        return "empty"
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return "outside"
    if x0 < -1 or y0 < -1 or x1 > width + 1 or y1 > height + 1:
        return "beyond the edge"
    return "whole picture" if x0 <= 0 and y0 <= 0 and x1 >= width and y1 >= height else None


@dataclass(frozen=True, eq=False)
class Picture:
    """One image as a dataset reads it: upright RGB pixels, the sha256 of the file's bytes, and the annotation."""

    image: Image.Image
    digest: str
    annotation: Annotation


def as_tensor(image: Image.Image) -> Tensor:
    """The pixels of an RGB picture, [3,H,W] uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


class Dataset(Protocol):
    """What a dataset is: a name, its classes in the order of their indices, a fingerprint, and pictures by number.

    `ids[i]` is the image id of picture i; `read(i, masks)` decodes it (masks: with its masks), `annotate` gives the
    annotation alone. Both raise UserError with a sentence that names the file where a picture cannot be read.
    """

    name: str
    classes: tuple[str, ...]
    ids: Sequence[str]

    def read(self, index: int, masks: bool = False) -> Picture: ...

    def annotate(self, index: int, masks: bool = False) -> Annotation: ...

    def fingerprint(self) -> str: ...


def decode(path: Path, size: Size | None = None) -> tuple[Image.Image, str]:
    """The picture at `path` as upright RGB (grey, CMYK, palette, 16 bit, EXIF rotation), and the sha256 of its bytes.

    size: (height, width) that the annotation declares; where it fits the stored pixels and not the upright ones, the
    annotation was made on the stored pixels, and these are kept. Raises UserError naming the file. What PIL only warns
    of is accepted: pictures of 90 to 179 megapixels, which are real ones, untidy EXIF.
    """
    try:
        data = path.read_bytes()
        with warnings.catch_warnings(action="ignore"):
            return _rgb(_upright(Image.open(io.BytesIO(data)), size)), hashlib.sha256(data).hexdigest()
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path}: refused, its header announces an image too large to be meant (bomb?)") from None
    except UnidentifiedImageError:  # PIL's own words name an address in memory
        raise UserError(f"{path}: cannot be decoded (its bytes are no picture)") from None
    except Exception as error:  # on bytes that are no picture decoders raise whatever they stumble over
        raise UserError(f"{path}: cannot be decoded ({str(error) or type(error).__name__})") from None


def _upright(stored: Image.Image, size: Size | None) -> Image.Image:
    stored.load()
    upright = ImageOps.exif_transpose(stored)
    fits_stored_only = (upright.height, upright.width) != size == (stored.height, stored.width)
    return stored if fits_stored_only else upright


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey of either byte order: PIL's own conversion to RGB would clip it
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode == "P":  # palettes may carry transparency, which converts only by way of RGBA
        image = image.convert("RGBA")
    return image.convert("RGB")


@dataclass(frozen=True, eq=False)
class Sample:
    """One image ready for the network: pixels [3,H,W] float32 normalised, and what a metric may ask about it. picture:
    [3,H,W] uint8, the source's own pixels, where a metric looks at them."""

    index: int
    pixels: Tensor
    frame: Frame
    annotation: Annotation
    digest: str
    picture: Tensor | None = None


@dataclass(frozen=True)
class Skipped:
    """One image that could not be used, and the sentence that says why."""

    index: int
    image_id: str
    reason: str


class Transform(Protocol):
    def __call__(self, image: Image.Image, view: View) -> tuple[Tensor, Frame]: ...

    def frame(self, source: Size, view: View) -> Frame: ...


@dataclass(frozen=True)
class Samples(torch.utils.data.Dataset[Sample | Skipped]):
    """Pictures `indices` of a dataset under one view, as torch's DataLoader wants them.

    unseen: nobody is going to look at pixels, so no picture is opened (it need not even be there): the annotation alone
    says how large it is, and `pixels` is one zero expanded to the input's shape. pictures: samples hold these too.
    """

    dataset: Dataset
    transform: Transform
    view: View
    indices: Sequence[int] = field(default_factory=tuple)
    masks: bool = False
    unseen: bool = False
    pictures: bool = False

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Sample | Skipped:
        index = self.indices[position]
        try:
            if self.unseen:
                return self._unseen(index)
            picture = self.dataset.read(index, self.masks)
            pixels, frame = self.transform(picture.image, self.view)
        except UserError as error:
            return Skipped(index, self.dataset.ids[index], str(error))
        seen = as_tensor(picture.image) if self.pictures else None
        return Sample(index, pixels, frame, picture.annotation, picture.digest, seen)

    def _unseen(self, index: int) -> Sample:
        known = self.dataset.annotate(index, self.masks)
        frame = self.transform.frame(known.size, self.view)
        digest = hashlib.sha256(f"unseen/{self.dataset.name}/{known.image_id}".encode()).hexdigest()
        return Sample(index, torch.zeros(()).expand(3, *frame.input), frame, known, digest)


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one size, stacked, and what was skipped on the way to them. images [B,3,H,W] float32."""

    images: Tensor
    samples: tuple[Sample, ...]

    def pin_memory(self) -> Batch:
        """The same with its images in page-locked memory, from where a GPU copies them while it computes."""
        return replace(self, images=self.images.pin_memory())


def collate(items: Sequence[Sample | Skipped], alone: bool = False) -> tuple[list[Batch], list[Skipped]]:
    """Groups of equal image size, in order of first appearance, each stacked to one Batch; and the skipped ones.

    alone: each its own Batch, so that none has company by accident and a network computes it the same whatever the
    batch.
    """
    groups: dict[object, list[Sample]] = {}
    for item in items:
        if isinstance(item, Sample):
            groups.setdefault(item.index if alone else item.pixels.shape, []).append(item)
    batches = [Batch(_stack([s.pixels for s in group]), tuple(group)) for group in groups.values()]
    return batches, [item for item in items if isinstance(item, Skipped)]


def _stack(pixels: Sequence[Tensor]) -> Tensor:
    """[B,3,H,W]; of pictures that nobody opened still one expanded zero."""
    unseen = all(not any(one.stride()) for one in pixels)
    return pixels[0].expand(len(pixels), -1, -1, -1) if unseen else torch.stack(list(pixels))
