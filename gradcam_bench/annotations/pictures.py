"""Where the pictures and mask pictures of a data set lie, and how a mask picture is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradcam_bench.errors import UserError
from gradcam_bench.geometry import Size

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
PALETTE = [sum((k >> (c + 3 * b) & 1) << (7 - b) for b in range(3)) for k in range(256) for c in range(3)]  # VOC's
ORIENTATION = 0x112  # the EXIF tag; from 5 on rows and columns change places


@dataclass(frozen=True)
class Pictures:
    """Pictures by image id. folder: None where no root was given. found: the files; None: an id is a path in folder."""

    folder: Path | None = None
    found: Mapping[str, Path] | None = None

    def path(self, image_id: str) -> Path:
        """The file of an image id; it may be missing. Raises UserError where that cannot be said."""
        if self.folder is None:
            raise UserError(f"{image_id}: the picture is needed, give dataset.root=DIR")
        if self.found is None:
            return self.folder / image_id
        if image_id not in self.found:
            raise UserError(f"{image_id}: no picture named {image_id} in {self.folder}")
        return self.found[image_id]

    def __contains__(self, image_id: str) -> bool:
        listed = self.folder is not None and (self.found is None or image_id in self.found)
        return listed and self.path(image_id).is_file()


def in_folder(folder: Path, prefix: str = "") -> dict[str, Path]:
    """Pictures in a folder by their name without suffix, `prefix` before it; two files of one name are refused."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: it should hold the pictures")
    found: dict[str, Path] = {}
    for entry in sorted(path.name for path in folder.iterdir()):
        stem, dot, suffix = entry.rpartition(".")  # of 50,000 names: pathlib's parts would take a second
        if dot + suffix.lower() in SUFFIXES and not entry.startswith("."):
            if prefix + stem in found:
                raise UserError(f"{folder} holds both {found[prefix + stem].name} and {entry}: image ids must differ")
            found[prefix + stem] = folder / entry
    return found


def without_suffix(listed: str) -> str:
    """A path as a list has it, without the suffix of a picture's file."""
    stem, dot, suffix = listed.rpartition(".")
    return stem if dot + suffix.lower() in SUFFIXES else listed


def bare(listed: str) -> str:
    """The last part of a path as a list has it, without its suffix."""
    return without_suffix(listed.rpartition("/")[2])


def first_folder(root: Path, places: Iterable[str]) -> Path | None:
    """The first of some places below a root that is a folder."""
    return next((root / place for place in places if (root / place).is_dir()), None)


def holding(root: Path, places: Iterable[str], names: Sequence[str]) -> Path:
    """The first of some places below a root that holds a file of those names (the first few are tried); else root."""
    for place in places:
        if any((root / place / name).is_file() for name in names[:20]):
            return root / place
    return root


def measure(path: Path) -> Size:
    """(height, width) of a picture when upright, from its header alone. Raises UserError naming the file."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION, 1) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except Exception as error:  # on bytes that are no picture decoders raise whatever they stumble over
        raise UserError(f"{path}: cannot be decoded ({str(error) or type(error).__name__})") from None


def mask(path: Path, size: Size, least: int = 1, resized: bool = False) -> Tensor:
    """[H,W] bool: the pixels of a grey picture that are `least` or more of 255.

    resized: a mask of other pixels but the same shape is brought to `size` by nearest neighbour; else, and where the
    shape differs too, it is refused.
    """
    try:
        with Image.open(path) as image:
            grey = image.convert("L")
    except FileNotFoundError:
        raise UserError(f"{path}: no such mask") from None
    except Exception as error:  # as above
        raise UserError(f"{path}: cannot be decoded ({str(error) or type(error).__name__})") from None
    if (grey.height, grey.width) != size:
        if not (resized and _same_shape((grey.height, grey.width), size)):
            raise UserError(f"{path}: the mask has {grey.width}x{grey.height} pixels, its picture {size[1]}x{size[0]}")
        grey = grey.resize(size[::-1], Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(grey) >= least)


def _same_shape(one: Size, other: Size) -> bool:
    """Whether the sides are in the same proportion, but for rounding to whole pixels."""
    small, large = sorted((one, other))
    return abs(large[0] * small[1] / large[1] - small[0]) < 1 or abs(large[1] * small[0] / large[0] - small[1]) < 1
