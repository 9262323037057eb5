"""The text lists: corners, subsets by a shorter image_ids.txt, any line ends, and what is wrong with broken ones."""

from pathlib import Path

import pytest

from gradcam_bench.annotations import wsol
from gradcam_bench.errors import UserError

LISTS = {
    "image_ids.txt": "val/a.jpg\nval/b, c.jpg\n",
    "class_labels.txt": "val/a.jpg,2\nval/b, c.jpg,0\n",
    "image_sizes.txt": "val/a.jpg,6,4\nval/b, c.jpg,5,5\n",
    "localization.txt": "val/a.jpg,0,1,5,3\nval/b, c.jpg,1,1,1,1\nval/a.jpg,2,2,3,3\n",
}


def written(home: Path, **changed: str | bytes | None) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    for name, content in (LISTS | {f"{key}.txt": value for key, value in changed.items()}).items():
        if content is not None:
            (home / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return home


def test_corners_are_inclusive_and_sizes_have_the_width_first(tmp_path: Path) -> None:
    lists = wsol.read(written(tmp_path), 3)
    assert lists.ids == ("val/a.jpg", "val/b, c.jpg")  # an id may hold what separates the fields
    assert lists.size("val/a.jpg") == (4, 6)
    found = lists.annotate("val/a.jpg", (4, 6), masks=True)
    assert found.boxes.tolist() == [[0, 1, 6, 4], [2, 2, 4, 4]]
    assert (found.classes, found.labels.tolist(), found.masks) == ((2,), [2, 2], None)
    assert lists.annotate("val/b, c.jpg", (5, 5), masks=False).boxes.tolist() == [[1, 1, 2, 2]]


@pytest.mark.parametrize("change", [lambda s: s.replace("\n", "\r\n"), lambda s: "\ufeff" + s, lambda s: s + "\n \n"])
def test_line_ends_and_marks_do_not_matter(tmp_path: Path, change) -> None:
    written(tmp_path, **{name.removesuffix(".txt"): change(content) for name, content in LISTS.items()})
    plain, other = wsol.read(written(tmp_path / "plain"), 3), wsol.read(tmp_path, 3)
    assert other.ids == plain.ids
    assert [other.facts(i) for i in plain.ids] == [plain.facts(i) for i in plain.ids]


def test_a_shorter_list_of_ids_is_a_subset(tmp_path: Path) -> None:
    assert wsol.read(written(tmp_path, image_ids="val/b, c.jpg"), 3).ids == ("val/b, c.jpg",)


def test_an_image_without_a_box_keeps_its_class(tmp_path: Path) -> None:
    found = wsol.read(written(tmp_path, localization=""), 3).annotate("val/a.jpg", (4, 6), masks=False)
    assert (found.classes, found.boxes.shape) == ((2,), (0, 4))


def test_a_box_outside_or_inverted_is_a_problem(tmp_path: Path) -> None:
    lists = wsol.read(written(tmp_path, localization="val/a.jpg,6,1,8,3\nval/a.jpg,3,3,1,1\nval/a.jpg,0,0,9,9\n"), 3)
    found = lists.annotate("val/a.jpg", (4, 6), masks=False)
    assert found.boxes.tolist() == [[0, 0, 6, 4]]
    assert len(found.problems) == 2


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"image_ids": "a\nb\na\n"}, r"image_ids\.txt, line 3: a is listed twice"),
        ({"image_ids": "\n"}, r"image_ids\.txt names no image"),
        ({"image_ids": "val/z.jpg"}, r"class_labels\.txt: no line for val/z\.jpg, which image_ids\.txt names"),
        ({"image_sizes": "val/a.jpg,6,4\n"}, r"image_sizes\.txt: no line for val/b, c\.jpg"),
        ({"image_sizes": "val/a.jpg,6,0\n"}, r"image_sizes\.txt, line 1: '0' is no whole number of at least 1"),
        ({"image_sizes": "val/a.jpg;6;4\n"}, r"line 1: 'val/a\.jpg;6;4' is not image,width,height"),
        ({"class_labels": "val/a.jpg,3\n"}, r"class_labels\.txt, line 1: class 3, but there are only 3 classes"),
        ({"class_labels": "val/a.jpg,cat\n"}, r"line 1: 'cat' is no whole number"),
        ({"class_labels": "val/a.jpg,-1\n"}, r"line 1: '-1' is no whole number"),
        ({"class_labels": "val/a.jpg,1\nval/a.jpg,1\n"}, r"class_labels\.txt, line 2: val/a\.jpg is listed twice"),
        ({"class_labels": None}, r"class_labels\.txt: no such list"),
        ({"localization": None}, r"localization\.txt: no such list"),
        ({"localization": "\nval/a.jpg,1,2,3\n"}, r"localization\.txt, line 2: '.*' is not image,x0,y0,x1,y1"),
        ({"localization": "val/a.jpg,1,2,x,4\n"}, r"line 1: no finite numbers in '1,2,x,4'"),
        ({"localization": "val/a.jpg,1,2,nan,4\n"}, r"line 1: no finite numbers"),
        ({"image_ids": b"caf\xe9.jpg"}, r"image_ids\.txt: no readable list in UTF-8"),
    ],
)
def test_a_broken_list_is_a_sentence_with_its_line(tmp_path: Path, changed: dict, why: str) -> None:
    with pytest.raises(UserError, match=why) as error:
        wsol.read(written(tmp_path, **changed), 3)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("inside", ["", "test", "ILSVRC/test", "metadata/ILSVRC/test"])
def test_the_lists_may_be_in_any_of_four_folders(tmp_path: Path, inside: str) -> None:
    written(tmp_path / inside)
    assert wsol.home(tmp_path, "ILSVRC", "test") == tmp_path / inside


def test_no_lists_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.metadata: no image_ids\.txt in .*, nor in its val, CUB/val"):
        wsol.home(tmp_path, "CUB", "val")
    with pytest.raises(UserError, match=r"dataset\.metadata: .*gone is no folder"):
        wsol.home(tmp_path / "gone", "CUB", "val")


def test_a_line_without_its_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"localization\.txt, line 1: no mask of val/a\.jpg is named"):
        wsol.read(written(tmp_path, localization="val/a.jpg,,\n"), 3, masks=True)
