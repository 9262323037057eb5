"""ImageNet and ImageNetV2: class order, blacklist, lists alone, what is wrong with broken ones; real ones."""

import csv
import pickle
import time
from pathlib import Path

import pytest
import torch

from gradcam_bench.annotations import synsets
from gradcam_bench.datasets.imagenet import imagenet
from gradcam_bench.datasets.imagenetv2 import imagenetv2
from gradcam_bench.datasets.scenes import CLASSES
from gradcam_bench.errors import UserError
from gradcam_bench.twins.layouts import (
    COUNT,
    SYNSETS,
    imagenet_devkit,
    imagenet_kaggle,
    imagenet_lists,
    imagenet_sorted,
    scenes,
)
from gradcam_bench.twins.layouts import imagenetv2 as written_v2

REAL = Path(__file__).parents[3] / "shared" / "real"
LISTS = REAL / "wsol_metadata"
real = pytest.mark.skipif(not LISTS.is_dir(), reason="the real lists are not beside this checkout")


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    imagenet_kaggle(tmp_path, scenes("class"))
    return tmp_path


def first_xml(root: Path) -> Path:
    return root / "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml"


def test_classes_are_the_synsets_in_sorted_order_whatever_the_file_has(kaggle: Path) -> None:
    mapping = kaggle / "LOC_synset_mapping.txt"
    listed = mapping.read_text().splitlines()
    before = [imagenet(str(kaggle)).annotate(k).classes for k in range(COUNT)]
    mapping.write_bytes(("\ufeff" + "\r\n".join(reversed(listed))).encode())
    made = imagenet(str(kaggle))
    assert made.classes == CLASSES
    assert [made.annotate(k).classes for k in range(COUNT)] == before == [(t.labels[0],) for t in scenes("class")]


def test_the_mapping_may_lie_elsewhere(kaggle: Path, tmp_path: Path) -> None:
    (kaggle / "LOC_synset_mapping.txt").rename(tmp_path / "words.txt")
    assert imagenet(str(kaggle), classes=str(tmp_path / "words.txt")).classes == CLASSES
    with pytest.raises(UserError, match=r"dataset\.classes is missing: there are not all 1000 synsets here"):
        imagenet(str(kaggle))


THOUSAND = sorted([*SYNSETS, *(f"n1{index:07d}" for index in range(1000 - len(SYNSETS)))])


@pytest.mark.parametrize("inside", ["val/{0}/{0}.jpg", "bbox_val/val/{0}.xml"])
def test_all_1000_synsets_number_themselves(tmp_path: Path, inside: str) -> None:
    """From the folders; from the XML files where the pictures are not sorted. Names are then torchvision's."""
    write = imagenet_sorted if inside.endswith("jpg") else imagenet_devkit
    write(tmp_path, scenes("class"))
    (tmp_path / "LOC_synset_mapping.txt").unlink()
    for synset in THOUSAND:
        (tmp_path / inside.format(synset)).parent.mkdir(exist_ok=True)
        (tmp_path / inside.format(synset)).write_text(f"<a><object><name>{synset}</name></object></a>")
    made = imagenet(str(tmp_path))
    assert made.classes == synsets.names()
    for index, twin in enumerate(scenes("class")):
        assert made.annotate(index).classes == (THOUSAND.index(SYNSETS[twin.labels[0]]),)


def test_class_folders_without_boxes_have_classes_alone(tmp_path: Path) -> None:
    written = imagenet_sorted(tmp_path, scenes("class"))
    (tmp_path / "bbox_val").rename(tmp_path / "elsewhere")
    made = imagenet(str(tmp_path))
    for index, twin in enumerate(scenes("class")):
        found = made.read(index).annotation
        assert (found.classes, found.boxes.shape, found.size) == ((twin.labels[0],), (0, 4), twin.size)
    assert list(made.ids) == written.ids


def test_lists_alone_need_no_picture_until_one_is_read(tmp_path: Path) -> None:
    written = imagenet_lists(tmp_path, scenes("class"))
    alone = imagenet(metadata=written.settings["metadata"])
    with_pictures = imagenet(**written.settings)
    assert len(alone.classes) == 1000
    assert torch.equal(alone.annotate(1).boxes, with_pictures.read(1).annotation.boxes)
    with pytest.raises(UserError, match=r"ILSVRC2012_val_00000002: the picture is needed, give dataset\.root=DIR"):
        alone.read(1)
    assert pickle.loads(pickle.dumps(with_pictures)).fingerprint() == alone.fingerprint()


