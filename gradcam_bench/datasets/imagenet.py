"""ImageNet's validation pictures with their boxes (ILSVRC2012, CLS-LOC), in any of the layouts they come in.

    root/ILSVRC/Data/CLS-LOC/val/<id>.JPEG    root/ILSVRC/Annotations/CLS-LOC/val/<id>.xml    Kaggle's archive, with
                                              root/LOC_synset_mapping.txt: n01440764 tench, Tinca tinca
    root/val/<id>.JPEG                        root/bbox_val/**/<id>.xml                       the challenge's archives
    root/val/<synset>/<id>.JPEG               any of the above, or none: then no boxes        as torchvision sorts them

or, for the annotations, the text lists of wsolevaluation (`metadata`, where ILSVRC val is called `test`). An id is
ILSVRC2012_val_<number> in all of them. The corners in the XML are inclusive pixels from 0 (unlike VOC's, from 1): they
are the very numbers of the lists and of Kaggle's LOC_val_solution.csv, in which no corner reaches the width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradcam_bench.annotations import synsets, voc_xml, wsol
from gradcam_bench.annotations.annotated import Annotated, chosen
from gradcam_bench.annotations.lists import folder, lines, whole
from gradcam_bench.annotations.pictures import Pictures, bare, first_folder, in_folder
from gradcam_bench.errors import UserError
from gradcam_bench.geometry import Size
from gradcam_bench.samples import Annotation, annotation

PICTURES = ("ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val", "val", "ILSVRC2012_img_val", "images", ".")
BOXES = ("ILSVRC/Annotations/CLS-LOC/val", "Annotations/CLS-LOC/val", "bbox_val", "ILSVRC2012_bbox_val_v3")
MAPPINGS = ("LOC_synset_mapping.txt", "ILSVRC/LOC_synset_mapping.txt", "synset_words.txt")
SYNSET = re.compile(r"n\d{8}")
NAMED = re.compile(rb"<name>\s*(n\d{8})\s*</name>")
LAST = 50_000  # the number of the last picture


@dataclass(frozen=True)
class Xmls:
    """XML files by image id, the index of each synset, and the synset of each picture that lies in such a folder.
    A `Truth`."""

    files: Mapping[str, Path]
    index: Mapping[str, int]
    folders: Mapping[str, str]

    def size(self, image_id: str) -> Size | None:
        return voc_xml.declared(voc_xml.read(self._file(image_id))) if self.files else None

    def annotate(self, image_id: str, size: Size, masks: bool) -> Annotation:
        found, problems = [], []
        for number, (synset, corners, difficult) in enumerate(self._objects(image_id)):
            if synset not in self.index or corners is None or self.folders.get(image_id, synset) != synset:
                what = f"object {number} ({synset or 'no name'})"
                problems.append(f"{image_id}: {what} is not of its picture's class or has no whole box")
                continue
            x0, y0, x1, y1 = corners
            found.append((self.index[synset], (x0, y0, x1 + 1, y1 + 1), difficult))
        labels = [self.index[self.folders[image_id]]] if image_id in self.folders else [label for label, _, _ in found]
        made = annotation(image_id, size, found, classes=list(dict.fromkeys(labels)))
        return replace(made, problems=(*problems, *made.problems))

    def facts(self, image_id: str) -> Any:
        file = self.files.get(image_id)
        return self.folders.get(image_id), file.read_bytes() if file else None

    def _objects(self, image_id: str) -> Any:
        return voc_xml.objects(voc_xml.read(self._file(image_id))) if self.files else ()

    def _file(self, image_id: str) -> Path:
        if image_id not in self.files:
            raise UserError(f"{next(iter(self.files.values())).parent}: no annotation {image_id}.xml")
        return self.files[image_id]


def imagenet(
    root: str | None = None,
    metadata: str | None = None,
    classes: str | None = None,
    subset: str | None = None,
    blacklist: str | None = None,
    name: str = "imagenet",
) -> Annotated:
    """The data set. root may be missing where metadata is given: then there are annotations alone.

    classes: a file as LOC_synset_mapping.txt, where root has none. subset: None for all, `present` for those whose
    picture is there, or a file with an id a line. blacklist: a file with numbers of pictures to leave out, as the
    challenge's own evaluation does (eval_clsloc.m: they count neither as right nor in the denominator).
    """
    if not root and not metadata:
        raise UserError(
            "dataset.root is missing: give the folder with ILSVRC/ or val/, or text lists by dataset.metadata"
        )
    home = folder("dataset.root", root) if root else None
    pictures, folders = _pictures(home) if home else (Pictures(), {})
    known = _mapping(home, classes)
    if metadata:
        labels = tuple(known.values()) or synsets.names()
        truth: Any = wsol.read(wsol.home(metadata, "ILSVRC", "test"), len(labels), bare=bare)
        ids = truth.ids
    else:
        truth, labels = _from_xml(home or Path(), folders, known, len(pictures.found or ()))
        ids = sorted({*truth.files, *(pictures.found or ())})
    kept = chosen(ids, subset, pictures, home or Path(str(metadata)), bare)
    return Annotated(name, labels, _allowed(kept, blacklist), truth, pictures)


def _from_xml(
    root: Path, folders: Mapping[str, str], known: Mapping[str, str], pictures: int
) -> tuple[Xmls, tuple[str, ...]]:
    """The truth without lists, and the names of its classes. pictures: how many there are."""
    home = first_folder(root, BOXES)
    files = {path.name.removesuffix(".xml"): path for path in sorted(home.rglob("*.xml"))} if home else {}
    if not files and len(folders) < pictures:
        raise UserError(f"{root}: pictures, but no boxes in {' nor '.join(BOXES)}: give them, or dataset.metadata")
    known = known or _numbered(folders, files)
    index = {synset: number for number, synset in enumerate(known)}
    for image_id, synset in folders.items():
        if synset not in index:
            raise UserError(f"{image_id} lies in a folder {synset}, a synset that the list of classes does not have")
    return Xmls(files, index, folders), tuple(known.values())


def _pictures(root: Path) -> tuple[Pictures, dict[str, str]]:
    """The pictures by id, and the synset of those that lie in a folder of that name."""
    home = first_folder(root, PICTURES) or root
    found, folders = in_folder(home), {}
    for place in sorted(path for path in home.iterdir() if SYNSET.fullmatch(path.name) and path.is_dir()):
        for image_id, path in in_folder(place).items():
            if image_id in found:
                raise UserError(f"{path}: {found[image_id]} has the same name, and image ids must differ")
            found[image_id], folders[image_id] = path, place.name
    return Pictures(home, found), folders


def _mapping(root: Path | None, classes: str | None) -> dict[str, str]:
    if classes:
        return synsets.mapping(Path(classes).expanduser())
    there = [root / name for name in MAPPINGS if (root / name).is_file()] if root else []
    return synsets.mapping(there[0]) if there else {}


def _numbered(folders: Mapping[str, str], files: Mapping[str, Path]) -> dict[str, str]:
    """Synset -> name from the 1000 synsets among folders or, which takes seconds, in the XML files."""
    found = synsets.numbered(set(folders.values()))
    if not found and files:
        found = synsets.numbered({n.decode() for path in files.values() for n in NAMED.findall(path.read_bytes())})
    if not found and (folders or files):
        raise UserError(
            "dataset.classes is missing: there are not all 1000 synsets here, so which class is which is not known; "
            "give dataset.classes=FILE, LOC_synset_mapping.txt or another with a synset and its name a line"
        )
    return found or {}


def _allowed(ids: Sequence[str], blacklist: str | None) -> Sequence[str]:
    """The ids less those of the numbers in a file, each 1 to 50,000."""
    if not blacklist:
        return ids
    path, refused = Path(blacklist).expanduser(), set()
    for number, line in lines(path):
        if whole(path, number, line, 1) > LAST:
            raise UserError(f"{path}, line {number}: {line} is the number of no picture, they end at {LAST}")
        refused.add(f"ILSVRC2012_val_{int(line):08d}")
    return [image_id for image_id in ids if image_id not in refused]
