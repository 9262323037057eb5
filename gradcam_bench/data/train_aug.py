"""VOC's train_aug: the 10,582 pictures and masks that segmentation networks are trained on.

The pictures of SBD (Hariharan et al. 2011, train and val) and of VOC 2012's segmentation train, less those of its val.
The mask is VOC's own where there is one, which has its outlines marked, and SBD's elsewhere, as those who first mixed
them had it.

    root/benchmark_RELEASE/dataset/{train, val}.txt, cls/<id>.mat
    -> root/VOCdevkit/VOC2012/SegmentationClassAug/<id>.png, ImageSets/Segmentation/train_aug.txt
"""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from gradcam_bench.annotations import matlab
from gradcam_bench.annotations.lists import lines
from gradcam_bench.annotations.pictures import PALETTE
from gradcam_bench.errors import UserError
from gradcam_bench.files import atomically, write_text


def write(root: Path) -> int:
    """Writes the masks that are not there yet, then the list; returns how many pictures it names."""
    sbd, voc = root / "benchmark_RELEASE" / "dataset", root / "VOCdevkit" / "VOC2012"
    if not (voc / "ImageSets" / "Segmentation" / "train.txt").is_file():
        raise UserError(f"{voc}: no ImageSets/Segmentation/train.txt; VOC 2012 itself is needed first")
    ours = {split: _ids(voc / "ImageSets" / "Segmentation" / f"{split}.txt") for split in ("train", "val")}
    theirs = _ids(sbd / "train.txt") | _ids(sbd / "val.txt")
    kept = sorted((theirs | ours["train"]) - ours["val"])
    for image_id in kept:
        target = voc / "SegmentationClassAug" / f"{image_id}.png"
        if not target.is_file():
            own = voc / "SegmentationClass" / f"{image_id}.png" if image_id in ours["train"] else None
            atomically(target, lambda path, one=image_id, own=own: _mask(sbd, one, own, path))  # type: ignore[misc]
    write_text(voc / "ImageSets" / "Segmentation" / "train_aug.txt", "".join(f"{image_id}\n" for image_id in kept))
    return len(kept)


def _ids(path: Path) -> set[str]:
    return {line for _, line in lines(path)}


def _mask(sbd: Path, image_id: str, own: Path | None, path: Path) -> None:
    if own is not None:
        shutil.copyfile(own, path)
        return
    drawn = Image.fromarray(matlab.segmentation(sbd / "cls" / f"{image_id}.mat"))
    drawn.putpalette(PALETTE)
    drawn.save(path, format="PNG")