def test_the_blacklist_leaves_out_numbers(kaggle: Path) -> None:
    (kaggle / "black.txt").write_text("2\n5\n49999\n")
    (kaggle / "some.txt").write_text("ILSVRC2012_val_00000005\nval/ILSVRC2012_val_00000003.JPEG\n")
    ids = imagenet(str(kaggle), blacklist=str(kaggle / "black.txt")).ids
    assert [int(image_id[-8:]) for image_id in ids] == [1, 3, 4, 6]
    both = imagenet(str(kaggle), blacklist=str(kaggle / "black.txt"), subset=str(kaggle / "some.txt"))
    assert list(both.ids) == ["ILSVRC2012_val_00000003"]


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ("2\nzebra\n", r"black\.txt, line 2: 'zebra' is no whole number"),
        ("0\n", r"line 1: '0' is no whole number of at least 1"),
        ("50001\n", r"line 1: 50001 is the number of no picture, they end at 50000"),
        ("1\n2\n3\n4\n5\n6\n", "leaves no image"),
        (None, r"black\.txt: no such list"),
    ],
)
def test_a_wrong_blacklist_is_a_sentence(kaggle: Path, listed: str | None, why: str) -> None:
    if listed is not None:
        (kaggle / "black.txt").write_text(listed)
    with pytest.raises(UserError, match=why):
        imagenet(str(kaggle), blacklist=str(kaggle / "black.txt"))


def test_wrong_roots_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.root is missing: give the folder with ILSVRC/ or val/"):
        imagenet()
    with pytest.raises(UserError, match=r"dataset\.root: .*gone is no folder"):
        imagenet(str(tmp_path / "gone"))
    with pytest.raises(UserError, match="no image to use"):
        imagenet(str(tmp_path))
    imagenet_devkit(tmp_path, scenes("class"))
    (tmp_path / "bbox_val").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"pictures, but no boxes in .* give them, or dataset\.metadata"):
        imagenet(str(tmp_path))


