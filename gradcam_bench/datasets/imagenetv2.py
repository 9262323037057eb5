"""ImageNetV2 (threshold 0.7: ten pictures a class), with the boxes that Choe et al. (2020) drew for validation.

    root/<class index>/<number>.jpeg         root, its val2/, or its imagenetv2-threshold0.7-format-val/
    metadata/ILSVRC/val/                     the text lists of wsolevaluation: without them no boxes, so that only what
                                             needs a class alone is scored

An id is <class index>/<file name without suffix>. The lists number the pictures of a class from 0 to 9; archives
packed since December 2020 name them by hashes instead. `mapping.txt` beside the lists, `0/0.jpeg, 0/a31041fd....jpeg` a
line, pairs the two (a proposed change to wsolevaluation has it, `data prepare imagenetv2` fetches it); without it a
listed picture is reported as missing.
"""

from __future__ import annotations

from pathlib import Path

from gradcam_bench.annotations import synsets, wsol
from gradcam_bench.annotations.annotated import Annotated, chosen
from gradcam_bench.annotations.lists import folder, table
from gradcam_bench.annotations.pictures import Pictures, bare, in_folder
from gradcam_bench.errors import UserError

PLACES = ("val2", "ILSVRC/val2", "imagenetv2-threshold0.7-format-val", "imagenetv2-threshold0.7", ".")


def imagenetv2(
    root: str | None = None,
    metadata: str | None = None,
    subset: str | None = None,
    name: str = "imagenetv2",
) -> Annotated:
    """The data set. root may be missing where metadata is given. subset: as for `imagenet`."""
    if not root and not metadata:
        raise UserError(
            "dataset.root is missing: give the folder of the class folders, or dataset.metadata=DIR with text lists"
        )
    pictures, labels = _pictures(folder("dataset.root", root)) if root else (Pictures(), {})
    classes = synsets.names()
    if metadata:
        truth = wsol.read(wsol.home(metadata, "ILSVRC", "val"), len(classes), bare=_image_id)
        pictures = _renamed(pictures, truth.home / "mapping.txt")
    else:
        truth = wsol.Lists(Path(str(root)), tuple(labels), labels, {}, {}, {})
    return Annotated(name, classes, chosen(truth.ids, subset, pictures, truth.home, _image_id), truth, pictures)


def _image_id(listed: str) -> str:
    """class/stem of a path as the lists have it: val2/0/1.jpeg -> 0/1."""
    return f"{listed.rpartition('/')[0].rpartition('/')[2]}/{bare(listed)}"


def _renamed(pictures: Pictures, path: Path) -> Pictures:
    """Pictures that are named by hashes under the numbers that the lists know them by, where there is a mapping."""
    found = dict(pictures.found or {})
    for _, (listed, stored) in table(path, "listed picture,stored picture") if path.is_file() else ():
        if (hashed := _image_id(stored.strip())) in found:
            found[_image_id(listed)] = found.pop(hashed)
    return Pictures(pictures.folder, found if pictures.found is not None else None)


def _pictures(root: Path) -> tuple[Pictures, dict[str, int]]:
    """The pictures by id, and their classes."""
    home = next((root / place for place in PLACES if _class_folders(root / place)), root)
    found: dict[str, Path] = {}
    labels: dict[str, int] = {}
    for place in _class_folders(home):
        if int(place.name) >= synsets.COUNT:
            raise UserError(f"{place}: the classes are numbered from 0 to {synsets.COUNT - 1}")
        mine = in_folder(place, f"{place.name}/")
        found |= mine
        labels |= dict.fromkeys(mine, int(place.name))
    return Pictures(home, found), labels


def _class_folders(home: Path) -> list[Path]:
    there = [path for path in home.iterdir() if path.name.isdecimal()] if home.is_dir() else []
    return sorted(there, key=lambda path: int(path.name))
