"""COCO's JSON: a file made by hand, every kind of segmentation, and what is wrong with broken ones; the real one."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from gradcam_bench.annotations import coco
from gradcam_bench.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "real" / "coco"


def content(**changes) -> dict:
    """Two pictures of 4x6 (height, width); a polygon, a crowd as runs, and a box alone, of two categories."""
    images = [{"id": k, "file_name": f"{name}.jpg", "height": 4, "width": 6} for k, name in ((5, "a"), (9, "b"))]
    square = [1.0, 1.0, 4.0, 1.0, 4.0, 3.0, 1.0, 3.0]
    annotations = [
        {"id": 1, "image_id": 5, "category_id": 40, "bbox": [1, 1, 3, 2], "segmentation": [square], "iscrowd": 0},
        {
            "id": 2, "image_id": 5, "category_id": 7, "bbox": [0, 0, 6, 4], "iscrowd": 1,
            "segmentation": {"size": [4, 6], "counts": [20, 4]},
        },
        {"id": 3, "image_id": 9, "category_id": 7, "bbox": [0.5, 0, 2.25, 4]},
    ]  # fmt: skip
    categories = [{"id": 40, "name": "cat"}, {"id": 7, "name": "person"}]
    return {"images": images, "annotations": annotations, "categories": categories} | changes


def written(root: Path, made: object) -> Path:
    (root / "made.json").write_text(json.dumps(made))
    return root / "made.json"


def test_boxes_crowds_classes_and_masks(tmp_path: Path) -> None:
    read = coco.read(written(tmp_path, content()))
    assert read.classes == ("person", "cat")  # in the order of the category ids
    found = read.annotate("a", (4, 6), masks=True)
    assert (found.classes, found.boxes.tolist(), found.labels.tolist()) == ((1, 0), [[1, 1, 4, 3]], [1])
    square, crowd = torch.zeros(4, 6, dtype=torch.bool), torch.zeros(4, 6, dtype=torch.bool)
    square[1:3, 1:4], crowd[:, 5] = True, True
    assert torch.equal(found.masks, torch.stack([square, crowd]))
    assert found.mask_labels.tolist() == [1, 0]
    alone = read.annotate("b", (4, 6), masks=True)
    assert (alone.boxes.tolist(), alone.masks) == ([[0.5, 0, 2.75, 4]], None)


def test_an_image_without_annotations_and_a_file_with_a_mark(tmp_path: Path) -> None:
    path = written(tmp_path, content(annotations=[]))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b", ", b",\r\n"))
    read = coco.read(path)
    assert read.annotate("a", (4, 6), masks=True).classes == ()
    assert list(read.files.values()) == ["a.jpg", "b.jpg"]


def without(entry: dict, key: str) -> dict:
    return {name: value for name, value in entry.items() if name != key}


ONE = {"id": 1, "image_id": 5, "category_id": 7, "bbox": [0, 0, 1, 1]}
IMAGE = {"id": 5, "file_name": "a.jpg"}


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ([], "no COCO annotations, which are a mapping with a list of 'images'"),
        ({"images": []}, "with a list of 'annotations'"),
        (content(categories={}), "with a list of 'categories'"),
        (content(images=[3]), "with a list of 'images'"),
        (content(images=[IMAGE, IMAGE]), r"image 5 \(a\.jpg\) is listed twice"),
        (content(images=[IMAGE, IMAGE | {"id": 6}]), r"image 6 \(a\.jpg\) is listed twice"),
        (content(images=[without(IMAGE, "file_name")]), "image 5 has no 'file_name'"),
        (content(images=[IMAGE | {"id": [1]}]), r"has 'id': \[1\], which is no id"),
        (content(images=[IMAGE | {"height": "4", "width": 6}]), "has no whole height and width"),
        (content(images=[IMAGE | {"height": 4}]), "has no whole height and width"),
        (content(categories=[{"id": 7, "name": "x"}] * 2), "category 7 is listed twice"),
        (content(categories=[{"id": "7", "name": "x"}]), "'7', which is no id"),
        (content(annotations=[ONE | {"image_id": 6}]), "annotation 1 is of image 6, which the file does not list"),
        (content(annotations=[ONE | {"category_id": 8}]), "annotation 1 is of category 8, which the file"),
        (content(annotations=[without(ONE, "bbox")]), "annotation 1 has no 'bbox'"),
        (content(annotations=[ONE | {"bbox": [1, 2, 3]}]), r"bbox of annotation 1 is not four numbers: \[1, 2, 3\]"),
        (content(annotations=[ONE | {"bbox": [1, 2, 3, float("nan")]}]), "bbox of annotation 1 is not four numbers"),
        (content(annotations=[ONE | {"bbox": 3}]), "bbox of annotation 1 is not four numbers"),
    ],
)
def test_a_broken_file_is_a_sentence(tmp_path: Path, made: object, why: str) -> None:
    with pytest.raises(UserError, match=why) as error:
        coco.read(written(tmp_path, made))
    assert str(tmp_path / "made.json") in str(error.value)


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe\xfd", b"", b"[" * 100_000])
def test_no_json_is_a_sentence(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "made.json").write_bytes(raw)
    with pytest.raises(UserError, match=r"made\.json: no readable JSON"):
        coco.read(tmp_path / "made.json")
    with pytest.raises(UserError, match="no such annotations"):
        coco.read(tmp_path / "gone.json")


def test_a_box_without_a_pixel_is_a_problem(tmp_path: Path) -> None:
    made = content(annotations=[ONE | {"bbox": [2, 2, 0, 1]}, ONE | {"bbox": [9, 9, 1, 1]}])
    found = coco.read(written(tmp_path, made)).annotate("a", (4, 6), masks=False)
    assert (found.boxes.shape, len(found.problems), found.classes) == ((0, 4), 2, (0,))


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ([[1, 1, 2, 2]], "a polygon of 4 numbers"),
        ([[1, 1, 2, 2, 3, 3, 4]], "a polygon of 7 numbers"),
        ([[1, 1, 2, 2, float("nan"), 3]], "a polygon of 6 numbers"),
        ({"size": [4, 5], "counts": [20]}, "the mask has 5x4 pixels, its picture 6x4"),
        ({"size": [4, 6], "counts": [20]}, "its runs do not add up to 6x4 pixels"),
        ({"counts": [20]}, "size"),
        ("mask.png", "cannot be read"),
        ([3], "cannot be read"),
    ],
)
def test_a_broken_segmentation_is_named_when_masks_are_asked_for(
    tmp_path: Path, segmentation: object, why: str
) -> None:
    read = coco.read(written(tmp_path, content(annotations=[ONE | {"segmentation": segmentation}])))
    assert read.annotate("a", (4, 6), masks=False).boxes.tolist() == [[0, 0, 1, 1]]
    with pytest.raises(UserError, match=why) as error:
        read.annotate("a", (4, 6), masks=True)
    assert "the segmentation of annotation 1 cannot be read" in str(error.value)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real pictures are not beside this checkout")
def test_the_real_file_as_pycocotools_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    path = REAL / "annotations" / "instances_train2017.json"
    read, theirs = coco.read(path), COCO(str(path))
    assert len(read.files) == 96
    assert len(read.classes) == 80
    assert (read.classes[0], read.classes[79]) == ("person", "toothbrush")
    numbers = {category: index for index, category in enumerate(sorted(theirs.cats))}
    crowds = 0
    for entry in theirs.imgs.values():
        found = read.annotate(entry["file_name"].removesuffix(".jpg"), (entry["height"], entry["width"]), masks=True)
        mine = theirs.imgToAnns[entry["id"]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            masks = [theirs.annToMask(one) for one in mine]
        if mine:
            assert np.array_equal(found.masks.numpy(), np.stack(masks))
            assert found.mask_labels.tolist() == [numbers[one["category_id"]] for one in mine]
        boxes = [one["bbox"] for one in mine if not one["iscrowd"]]
        crowds += len(mine) - len(boxes)
        assert found.problems == ()
        for (x, y, width, height), box in zip(boxes, found.boxes.tolist(), strict=True):
            assert box == pytest.approx([x, y, x + width, y + height], abs=1e-3)
    assert crowds == 7
