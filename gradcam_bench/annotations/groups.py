"""Files that say which outputs of a network stand for a class: `class_name,outputs`, a line a class.

Outputs are whole numbers from 0 and ranges of them, parted by spaces: `dog,151-268`. Those of COCO's and VOC's classes
among ImageNet's 1000 come along (`conf/groups/`).
"""

from __future__ import annotations

import csv
from pathlib import Path

from gradcam_bench.errors import UserError, unknown
from gradcam_bench.labels import CONF


def read(name: str, setting: str) -> dict[str, tuple[int, ...]]:
    """Class name -> outputs, in the file's order. name: a file, or one of `conf/groups` without its suffix; setting:
    what the user set to it, for the sentence where it cannot be read."""
    packaged = CONF / "groups" / f"{name}.csv"
    path = packaged if packaged.is_file() else Path(name).expanduser()
    if not path.is_file():
        raise unknown(setting, name, [*(p.stem for p in sorted((CONF / "groups").glob("*.csv"))), "a file"])
    found: dict[str, tuple[int, ...]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            label, words = row.get("class_name"), (row.get("outputs") or "").split()
            try:
                outputs = tuple(output for word in words for output in _outputs(word))
            except ValueError:
                outputs = ()
            if not label or not outputs or label in found or len(set(outputs)) != len(outputs):
                raise UserError(
                    f"{setting}: line {number} of {path} should be a new class_name and its outputs, as 5 or 5-9"
                )
            found[label] = outputs
    if not found:
        raise UserError(f"{setting}: {path} names no class (its first line is class_name,outputs)")
    return found


def _outputs(word: str) -> range:
    first, _, last = word.partition("-")
    made = range(int(first), int(last or first) + 1)
    if not made:
        raise ValueError(word)
    return made
