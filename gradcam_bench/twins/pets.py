"""The six scenes as pets: Oxford's trimaps, and Stanford's boxes with lists in MATLAB's format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat
from scipy.ndimage import binary_dilation

from gradcam_bench.datasets.scenes import CLASSES
from gradcam_bench.twins.scenes import Twin, Written, picture, text, xml

BREEDS = [f"n{10 * (index + 3):08d}-{name}" for index, name in enumerate(CLASSES)]
HEAD = ["#Image CLASS-ID SPECIES BREED ID", "#SPECIES: 1:Cat 2:Dog"]  # as list.txt begins


def oxford_pet(root: Path, twins: tuple[Twin, ...]) -> Written:
    """The trimap's outline lies round the pet; a box of a head is there for the first picture alone."""
    home, ids = root / "annotations", [f"{CLASSES[t.labels[0]]}_{k}" for k, t in enumerate(twins)]
    for image_id, twin in zip(ids, twins, strict=True):
        picture(root / "images" / f"{image_id}.jpg", twin)
        trimap = np.full(twin.size, 2, np.uint8)
        trimap[binary_dilation(twin.masks[0], iterations=2)] = 3
        trimap[twin.masks[0]] = 1
        (home / "trimaps").mkdir(parents=True, exist_ok=True)
        Image.fromarray(trimap).save(home / "trimaps" / f"{image_id}.png")
        (home / "trimaps" / f"._{image_id}.png").write_bytes(b"a Macintosh's")
    xml(home / "xmls" / f"{ids[0]}.xml", twins[0], ["cat"] * len(CLASSES), 1)
    rows = [f"{image_id} {twin.labels[0] + 1} 1 1" for image_id, twin in zip(ids, twins, strict=True)]
    text(home / "test.txt", rows)
    text(home / "trainval.txt", ["disc_of_training 1 1 1"])
    text(home / "list.txt", [*HEAD, *rows, "disc_of_training 1 1 1"])
    return Written("oxford_pet", {"root": str(root)}, ids)


def stanford_dogs(root: Path, twins: tuple[Twin, ...]) -> Written:
    ids = [f"{BREEDS[t.labels[0]]}/{BREEDS[t.labels[0]].partition('-')[0]}_{k}" for k, t in enumerate(twins)]
    for breed in BREEDS:
        (root / "Images" / breed).mkdir(parents=True, exist_ok=True)
    for image_id, twin in zip(ids, twins, strict=True):
        picture(root / "Images" / f"{image_id}.jpg", twin)
        xml(root / "Annotation" / image_id, twin, list(CLASSES), 0)
    files = np.array([[f"{image_id}.jpg"] for image_id in ids], dtype=object)
    savemat(root / "test_list.mat", {"file_list": files, "labels": np.array([[t.labels[0] + 1] for t in twins])})
    return Written("stanford_dogs", {"root": str(root), "numbering": "own"}, ids)
