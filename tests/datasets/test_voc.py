"""VOC devkits: a small one made by hand, in every layout, and what is wrong with broken ones; a real one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gradcam_bench.datasets.voc import CLASSES, Voc
from gradcam_bench.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "real" / "voc"

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"""


def xml(*objects: str, size: tuple[int, int] | None = (4, 6)) -> str:
    declared = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>" if size else ""
    return f"<annotation><folder>VOC</folder>{declared}{''.join(objects)}</annotation>"


def thing(name: str, *corners: float, difficult: int = 0) -> str:
    return OBJECT.format(*corners, name=name, difficult=difficult)


def devkit(root: Path, year: int = 2012, suffix: str = ".jpg") -> Path:
    """Two pictures of 4x6 (height, width): `a` with objects, `b` with none."""
    home = root / f"VOC{year}"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main", "SegmentationClass", "SegmentationObject"):
        (home / folder).mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (6, 4), (200, 10, 10)).save(home / "JPEGImages" / f"{name}{suffix}")
    objects = thing("cat", 1, 1, 1, 1), thing("person", 2, 1, 6, 4, difficult=1), thing("cat", 3, 2, 4, 3)
    (home / "Annotations" / "a.xml").write_text(xml(*objects))
    (home / "Annotations" / "b.xml").write_text(xml())
    (home / "ImageSets/Main/val.txt").write_text("a\nb\n")
    (home / "ImageSets/Main/cat_val.txt").write_text("a  1\nb -1\n\na  1\n")
    return home


@pytest.mark.parametrize("year", [2007, 2012])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_devkit_made_by_hand(tmp_path: Path, year: int, suffix: str) -> None:
    devkit(tmp_path / "VOCdevkit", year, suffix)
    voc = Voc(tmp_path, year=year)
    picture = voc.read(0)
    made = picture.annotation
    assert (voc.ids, picture.image.size, made.size) == (["a", "b"], (6, 4), (4, 6))
    assert made.boxes.tolist() == [[0, 0, 1, 1], [1, 0, 6, 4], [2, 1, 4, 3]]  # 1-based inclusive -> half-open
    assert [CLASSES[label] for label in made.labels] == ["cat", "person", "cat"]
    assert made.difficult.tolist() == [False, True, False]
    assert made.classes == (CLASSES.index("cat"), CLASSES.index("person"))
    assert made.problems == ()
    assert made.masks is None
    empty = voc.read(1).annotation
    assert (empty.classes, empty.boxes.shape, empty.problems) == ((), (0, 4), ())


@pytest.mark.parametrize("inside", ["VOCdevkit/VOC2012", "VOC2012", ""])
def test_the_root_may_be_any_of_three_folders(tmp_path: Path, inside: str) -> None:
    home = devkit(tmp_path / "VOCdevkit")
    root = {"VOCdevkit/VOC2012": tmp_path, "VOC2012": tmp_path / "VOCdevkit", "": home}[inside]
    assert Voc(root).home == home
    assert Voc(str(root)).ids == ["a", "b"]


def test_a_class_listing_is_read_too_and_ids_are_unique(tmp_path: Path) -> None:
    devkit(tmp_path)
    assert Voc(tmp_path, split="cat_val").ids == ["a", "b"]


def test_annotate_says_what_read_says(tmp_path: Path) -> None:
    home = devkit(tmp_path)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (6, 4)).save(home / "JPEGImages/turned.jpg", exif=exif)  # 6 high, 4 wide when upright
    box = thing("dog", 2, 2, 4, 6)
    for name, size in (("plain", None), ("zero", (0, 0)), ("upright", (6, 4)), ("stored", (4, 6))):
        (home / "JPEGImages" / f"{name}.jpg").write_bytes((home / "JPEGImages/turned.jpg").read_bytes())
        (home / "Annotations" / f"{name}.xml").write_text(xml(box, size=size))
        (home / "ImageSets/Main/val.txt").write_text(name)
        voc = Voc(tmp_path)
        alone, read = voc.annotate(0), voc.read(0)
        assert alone.size == read.annotation.size == (read.image.height, read.image.width), name
        assert alone.boxes.tolist() == read.annotation.boxes.tolist() == [[1, 1, 4, 4 if name == "stored" else 6]]


def test_a_declared_size_that_fits_no_pixels_is_a_problem(tmp_path: Path) -> None:
    home = devkit(tmp_path)
    (home / "Annotations/a.xml").write_text(xml(thing("cat", 1, 1, 12, 8), size=(8, 12)))
    assert Voc(tmp_path).read(0).annotation.problems == ("a: annotated on 12x8 pixels, the picture has 6x4",)


