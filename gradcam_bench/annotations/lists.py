"""Text lists, as data sets publish them: a line an image. UTF-8 with or without a byte order mark, any line ends."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from gradcam_bench.errors import UserError

WORDNET = re.compile(r"^n\d{8}\s+")  # ImageNet's lists put the synset before the name


def lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a file that are not blank, stripped, with their numbers from 1. Raises UserError naming the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such list") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no readable list in UTF-8 ({error})") from None
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def table(path: Path, fields: str, separator: str | None = ",") -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each line, split from the right, so that the first field may hold the separator.

    fields: their names, joined by commas. Raises UserError naming file and line where one has fewer or more.
    """
    count = fields.count(",") + 1
    for number, line in lines(path):
        parts = line.rsplit(separator, count - 1)
        if len(parts) != count:
            raise UserError(f"{path}, line {number}: '{line}' is not {fields}")
        yield number, parts


def whole(path: Path, number: int, text: str, least: int = 0) -> int:
    """The whole number in a field, of at least `least`."""
    if not text.strip().isdecimal() or int(text) < least:
        raise UserError(f"{path}, line {number}: '{text}' is no whole number of at least {least}")
    return int(text)


def finite(path: Path, number: int, texts: Sequence[str]) -> tuple[float, ...]:
    """The numbers in some fields, all finite."""
    try:
        values = tuple(map(float, texts))
    except ValueError:
        values = (math.nan,)
    if not math.isfinite(sum(values)):
        raise UserError(f"{path}, line {number}: no finite numbers in '{','.join(texts)}'")
    return values


def once(path: Path, number: int, image_id: str, seen: Container[str]) -> str:
    """The id, refused where it was seen before."""
    if image_id in seen:
        raise UserError(f"{path}, line {number}: {image_id} is listed twice")
    return image_id


def class_names(classes: str | Sequence[str]) -> tuple[str, ...]:
    """`dataset.classes`: names in the order of the indices, a list or a file with one a line (synsets are left out)."""
    if not isinstance(classes, str):
        return tuple(str(name) for name in classes)
    path = Path(classes).expanduser()
    if not path.is_file():
        raise UserError(f"dataset.classes: {path} is no file (one class name a line, in the order of the indices)")
    names = tuple(WORDNET.sub("", line) for _, line in lines(path))
    if not names:
        raise UserError(f"dataset.classes: {path} names no class")
    return names


def folder(setting: str, path: str | Path) -> Path:
    """The folder that a setting names, refused where it is none."""
    found = Path(path).expanduser()
    if not found.is_dir():
        raise UserError(f"{setting}: {found} is no folder")
    return found
