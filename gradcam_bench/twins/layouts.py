"""Scenes written in the true layout of every data set, so that each reader can be held against what was drawn.

Each writer puts them below a root and returns what to ask for: the data set's name, its settings, and the image ids in
the scenes' order. The index of a class is that of the shape in every layout.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from gradcam_bench.annotations import synsets
from gradcam_bench.datasets.scenes import CLASSES
from gradcam_bench.datasets.voc import CLASSES as VOC
from gradcam_bench.twins.pets import oxford_pet, stanford_dogs
from gradcam_bench.twins.scenes import COUNT, Twin, Written, picture, scenes, text, xml

__all__ = ["BIRDS", "COUNT", "SYNSETS", "WRITERS", "Twin", "Written", "scenes"]

SYNSETS = [f"n{10 * (index + 3):08d}" for index in range(len(CLASSES))]
BIRDS = [f"{index + 1:03d}.{name}" for index, name in enumerate(CLASSES)]


def voc(
    root: Path,
    twins: tuple[Twin, ...],
    year: int = 2012,
    names: Sequence[str] = VOC,
    lists: Sequence[str] = ("Main/val",),
) -> Written:
    home, ids = root / "VOCdevkit" / f"VOC{year}", [f"{year}_{index:06d}" for index in range(len(twins))]
    for image_id, twin in zip(ids, twins, strict=True):
        picture(home / "JPEGImages" / f"{image_id}.jpg", twin)
        xml(home / "Annotations" / f"{image_id}.xml", twin, names, 1)
        for place, numbers in (("SegmentationClass", twin.labels), ("SegmentationObject", range(len(twin.labels)))):
            drawn = np.zeros(twin.size, np.uint8)
            for mask, number in zip(twin.masks, numbers, strict=True):
                drawn[mask] = number + 1
            (home / place).mkdir(exist_ok=True)
            Image.fromarray(drawn).save(home / place / f"{image_id}.png")
    for name in lists:
        text(home / "ImageSets" / f"{name}.txt", ids)
    return Written("voc", {"root": str(root), "name": "voc"}, ids)


def wsol_lists(home: Path, twins: tuple[Twin, ...], paths: list[str], boxes: bool = True) -> None:
    """image_ids, class_labels, image_sizes and localization, in the scenes' order."""
    both = list(zip(paths, twins, strict=True))
    text(home / "image_ids.txt", paths)
    text(home / "class_labels.txt", [f"{path},{twin.labels[0]}" for path, twin in both])
    if boxes:
        text(home / "image_sizes.txt", [f"{path},{twin.size[1]},{twin.size[0]}" for path, twin in both])
        corners = [(path, *(box[0], box[1], box[2] - 1, box[3] - 1)) for path, twin in both for box in twin.boxes]
        text(home / "localization.txt", [",".join(map(str, row)) for row in corners])


def _imagenet(root: Path, twins: tuple[Twin, ...], pictures: str, boxes: str) -> Written:
    """pictures, boxes: folders below root; {} stands for the synset."""
    ids = [f"ILSVRC2012_val_{index + 1:08d}" for index in range(len(twins))]
    for image_id, twin in zip(ids, twins, strict=True):
        picture(root / pictures.format(SYNSETS[twin.labels[0]]) / f"{image_id}.JPEG", twin)
        xml(root / boxes / f"{image_id}.xml", twin, SYNSETS, 0)
    text(root / "LOC_synset_mapping.txt", [f"{synset} {name}" for synset, name in zip(SYNSETS, CLASSES, strict=True)])
    return Written("imagenet", {"root": str(root)}, ids)


def imagenet_kaggle(root: Path, twins: tuple[Twin, ...]) -> Written:
    return _imagenet(root, twins, "ILSVRC/Data/CLS-LOC/val", "ILSVRC/Annotations/CLS-LOC/val")


def imagenet_devkit(root: Path, twins: tuple[Twin, ...]) -> Written:
    return _imagenet(root, twins, "val", "bbox_val/val")


def imagenet_sorted(root: Path, twins: tuple[Twin, ...]) -> Written:
    return _imagenet(root, twins, "val/{}", "bbox_val/val")


def imagenet_lists(root: Path, twins: tuple[Twin, ...]) -> Written:
    ids = [f"ILSVRC2012_val_{index + 1:08d}" for index in range(len(twins))]
    for image_id, twin in zip(ids, twins, strict=True):
        picture(root / "val" / f"{image_id}.JPEG", twin)
    wsol_lists(root / "metadata/ILSVRC/test", twins, [f"val/{image_id}.JPEG" for image_id in ids])
    return Written("imagenet", {"root": str(root), "metadata": str(root / "metadata")}, ids)