def labels(path: Path, numbers: list[list[int]]) -> None:
    paletted = Image.new("P", (len(numbers[0]), len(numbers)))
    paletted.putdata(np.uint8(numbers).flatten().tolist())
    paletted.putpalette(list(range(256)) * 3)
    paletted.save(path)


CAT, DOG = CLASSES.index("cat") + 1, CLASSES.index("dog") + 1
BY_CLASS = [[CAT, CAT, 255, 0, DOG, 0], [CAT, 255, 0, 0, 255, 0], [0, 0, 0, CAT, CAT, 0], [0, 0, 0, 0, 0, 0]]
BY_OBJECT = [[1, 1, 255, 0, 2, 0], [1, 255, 0, 0, 255, 0], [0, 0, 0, 3, 3, 0], [0, 0, 0, 0, 0, 0]]


def test_masks_of_instances_with_the_void(tmp_path: Path) -> None:
    home = devkit(tmp_path)
    labels(home / "SegmentationClass/a.png", BY_CLASS)
    labels(home / "SegmentationObject/a.png", BY_OBJECT)
    made = Voc(tmp_path).read(0, masks=True).annotation
    objects = torch.tensor(BY_OBJECT)
    assert made.mask_labels.tolist() == [CAT - 1, DOG - 1, CAT - 1]
    assert torch.equal(made.masks, torch.stack([objects == n for n in (1, 2, 3)]))
    assert torch.equal(made.ignore, objects == 255)
    assert Voc(tmp_path).read(1, masks=True).annotation.masks is None  # a picture without any


def test_masks_of_classes_where_there_are_no_instances(tmp_path: Path) -> None:
    home = devkit(tmp_path)
    labels(home / "SegmentationClass/a.png", BY_CLASS)
    made = Voc(tmp_path).annotate(0, masks=True)
    found = dict(zip(made.mask_labels.tolist(), made.masks))
    assert set(found) == {CAT - 1, DOG - 1}
    assert torch.equal(found[CAT - 1], torch.tensor(BY_CLASS) == CAT)


def test_masks_without_an_object_are_none_of_them(tmp_path: Path) -> None:
    home = devkit(tmp_path)
    labels(home / "SegmentationClass/a.png", [[0, 255, 0, 0, 0, 0]] * 4)
    made = Voc(tmp_path).annotate(0, masks=True)
    assert (made.masks.shape, made.mask_labels.shape, int(made.ignore.sum())) == ((0, 4, 6), (0,), 4)


def test_a_mask_of_another_size_or_in_colours_is_refused(tmp_path: Path) -> None:
    home = devkit(tmp_path)
    labels(home / "SegmentationClass/a.png", [[0, 1], [1, 0]])
    with pytest.raises(UserError, match=r"a.png: 2x2 pixels, its picture has 6x4"):
        Voc(tmp_path).read(0, masks=True)
    Image.new("RGB", (6, 4)).save(home / "SegmentationClass/a.png")
    with pytest.raises(UserError, match=r"a\.png: no palette or grey picture"):
        Voc(tmp_path).read(0, masks=True)
    (home / "SegmentationClass/a.png").write_text("no picture")
    with pytest.raises(UserError, match=r"a\.png: cannot be decoded"):
        Voc(tmp_path).read(0, masks=True)


def test_objects_that_make_no_sense_are_problems_and_the_others_stay(tmp_path: Path) -> None:
    home = devkit(tmp_path)
    objects = [thing("unicorn", 1, 1, 2, 2), thing("cat", 5, 5, 2, 2), "<object><name>cat</name></object>"]
    (home / "Annotations/a.xml").write_text(xml(*objects, thing("cat", 1, 1, 2, 2)))
    made = Voc(tmp_path).read(0).annotation
    assert made.boxes.tolist() == [[0, 0, 2, 2]]
    assert len(made.problems) == 3
    assert "object 0 (unicorn) has no known class" in made.problems[0]
    assert all(problem.startswith("a: ") for problem in made.problems)


