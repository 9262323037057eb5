"""Folders of one's own pictures, with boxes.csv and without; what is wrong with broken ones; real ones."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gradcam_bench.datasets.folder import folder
from gradcam_bench.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "real"
HEADER = "image_id,class_index,x0,y0,x1,y1\n"


def laid_out(root: Path, table: str | bytes, names: tuple[str, ...] = ("a.png", "b.jpg")) -> Path:
    """Pictures of 4x6 (height, width) and a boxes.csv."""
    (root / "images").mkdir()
    for name in names:
        Image.new("RGB", (6, 4), (0, 99, 0)).save(root / "images" / name)
    (root / "boxes.csv").write_bytes(table.encode() if isinstance(table, str) else table)
    return root


def test_boxes_are_inclusive_pixels(tmp_path: Path) -> None:
    made = folder(str(laid_out(tmp_path, HEADER + "a,2,0,0,0,0\na,0,1,1,5,3\na,2,-3,2,9,2\n")))
    picture = made.read(0)
    assert made.ids == ["a", "b"]
    assert made.classes == ("0", "1", "2")
    assert picture.annotation.boxes.tolist() == [[0, 0, 1, 1], [1, 1, 6, 4], [0, 2, 6, 3]]
    assert picture.annotation.labels.tolist() == [2, 0, 2]
    assert picture.annotation.classes == (2, 0)
    assert picture.annotation.size == (picture.image.height, picture.image.width) == (4, 6)
    assert not picture.annotation.difficult.any()
    assert made.read(1).annotation.classes == ()  # a picture that the table does not name
    assert made.annotate(0).boxes.tolist() == picture.annotation.boxes.tolist()


def test_columns_in_any_order_with_more_of_them_and_a_byte_order_mark(tmp_path: Path) -> None:
    table = "y1,note,x1,y0,x0,class_index,wnid,image_id,width,height\r\n2,hm,3,1,0,1,n01,a,6,4\r\n"
    made = folder(str(laid_out(tmp_path, b"\xef\xbb\xbf" + table.encode())))
    assert made.read(0).annotation.boxes.tolist() == [[0, 1, 4, 3]]
    assert made.annotate(0).size == (4, 6)


def test_a_declared_size_that_is_not_the_pictures_is_refused(tmp_path: Path) -> None:
    made = folder(str(laid_out(tmp_path, "width,height," + HEADER + "12,8,a,0,0,0,1,1\n")))
    with pytest.raises(UserError, match=r"a: annotated on 12x8 pixels, the picture has 6x4"):
        made.read(0)


def test_the_declared_size_decides_whether_boxes_were_drawn_on_stored_pixels(tmp_path: Path) -> None:
    laid_out(tmp_path, "width,height," + HEADER + "6,4,a,0,0,0,1,1\n4,6,b,0,0,0,1,1\n")
    exif = Image.Exif()
    exif[0x112] = 6
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (6, 4)).save(tmp_path / "images" / name, exif=exif)
    made = folder(str(tmp_path))
    assert [made.read(i).image.size for i in range(2)] == [(6, 4), (4, 6)]


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("image_id,x0,y0,x1\n", r"boxes.csv: no column class_index, y1 \(needed: image_id, class_index"),
        ("", "no column image_id"),
        (HEADER + "a,0,1,1,2,2\na,0,1,x,2,2\n", "line 3: no finite numbers in '1,x,2,2'"),
        (HEADER + "\n\na,0,1,1,2,2\n\na,0,1,,2,2\n", "line 6: no finite numbers"),
        (HEADER + "a,0,1,1,2\n", "line 2: no finite numbers"),
        (HEADER + "a,cat,1,1,2,2\n", "line 2: 'cat' is no whole number"),
        (HEADER + "a,0.5,1,1,2,2\n", "line 2: '0.5' is no whole number"),
        (HEADER + "a,-1,1,1,2,2\n", "line 2: '-1' is no whole number of at least 0"),
        (HEADER + "a,0,nan,1,2,2\n", "line 2: no finite numbers"),
        (HEADER + "a,0,1,1,inf,2\n", "line 2: no finite numbers"),
        ((HEADER + "\xe9t\xe9,0,1,1,2,2\n").encode("latin-1"), r"boxes.csv: no readable CSV in UTF-8"),
    ],
)
def test_a_broken_table_is_a_sentence_with_the_line(tmp_path: Path, table: str | bytes, why: str) -> None:
    with pytest.raises(UserError, match=why) as error:
        folder(str(laid_out(tmp_path, table)))
    assert str(tmp_path / "boxes.csv") in str(error.value)


def test_boxes_without_a_pixel_are_problems(tmp_path: Path) -> None:
    made = folder(str(laid_out(tmp_path, HEADER + "a,0,3,3,1,1\na,0,8,8,9,9\na,0,1,1,2,2\n"))).read(0).annotation
    assert made.boxes.tolist() == [[1, 1, 3, 3]]
    assert len(made.problems) == 2


def test_a_row_without_its_picture_is_named_when_it_is_read(tmp_path: Path) -> None:
    made = folder(str(laid_out(tmp_path, HEADER + "a,0,1,1,2,2\nzebra,0,1,1,2,2\n")))
    assert made.ids == ["a", "b", "zebra"]
    for ask in (made.read, made.annotate):
        with pytest.raises(UserError, match="no picture named zebra in"):
            ask(2)


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds both a\.jpg and a\.png: image ids must differ"):
        folder(str(laid_out(tmp_path, HEADER + "a,0,1,1,2,2\n", ("a.png", "a.jpg"))))


def test_classes_by_name(tmp_path: Path) -> None:
    laid_out(tmp_path, HEADER + "a,1,1,1,2,2\n")
    (tmp_path / "names.txt").write_text("cat\n\ndog \n")
    assert folder(str(tmp_path), classes=str(tmp_path / "names.txt")).classes == ("cat", "dog")
    assert folder(str(tmp_path), classes=["cat", "dog", "cow"]).classes == ("cat", "dog", "cow")
    with pytest.raises(UserError, match=r"class_index 1, but dataset.classes names only 1"):
        folder(str(tmp_path), classes=["cat"])
    with pytest.raises(UserError, match=r"dataset.classes: .*gone.txt is no file"):
        folder(str(tmp_path), classes=str(tmp_path / "gone.txt"))


def by_class(root: Path) -> Path:
    for name in ("dog/x.png", "cat/x.png", "cat/y.jpg", "cat/.z.jpg", "cat/note.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 4)).save(root / name, "PNG")
    return root


def test_a_folder_a_class(tmp_path: Path) -> None:
    (tmp_path / ".ipynb_checkpoints").mkdir()  # an editor's, not the first class
    made = folder(str(by_class(tmp_path)))
    assert made.classes == ("cat", "dog")
    assert made.ids == ["cat/x", "cat/y", "dog/x"]
    assert [made.read(i).annotation.classes for i in range(3)] == [(0,), (0,), (1,)]
    assert made.annotate(2).boxes.shape == (0, 4)
    in_order = folder(str(tmp_path), classes=["dog", "cow", "cat"])
    assert [in_order.annotate(i).classes for i in range(3)] == [(2,), (2,), (0,)]


def test_wrong_roots_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.root is missing"):
        folder(None)
    with pytest.raises(UserError, match="is no folder"):
        folder(str(tmp_path / "gone"))
    with pytest.raises(UserError, match="holds no pictures"):
        folder(str(tmp_path))
    (tmp_path / "boxes.csv").write_text(HEADER)
    with pytest.raises(UserError, match="images is no folder"):
        folder(str(tmp_path))
    (tmp_path / "boxes.csv").unlink()
    (tmp_path / "images").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "images/a.png")
    with pytest.raises(UserError, match=r"has images/ and neither boxes\.csv nor annotations\.json beside it"):
        folder(str(tmp_path))
    assert folder(str(tmp_path), classes=["images"]).classes == ("images",)


def test_the_fingerprint_follows_pictures_and_boxes(tmp_path: Path) -> None:
    root = laid_out(tmp_path, HEADER + "a,0,1,1,2,2\n")
    prints = [folder(str(root)).fingerprint(), folder(str(root), name="other").fingerprint()]
    assert prints[0] == prints[1]
    (root / "boxes.csv").write_text(HEADER + "a,0,1,1,2,3\n")
    prints.append(folder(str(root)).fingerprint())
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "images/a.png")
    prints.append(folder(str(root)).fingerprint())
    assert len(set(prints)) == 3


@pytest.mark.parametrize(("name", "count", "read"), [("imagenet_val_subset", 40, 40), ("imagenet_val_227", 1000, 20)])
@pytest.mark.skipif(not REAL.is_dir(), reason="the real pictures are not beside this checkout")
def test_real_pictures_read_without_problems(name: str, count: int, read: int) -> None:
    made = folder(str(REAL / name))
    assert len(made.ids) == count
    for index in range(read):
        picture = made.read(index)
        width, height = picture.image.size
        boxes = picture.annotation.boxes
        assert picture.annotation.problems == ()
        assert len(boxes)
        assert (boxes >= 0).all()
        assert (boxes <= boxes.new_tensor([width, height, width, height])).all()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("a,2007000027,0,0,3,3,8,8", "line 2: class_index 2007000027: that is no index of a class"),
        ("a,999999999999999999999,0,0,3,3,8,8", "that is no index of a class"),
        ("a,0,0,0,3,3,0,0", "line 2: '0' is no whole number of at least 1"),
        ("a,0,0,0,3,3,²,²", "line 2: '²' is no whole number of at least 1"),
    ],
)
def test_slips_in_the_table_name_their_line(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    (tmp_path / "boxes.csv").write_text(f"image_id,class_index,x0,y0,x1,y1,width,height\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(sentence)):
        folder(str(tmp_path))


def test_an_image_id_may_be_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    (tmp_path / "boxes.csv").write_text("image_id,class_index,x0,y0,x1,y1\na.png,0,1,2,3,4\n")
    made = folder(str(tmp_path))
    assert list(made.ids) == ["a"]
    assert made.read(0).annotation.boxes.tolist() == [[1, 2, 4, 5]]