def test_a_picture_or_annotation_that_is_missing_is_named(kaggle: Path) -> None:
    (kaggle / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000002.JPEG").unlink()
    first_xml(kaggle).unlink()
    made = imagenet(str(kaggle))
    assert len(made.ids) == COUNT
    with pytest.raises(UserError, match=r"val: no annotation ILSVRC2012_val_00000001\.xml"):
        made.annotate(0)
    with pytest.raises(UserError, match="no picture named ILSVRC2012_val_00000002 in"):
        made.read(1)
    assert list(imagenet(str(kaggle), subset="present").ids)[:2] == [made.ids[0], made.ids[2]]


def test_an_annotation_that_does_not_fit_its_picture(kaggle: Path) -> None:
    path = first_xml(kaggle)
    text = path.read_text()
    path.write_text(text.replace("<width>", "<width>1"))
    with pytest.raises(UserError, match=r"ILSVRC2012_val_00000001: annotated on 1\d+x\d+ pixels, the picture has"):
        imagenet(str(kaggle)).read(0)
    path.write_text(text.replace("<name>n", "<name>m").replace("</object>", "<extra/></object>"))
    found = imagenet(str(kaggle)).annotate(0)
    assert (found.classes, found.boxes.shape) == ((), (0, 4))
    assert "object 0 (m" in found.problems[0]
    path.write_text("<annotation>")
    with pytest.raises(UserError, match=r"ILSVRC2012_val_00000001\.xml: no readable XML"):
        imagenet(str(kaggle)).annotate(0)


def test_wrong_class_folders_are_sentences(tmp_path: Path) -> None:
    imagenet_sorted(tmp_path, scenes("class"))
    (tmp_path / "val/n99999999").mkdir()
    (tmp_path / "val/n99999999/x.jpg").touch()
    with pytest.raises(
        UserError, match="x lies in a folder n99999999, a synset that the list of classes does not have"
    ):
        imagenet(str(tmp_path))
    (tmp_path / "LOC_synset_mapping.txt").write_text("n01440764 tench\ntench\n")
    with pytest.raises(UserError, match=r"mapping\.txt, line 2: 'tench' is no synset with its name"):
        imagenet(str(tmp_path), classes=str(tmp_path / "LOC_synset_mapping.txt"))
    (tmp_path / "val/x.jpg").touch()
    with pytest.raises(UserError, match=r"x\.jpg has the same name, and image ids must differ"):
        imagenet(str(tmp_path))


def test_imagenetv2_by_folders_has_the_number_as_class(tmp_path: Path) -> None:
    written = written_v2(tmp_path, scenes("class"))
    made = imagenetv2(str(tmp_path))
    assert sorted(made.ids) == sorted(written.ids)
    for index, image_id in enumerate(made.ids):
        found = made.annotate(index)
        assert (found.classes, found.boxes.shape) == ((int(image_id.partition("/")[0]),), (0, 4))
    assert imagenetv2(str(tmp_path / "val2")).fingerprint() == made.fingerprint()
    (tmp_path / "some.txt").write_text(f"val2/{written.ids[3]}.jpeg\n")
    alone = imagenetv2(metadata=written.settings["metadata"], subset=str(tmp_path / "some.txt"))
    assert alone.ids == [written.ids[3]]
    assert alone.annotate(0).boxes.tolist() == scenes("class")[3].boxes
    (tmp_path / "val2/1000").mkdir()
    with pytest.raises(UserError, match="the classes are numbered from 0 to 999"):
        imagenetv2(str(tmp_path))
    with pytest.raises(UserError, match=r"dataset\.root is missing"):
        imagenetv2()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image to use"):
        imagenetv2(str(tmp_path / "empty"))


def test_50000_images_are_ready_at_once(tmp_path: Path) -> None:
    count, home = 50_000, tmp_path / "lists"
    home.mkdir()
    ids = [f"val/ILSVRC2012_val_{index + 1:08d}.JPEG" for index in range(count)]
    for name, rest in (("image_ids", ""), ("class_labels", ",7"), ("image_sizes", ",500,375")):
        (home / f"{name}.txt").write_text("".join(f"{image_id}{rest}\n" for image_id in ids))
    (home / "localization.txt").write_text("".join(f"{image_id},1,2,300,200\n" * 2 for image_id in ids))
    start = time.process_time()
    made = imagenet(metadata=str(home))
    made.fingerprint()
    ready = time.process_time()
    for index in range(1000):
        made.annotate(index)
    assert len(made.ids) == count
    assert ready - start < 4  # half a second on an idle core
    assert time.process_time() - ready < 1  # a millisecond each, 0.02 on an idle core


@real
def test_the_real_lists_have_the_official_boxes_of_the_real_pictures() -> None:
    made = imagenet(str(REAL / "imagenet_val_subset"), metadata=str(LISTS), subset="present")
    boxes: dict[str, list[list[float]]] = {}
    labels: dict[str, int] = {}
    with (REAL / "imagenet_val_subset/boxes.csv").open() as file:
        for row in csv.DictReader(file):
            corners = [float(row[key]) for key in ("x0", "y0", "x1", "y1")]
            boxes.setdefault(row["image_id"], []).append([*corners[:2], corners[2] + 1, corners[3] + 1])
            labels[row["image_id"]] = int(row["class_index"])
    assert len(boxes) == len(made.ids) == 40
    for index, image_id in enumerate(made.ids):
        found = made.read(index).annotation
        assert found.boxes.tolist() == boxes[image_id]
        assert found.classes == (labels[image_id],)
        assert found.problems == ()


@real
def test_the_real_lists_are_whole() -> None:
    everything, second = imagenet(metadata=str(LISTS)), imagenetv2(metadata=str(LISTS / "ILSVRC"))
    assert (len(everything.ids), len(second.ids)) == (50_000, 10_000)
    assert sum(len(boxes) for boxes in everything.truth.boxes.values()) == 80_477
    assert sum(len(boxes) for boxes in second.truth.boxes.values()) == 18_532
    assert everything.classes[65] == "sea snake"  # of the first picture
    assert everything.annotate(0).classes == (65,)
    for made in (everything, second):
        found = [made.annotate(index) for index in range(0, len(made.ids), 97)]
        assert all(one.problems == () and len(one.boxes) for one in found)
