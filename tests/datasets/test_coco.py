"""COCO on disk, and folders with COCO annotations: where files lie, missing ones, settings; the real pictures."""

import json
from pathlib import Path

import pytest

from gradcam_bench.datasets.coco import coco
from gradcam_bench.datasets.folder import folder
from gradcam_bench.datasets.scenes import CLASSES
from gradcam_bench.errors import UserError
from gradcam_bench.twins.layouts import COUNT, folder_coco, folder_table, scenes
from gradcam_bench.twins.layouts import coco as written_twins

REAL = Path(__file__).parents[3] / "shared" / "real" / "coco"


def test_where_the_pictures_may_lie(tmp_path: Path) -> None:
    written_twins(tmp_path, scenes())
    first = coco(str(tmp_path)).read(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "val2017").rename(tmp_path / "images/val2017")
    assert coco(str(tmp_path)).read(0).digest == first.digest
    alone = coco(annotations=str(tmp_path / "annotations/instances_val2017.json"))
    assert alone.annotate(0).boxes.tolist() == scenes()[0].boxes
    with pytest.raises(UserError, match=r"000000000139: the picture is needed, give dataset\.root=DIR"):
        alone.read(0)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    written_twins(tmp_path, scenes())
    (tmp_path / "val2017/000000000140.jpg").unlink()
    with pytest.raises(UserError, match=r"000000000140\.jpg: no such image"):
        coco(str(tmp_path)).read(1)
    assert len(coco(str(tmp_path), subset="present").ids) == COUNT - 1
    with pytest.raises(UserError, match=r"dataset\.split=val: no .*instances_val\.json \(there: val2017\)"):
        coco(str(tmp_path), split="val")
    with pytest.raises(UserError, match=r"dataset\.root is missing"):
        coco()
    with pytest.raises(UserError, match=r"dataset\.root: .*gone is no folder"):
        coco(str(tmp_path / "gone"))


def test_a_picture_of_another_size_than_declared_is_refused(tmp_path: Path) -> None:
    written_twins(tmp_path, scenes())
    path = tmp_path / "annotations/instances_val2017.json"
    made = json.loads(path.read_text())
    made["images"][0] |= {"height": 99, "width": 99}
    del made["images"][1]["height"], made["images"][1]["width"]
    path.write_text(json.dumps(made))
    with pytest.raises(UserError, match="000000000139: annotated on 99x99 pixels, the picture has"):
        coco(str(tmp_path)).read(0)
    assert coco(str(tmp_path)).annotate(1).size == scenes()[1].size  # not declared: off the picture's header


def test_a_folder_with_annotations(tmp_path: Path) -> None:
    folder_coco(tmp_path, scenes())
    made = folder(str(tmp_path))
    assert made.classes == CLASSES
    (tmp_path / "annotations.json").rename(tmp_path / "mine.json")
    elsewhere = folder(str(tmp_path), annotations=str(tmp_path / "mine.json"), classes=list("abcdefghijk"))
    assert elsewhere.classes == tuple("abcdefghijk")
    assert elsewhere.annotate(0).boxes.tolist() == made.annotate(0).boxes.tolist()
    with pytest.raises(UserError, match=r"dataset\.classes names only 1 classes, .*mine\.json has 10"):
        folder(str(tmp_path), annotations=str(tmp_path / "mine.json"), classes=["a"])
    with pytest.raises(UserError, match=r"gone\.json: no such annotations"):
        folder(str(tmp_path), annotations=str(tmp_path / "gone.json"))


def test_a_table_goes_before_annotations_that_are_not_asked_for(tmp_path: Path) -> None:
    folder_coco(tmp_path, scenes())
    folder_table(tmp_path, scenes())
    assert folder(str(tmp_path), annotations=str(tmp_path / "annotations.json")).annotate(0, True).masks is not None
    (tmp_path / "annotations.json").write_text("{")
    assert len(folder(str(tmp_path)).ids) == COUNT


@pytest.mark.skipif(not REAL.is_dir(), reason="the real pictures are not beside this checkout")
def test_real_pictures_have_the_declared_sizes() -> None:
    made = coco(str(REAL), split="train2017", subset="present")
    assert (len(made.ids), len(made.classes)) == (96, 80)
    for index in range(0, 96, 8):
        picture = made.read(index, masks=True)
        assert (picture.image.height, picture.image.width) == picture.annotation.size
        assert picture.annotation.problems == ()