BOMB = """<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]>
<annotation><object><name>&b;</name></object></annotation>"""


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "no such annotation"),
        ("<annotation><object>", "no readable XML"),
        ("", "no readable XML"),
        (BOMB, "declares XML entities"),
    ],
)
def test_a_broken_annotation_is_named(tmp_path: Path, content: str | None, why: str) -> None:
    path = devkit(tmp_path) / "Annotations/a.xml"
    path.unlink()
    if content is not None:
        path.write_text(content)
    for ask in (Voc(tmp_path).read, Voc(tmp_path).annotate):
        with pytest.raises(UserError, match=why) as error:
            ask(0)
        assert str(path) in str(error.value)


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    path = devkit(tmp_path) / "JPEGImages/a.jpg"
    path.unlink()
    with pytest.raises(UserError, match=r"a\.jpg: no such image"):
        Voc(tmp_path).read(0)


def test_wrong_settings_are_sentences(tmp_path: Path) -> None:
    home = devkit(tmp_path)
    with pytest.raises(UserError, match=r"dataset.split=test: .* \(there: cat_val, val\)"):
        Voc(tmp_path, split="test")
    with pytest.raises(UserError, match="no VOC2007 devkit in"):
        Voc(tmp_path, year=2007)
    with pytest.raises(UserError, match=r"dataset\.root is missing"):
        Voc(None)
    (home / "ImageSets/Main/val.txt").write_text("\n\n")
    with pytest.raises(UserError, match="names no image"):
        Voc(tmp_path)


def test_the_fingerprint_follows_ids_classes_and_annotations(tmp_path: Path) -> None:
    home = devkit(tmp_path)
    prints = [Voc(tmp_path).fingerprint(), Voc(tmp_path, split="cat_val", name="other").fingerprint()]
    assert prints[0] == prints[1]  # the same ids
    prints.append(Voc(tmp_path, classes=CLASSES[::-1]).fingerprint())
    (home / "Annotations/a.xml").write_text(xml(thing("cat", 1, 1, 1, 2)))
    prints.append(Voc(tmp_path).fingerprint())
    (home / "Annotations/a.xml").unlink()
    prints.append(Voc(tmp_path).fingerprint())
    assert len(set(prints)) == 4


@pytest.mark.skipif(not REAL.is_dir(), reason="the real pictures are not beside this checkout")
def test_real_pictures_read_without_problems() -> None:
    voc = Voc(REAL, split="subset")
    assert len(voc.ids) == 80
    for index in range(len(voc.ids)):
        made = voc.annotate(index, masks=True)
        height, width = made.size
        assert made.problems == ()
        assert len(made.boxes)
        assert (made.boxes >= 0).all()
        assert (made.boxes <= made.boxes.new_tensor([width, height, width, height])).all()
        assert torch.equal(made.boxes, made.boxes.round())
        if index < 8 or made.masks is not None:
            assert voc.read(index, masks=True).image.size == (width, height)


def test_splits_of_segmentation_and_lists_of_ones_own(tmp_path: Path) -> None:
    home = devkit(tmp_path / "VOCdevkit")
    (home / "ImageSets/Segmentation").mkdir()
    (home / "ImageSets/Segmentation/train.txt").write_text("b\n")
    assert Voc(tmp_path, split="train", lists="Segmentation").ids == ["b"]
    own = tmp_path / "train_aug.txt"  # as PSA writes it, and SEC
    own.write_text("/JPEGImages/b.jpg /SegmentationClassAug/b.png\na.jpg 1\n")
    assert Voc(tmp_path, split=str(own)).ids == ["b", "a"]
    with pytest.raises(UserError, match=r"dataset.split=.*nothere.txt: no .*nothere.txt"):
        Voc(tmp_path, split=str(tmp_path / "nothere.txt"))


def test_other_class_masks_have_no_objects(tmp_path: Path) -> None:
    home = devkit(tmp_path / "VOCdevkit")
    with pytest.raises(UserError, match=r"dataset\.masks=SegmentationClassAug: no folder"):
        Voc(tmp_path, masks="SegmentationClassAug")
    (home / "SegmentationClassAug").mkdir()
    cat = CLASSES.index("cat") + 1
    Image.fromarray(np.array([[cat] * 6] * 3 + [[255] * 6], np.uint8)).save(home / "SegmentationClassAug" / "a.png")
    Image.fromarray(np.array([[1] * 6] * 2 + [[2] * 6] * 2, np.uint8)).save(home / "SegmentationObject" / "a.png")
    found = Voc(tmp_path, masks="SegmentationClassAug").annotate(0, masks=True)
    assert found.mask_labels.tolist() == [cat - 1]
    assert found.masks.sum().item() == 18
    assert found.ignore.sum().item() == 6
    assert Voc(tmp_path).annotate(0, masks=True).masks is None
