"""OpenImages30k (Choe et al. 2020): 100 classes of Open Images V5, one class a picture, with masks and no boxes.

    root/test/<class>/<id>.jpg                     root, or its OpenImages/
    root/test/<class>/<id>_m<class>_<hash>.png     a mask an instance
    root/test/<class>/<id>_ignore.png              boxes of a crowd or the like: what they hold beside the masks counts
                                                   neither way
    metadata/OpenImages/test/                      the text lists of wsolevaluation; `val` is for validation

An id is a path as the lists have it. Sizes are not listed, so they are the picture's. Masks may have other pixels than
the picture (they are up to 1600 wide), and are brought to it by nearest neighbour, as the lists' own evaluator brings
them to its size. A class is named by its machine id, which is its folder's name without /m/.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from gradcam_bench.annotations import wsol
from gradcam_bench.annotations.annotated import Annotated, chosen
from gradcam_bench.annotations.lists import class_names, folder
from gradcam_bench.annotations.pictures import Pictures, holding
from gradcam_bench.errors import UserError

CLASSES = 100


def openimages(
    root: str | None = None,
    metadata: str | None = None,
    split: str = "test",
    classes: str | None = None,
    subset: str | None = None,
    name: str = "openimages",
) -> Annotated:
    """The data set. classes: a file with a name a line, for machine ids. subset: as for `imagenet`."""
    if not metadata:
        raise UserError("dataset.metadata is missing: give the folder that holds OpenImages/test/image_ids.txt")
    lists = wsol.read(wsol.home(metadata, "OpenImages", split), CLASSES, masks=True)
    home = folder("dataset.root", root) if root else None
    pictures = Pictures(holding(home, ("OpenImages", "dataset/OpenImages", "."), lists.ids) if home else None)
    machine = {label: f"/m/{PurePosixPath(image_id).parent.name}" for image_id, label in lists.labels.items()}
    names = class_names(classes) if classes else tuple(machine.get(label, str(label)) for label in range(CLASSES))
    if max(machine) >= len(names):
        raise UserError(f"dataset.classes: {classes} names {len(names)} classes, the lists have class {max(machine)}")
    ids = chosen(lists.ids, subset, pictures, lists.home)
    return Annotated(name, names, ids, replace(lists, pictures=pictures), pictures)