def imagenette(root: Path, twins: tuple[Twin, ...]) -> Written:
    """A class' folder has the name of the ImageNet class of the shape's number."""
    known = list(synsets.index())
    ids = [f"{known[twin.labels[0]]}/{index}" for index, twin in enumerate(twins)]
    for image_id, twin in zip(ids, twins, strict=True):
        picture(root / "imagenette2-320/val" / f"{image_id}.JPEG", twin)
    return Written("imagenette", {"root": str(root)}, ids)


def imagenetv2(root: Path, twins: tuple[Twin, ...]) -> Written:
    ids = [f"{twin.labels[0]}/{index}" for index, twin in enumerate(twins)]
    for image_id, twin in zip(ids, twins, strict=True):
        picture(root / "val2" / f"{image_id}.jpeg", twin)
    wsol_lists(root / "metadata/ILSVRC/val", twins, [f"val2/{image_id}.jpeg" for image_id in ids])
    return Written("imagenetv2", {"root": str(root), "metadata": str(root / "metadata")}, ids)


def cub_official(root: Path, twins: tuple[Twin, ...]) -> Written:
    home, ids = root / "CUB_200_2011", [f"{BIRDS[t.labels[0]]}/Bird_{k:04d}_{k}.jpg" for k, t in enumerate(twins)]
    for image_id, twin in zip(ids, twins, strict=True):
        picture(home / "images" / image_id, twin)
        seen = np.full(twin.size, 51, np.uint8)  # one annotator of five sees a bird everywhere
        seen[twin.masks[0]] = 204
        segmentation = (home / "segmentations" / image_id).with_suffix(".png")
        segmentation.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(seen).save(segmentation)
    text(home / "images.txt", ["1 001.disc/Bird_of_training.jpg", *(f"{k + 2} {name}" for k, name in enumerate(ids))])
    text(home / "train_test_split.txt", ["1 1", *(f"{k + 2} 0" for k in range(len(ids)))])
    text(home / "image_class_labels.txt", ["1 1", *(f"{k + 2} {t.labels[0] + 1}" for k, t in enumerate(twins))])
    text(home / "classes.txt", [f"{k + 1} {name}" for k, name in enumerate(BIRDS)])
    sides = [(x0, y0, x1 - 1 - x0, y1 - 1 - y0) for x0, y0, x1, y1 in (twin.boxes[0] for twin in twins)]
    rows = [f"{k + 2} {' '.join(f'{side:.1f}' for side in four)}" for k, four in enumerate(sides)]
    text(home / "bounding_boxes.txt", ["1 1.0 1.0 5.0 5.0", *rows])
    return Written("cub", {"root": str(root)}, ids)


def _cub_lists(root: Path, twins: tuple[Twin, ...], place: str, split: str, dataset: str) -> Written:
    ids = [f"{BIRDS[twin.labels[0]]}/{index}.jpg" for index, twin in enumerate(twins)]
    for image_id, twin in zip(ids, twins, strict=True):
        picture(root / place / image_id, twin)
    wsol_lists(root / "metadata/CUB" / split, twins, ids)
    return Written(dataset, {"root": str(root), "metadata": str(root / "metadata")}, ids)


def cub_lists(root: Path, twins: tuple[Twin, ...]) -> Written:
    return _cub_lists(root, twins, "CUB_200_2011/images", "test", "cub")


def cubv2(root: Path, twins: tuple[Twin, ...]) -> Written:
    return _cub_lists(root, twins, "CUB", "val", "cubv2")


