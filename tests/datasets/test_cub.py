"""CUB: the published tables beside what the twins show, splits, and what is wrong with broken ones; the real lists."""

from pathlib import Path

import pytest
from PIL import Image

from gradcam_bench.datasets.cub import cub
from gradcam_bench.errors import UserError
from gradcam_bench.twins.layouts import COUNT, cub_lists, cub_official, cubv2, scenes

LISTS = Path(__file__).parents[3] / "shared" / "real" / "wsol_metadata"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    cub_official(tmp_path, scenes("one"))
    return tmp_path / "CUB_200_2011"


def test_splits_names_and_roots(home: Path) -> None:
    test, train = cub(str(home.parent)), cub(str(home), split="train")
    assert (len(test.ids), list(train.ids)) == (COUNT, ["001.disc/Bird_of_training.jpg"])
    assert (len(test.classes), test.classes[0], test.classes[150]) == (200, "disc", "150")
    with pytest.raises(UserError, match=r"Bird_of_training\.jpg: no such image"):
        train.annotate(0)


def test_both_sources_agree_on_a_box_at_the_edge(tmp_path: Path) -> None:
    """x + width is the picture's width, as in the published tables: the lists have one less."""
    twin = scenes("one")[0]
    height, width = twin.size
    lists = cub_lists(tmp_path, scenes("one"))
    path = tmp_path / "metadata/CUB/test/localization.txt"
    path.write_text(f"{lists.ids[0]},10,20,{width - 1},{height - 1}\n")
    official = cub_official(tmp_path, scenes("one"))
    table = tmp_path / "CUB_200_2011/bounding_boxes.txt"
    rows = table.read_text().splitlines()
    table.write_text("\n".join([rows[0], f"2 10.0 20.0 {width - 10}.0 {height - 20}.0", *rows[2:]]))
    boxes = [cub(**written.settings).annotate(0).boxes.tolist() for written in (lists, official)]
    assert boxes[0] == boxes[1] == [[10, 20, width, height]]


def test_cubv2_is_the_lists_val_split(tmp_path: Path) -> None:
    written = cubv2(tmp_path, scenes("one"))
    made = cub(**written.settings, split="val")
    assert list(made.ids) == written.ids
    cub_official(tmp_path, scenes("one"))
    with pytest.raises(UserError, match=r"dataset\.metadata is missing: `val` is CUBV2"):
        cub(str(tmp_path), split="val")
    with pytest.raises(UserError, match=r"unknown dataset\.split 'tests': did you mean 'test'\?"):
        cub(str(tmp_path), split="tests")


def test_segmentations_missing_or_of_another_size(home: Path) -> None:
    made = cub(str(home))
    path = (home / "segmentations" / made.ids[0]).with_suffix(".png")
    Image.new("L", (3, 2)).save(path)
    with pytest.raises(UserError, match=r"\.png: the mask has 3x2 pixels, its picture"):
        made.read(0, masks=True)
    path.unlink()
    with pytest.raises(UserError, match=r"\.png: no such mask"):
        made.annotate(0, masks=True)
    (home / "segmentations").rename(home / "gone")
    assert cub(str(home)).annotate(0, masks=True).masks is None


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("images.txt", "1 a.jpg\n1 b.jpg\n", r"images\.txt, line 2: 1 is listed twice"),
        ("images.txt", "1 a.jpg\n2 a.jpg\n", r"images\.txt, line 2: a\.jpg is listed twice"),
        ("images.txt", "1\n", r"images\.txt, line 1: '1' is not number,file"),
        ("image_class_labels.txt", "1 1\n", r"image_class_labels\.txt: no line for 2 \(.*\), which images\.txt names"),
        ("image_class_labels.txt", "1 0\n2 x\n", r"no line for 3"),
        ("train_test_split.txt", "1 1\n", r"train_test_split\.txt: no line for 2"),
        ("bounding_boxes.txt", "1 1 1 1\n", r"bounding_boxes\.txt, line 1: '1 1 1 1' is not number,x,y,width,height"),
        ("bounding_boxes.txt", None, r"bounding_boxes\.txt: no such list"),
    ],
)
def test_a_broken_table_is_a_sentence(home: Path, name: str, content: str | None, why: str) -> None:
    (home / name).unlink()
    if content is not None:
        (home / name).write_text(content)
    with pytest.raises(UserError, match=why):
        cub(str(home))


@pytest.mark.parametrize(
    ("name", "old", "new", "why"),
    [
        ("image_class_labels.txt", "1 1\n", "1 0\n", "line 1: '0' is no whole number of at least 1"),
        ("image_class_labels.txt", "1 1\n", "1 201\n", "line 1: class 201, but there are only 200 classes"),
        ("bounding_boxes.txt", "1.0 1.0", "1.0 one", r"line 1: no finite numbers in '1\.0,one,5\.0,5\.0'"),
    ],
)
def test_a_wrong_entry_is_a_sentence(home: Path, name: str, old: str, new: str, why: str) -> None:
    (home / name).write_bytes((home / name).read_text().replace(old, new, 1).replace("\n", "\r\n").encode())
    with pytest.raises(UserError, match=why):
        cub(str(home))


def test_wrong_roots_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.root is missing: give the folder that holds CUB_200_2011/"):
        cub()
    with pytest.raises(UserError, match=r"dataset\.root: no CUB_200_2011/images\.txt in"):
        cub(str(tmp_path))


@pytest.mark.skipif(not LISTS.is_dir(), reason="the real lists are not beside this checkout")
def test_the_real_lists_are_whole() -> None:
    for split, count in (("test", 5794), ("val", 1000)):
        made = cub(metadata=str(LISTS), split=split)
        found = [made.annotate(index) for index in range(len(made.ids))]
        assert len(found) == count
        assert {one.classes[0] for one in found} == set(range(200))
        assert all(len(one.boxes) == 1 and one.problems == () for one in found)
    assert cub(metadata=str(LISTS)).annotate(0).boxes.tolist() == [[60, 27, 386, 332]]  # from 60 27 325 304
