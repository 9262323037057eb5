"""Imagenette: ten easily told classes of ImageNet, 9469 pictures to train and 3925 to validate; no boxes.

    root/imagenette2-320/val/n01440764/<name>.JPEG      size=320px; imagenette2/ is full, imagenette2-160/ is 160px

An id is <synset>/<name without suffix>. The pictures are ImageNet's own, so the classes keep their numbers among the
1000, and a network of ImageNet can be asked as it is; `numbering=own` counts them from 0 to 9, for one that was trained
on the ten.
"""

from __future__ import annotations

from pathlib import Path

from gradcam_bench.annotations import synsets, wsol
from gradcam_bench.annotations.annotated import Annotated, chosen
from gradcam_bench.annotations.lists import folder
from gradcam_bench.annotations.pictures import Pictures, first_folder, in_folder
from gradcam_bench.errors import UserError, unknown

FOLDERS = {"320px": "imagenette2-320", "full": "imagenette2", "160px": "imagenette2-160"}
SPLITS = ("val", "train")
NUMBERINGS = ("imagenet", "own")


def imagenette(
    root: str | None = None,
    split: str = "val",
    size: str = "320px",
    numbering: str = "imagenet",
    subset: str | None = None,
    name: str = "imagenette",
) -> Annotated:
    """The data set. subset: as for `imagenet`."""
    if not root:
        raise UserError("dataset.root is missing: give the folder that holds imagenette2-320/")
    for setting, value, valid in (
        ("split", split, SPLITS),
        ("size", size, FOLDERS),
        ("numbering", numbering, NUMBERINGS),
    ):
        if value not in valid:
            raise unknown(f"dataset.{setting}", value, valid)
    above = folder("dataset.root", root)
    home = first_folder(above, (f"{FOLDERS[size]}/{split}", split))
    if home is None:
        raise UserError(f"dataset.root: no {FOLDERS[size]}/{split} in {above} (dataset.size={size})")
    pictures, there = _pictures(home)
    numbers, names = synsets.index(), synsets.names()
    kept = sorted(set(there.values()), key=numbers.__getitem__)
    own = {synset: number for number, synset in enumerate(kept)}
    index = numbers if numbering == "imagenet" else own
    classes = names if numbering == "imagenet" else tuple(names[numbers[synset]] for synset in kept)
    labels = {image_id: index[synset] for image_id, synset in there.items()}
    truth = wsol.Lists(home, tuple(labels), labels, {}, {}, {})
    return Annotated(name, classes, chosen(truth.ids, subset, pictures, home), truth, pictures)


def _pictures(home: Path) -> tuple[Pictures, dict[str, str]]:
    """The pictures by id, and the synset of each."""
    found: dict[str, Path] = {}
    there: dict[str, str] = {}
    known = synsets.index()
    for place in sorted(path for path in home.iterdir() if path.name in known and path.is_dir()):
        mine = in_folder(place, f"{place.name}/")
        found |= mine
        there |= dict.fromkeys(mine, place.name)
    return Pictures(home, found), there