def openimages(root: Path, twins: tuple[Twin, ...]) -> Written:
    """Masks of two colours; the region to ignore is the upper half, in colours; the sizes' list is there but empty."""
    ids = [f"test/0{twin.labels[0]}xyz/{index:016x}.jpg" for index, twin in enumerate(twins)]
    rows = []
    for image_id, twin in zip(ids, twins, strict=True):
        stem = image_id.removesuffix(".jpg")
        picture(root / "OpenImages" / image_id, twin)
        ignored = np.zeros((*twin.size, 3), np.uint8)
        ignored[: twin.size[0] // 2] = 255
        Image.fromarray(ignored).save(root / "OpenImages" / f"{stem}_ignore.png")
        for k, mask in enumerate(twin.masks):
            Image.fromarray(mask).save(root / "OpenImages" / f"{stem}_m{k}.png")
            rows.append(f"{image_id},{stem}_m{k}.png,{'' if k else f'{stem}_ignore.png'}")
    home = root / "metadata/OpenImages/test"
    wsol_lists(home, twins, ids, boxes=False)
    text(home / "image_sizes.txt", [])
    text(home / "localization.txt", rows)
    return Written("openimages", {"root": str(root), "metadata": str(root / "metadata")}, ids)


def _instances(twins: tuple[Twin, ...], files: list[str]) -> dict[str, Any]:
    """COCO's JSON; category ids have gaps and are not in order, codes are compressed and not in turn."""
    annotations: list[dict[str, Any]] = []
    for image, twin in enumerate(twins):
        for label, (x0, y0, x1, y1), mask in zip(twin.labels, twin.boxes, twin.masks, strict=True):
            code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            counts: object = code["counts"].decode()
            if len(annotations) % 2:
                flat = np.concatenate([[False], mask.flatten("F"), [not mask[-1, -1]]])
                changes = np.flatnonzero(flat[1:] != flat[:-1])
                counts = np.diff(changes, prepend=0).tolist()
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 10 * image + 7, "category_id": 3 * label + 2, "iscrowd": 0}
                | {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": {"size": list(mask.shape), "counts": counts}}
            )
    images = [
        {"id": 10 * k + 7, "file_name": file, "height": twin.size[0], "width": twin.size[1]}
        for k, (file, twin) in enumerate(zip(files, twins, strict=True))
    ]
    categories = [{"id": 3 * index + 2, "name": name} for index, name in reversed(list(enumerate(CLASSES)))]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(root: Path, twins: tuple[Twin, ...], split: str = "val2017") -> Written:
    ids = [f"{139 + index:012d}" for index in range(len(twins))]
    for image_id, twin in zip(ids, twins, strict=True):
        picture(root / split / f"{image_id}.jpg", twin)
    made = _instances(twins, [f"{image_id}.jpg" for image_id in ids])
    text(root / "annotations" / f"instances_{split}.json", [json.dumps(made)])
    return Written("coco", {"root": str(root)}, ids)


def folder_table(root: Path, twins: tuple[Twin, ...]) -> Written:
    ids = [f"mine-{index}" for index in range(len(twins))]
    for image_id, twin in zip(ids, twins, strict=True):
        picture(root / "images" / f"{image_id}.png", twin)
    with (root / "boxes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image_id", "class_index", "x0", "y0", "x1", "y1"])
        for image_id, twin in zip(ids, twins, strict=True):
            for label, (x0, y0, x1, y1) in zip(twin.labels, twin.boxes, strict=True):
                table.writerow([image_id, label, x0, y0, x1 - 1, y1 - 1])
    return Written("folder", {"root": str(root), "classes": f"[{','.join(CLASSES)}]"}, ids)


def folder_coco(root: Path, twins: tuple[Twin, ...]) -> Written:
    ids = [f"day/mine-{index}" for index in range(len(twins))]
    for image_id, twin in zip(ids, twins, strict=True):
        picture(root / "images" / f"{image_id}.png", twin)
    text(root / "annotations.json", [json.dumps(_instances(twins, [f"{image_id}.png" for image_id in ids]))])
    return Written("folder", {"root": str(root)}, ids)


# What each layout can hold, the most first: every object, every object of one class, or one object; and of these masks.
WRITERS: dict[str, tuple[Callable[[Path, tuple[Twin, ...]], Written], tuple[str, ...], str]] = {
    "voc": (voc, ("all", "class", "one"), "boxes masks"),
    "coco": (coco, ("all", "class", "one"), "boxes masks"),
    "folder_coco": (folder_coco, ("all", "class", "one"), "boxes masks"),
    "folder_table": (folder_table, ("all", "class", "one"), "boxes"),
    "imagenet_kaggle": (imagenet_kaggle, ("class", "one"), "boxes"),
    "imagenet_devkit": (imagenet_devkit, ("class", "one"), "boxes"),
    "imagenet_sorted": (imagenet_sorted, ("class", "one"), "boxes"),
    "imagenet_lists": (imagenet_lists, ("class", "one"), "boxes"),
    "imagenetv2": (imagenetv2, ("class", "one"), "boxes"),
    "openimages": (openimages, ("class", "one"), "masks"),
    "cub_official": (cub_official, ("one",), "boxes masks"),
    "cub_lists": (cub_lists, ("one",), "boxes"),
    "cubv2": (cubv2, ("one",), "boxes"),
    "oxford_pet": (oxford_pet, ("one",), "boxes masks"),
    "stanford_dogs": (stanford_dogs, ("class", "one"), "boxes"),
}
