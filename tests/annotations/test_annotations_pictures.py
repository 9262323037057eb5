"""Sizes from headers, masks of grey, and the subset of a data set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gradcam_bench.annotations.annotated import chosen
from gradcam_bench.annotations.pictures import Pictures, bare, in_folder, mask, measure, without_suffix
from gradcam_bench.errors import UserError
from gradcam_bench.samples import decode

GREY = np.array([[0, 1, 127], [128, 255, 0]], np.uint8)


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_a_header_says_what_decoding_says(tmp_path: Path, orientation: int | None) -> None:
    exif = Image.Exif()
    if orientation:
        exif[0x112] = orientation
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    image, _ = decode(tmp_path / "a.jpg")
    assert measure(tmp_path / "a.jpg") == (image.height, image.width)


def test_a_header_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(UserError, match=r"a\.jpg: cannot be decoded"):
        measure(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"b\.jpg: no such image"):
        measure(tmp_path / "b.jpg")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_masks_are_grey_from_a_level_on(tmp_path: Path, mode: str) -> None:
    Image.fromarray(GREY).convert(mode).save(tmp_path / "m.png")
    assert mask(tmp_path / "m.png", (2, 3)).tolist() == [[False, True, True], [True, True, False]]
    assert mask(tmp_path / "m.png", (2, 3), least=128).tolist() == [[False, False, False], [True, True, False]]


def test_a_mask_of_one_bit(tmp_path: Path) -> None:
    Image.fromarray(GREY > 1).save(tmp_path / "m.png")
    assert mask(tmp_path / "m.png", (2, 3)).tolist() == (GREY > 1).tolist()


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "m.png")
    twice = mask(tmp_path / "m.png", (4, 6), resized=True)
    assert np.array_equal(twice.numpy(), (GREY > 0).repeat(2, 0).repeat(2, 1))
    for size, resized in (((4, 6), False), ((6, 4), True), ((2, 6), True)):
        with pytest.raises(UserError, match=rf"m\.png: the mask has 3x2 pixels, its picture {size[1]}x{size[0]}"):
            mask(tmp_path / "m.png", size, resized=resized)


def test_a_missing_or_broken_mask_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"m\.png: no such mask"):
        mask(tmp_path / "m.png", (2, 3))
    (tmp_path / "m.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(UserError, match=r"m\.png: cannot be decoded"):
        mask(tmp_path / "m.png", (2, 3))


def test_ids_from_paths() -> None:
    assert [bare(path) for path in ("val/x.JPEG", "x", "a/b.c.png")] == ["x", "x", "b.c"]
    assert [without_suffix(path) for path in ("a/x.jpg", "a.b/x", "v1.5")] == ["a/x", "a.b/x", "v1.5"]


def pictures(root: Path) -> Pictures:
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt"):
        (root / name).touch()
    return Pictures(root, in_folder(root))


def test_subsets(tmp_path: Path) -> None:
    there, ids = pictures(tmp_path), ["a", "b", "c"]
    (tmp_path / "some.txt").write_bytes(b"\xef\xbb\xbfval/c.jpg\r\n\r\na\r\n")
    assert chosen(ids, None, there, tmp_path, bare) == ids
    assert chosen(ids, "present", there, tmp_path, bare) == ["a", "b"]
    assert chosen(ids, str(tmp_path / "some.txt"), there, tmp_path, bare) == ["c", "a"]
    assert chosen(["b.png", "x.png"], "present", Pictures(tmp_path), tmp_path) == ["b.png"]


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ("a\nzebra\n", r"some\.txt, line 2: the data set has no image zebra"),
        ("a\nb\na\n", r"some\.txt, line 3: a is listed twice"),
        ("\n", "no image to use"),
        (None, r"dataset\.subset: .*some\.txt is no file \(one image id a line\), and not 'present'"),
    ],
)
def test_a_wrong_subset_is_a_sentence(tmp_path: Path, listed: str | None, why: str) -> None:
    there = pictures(tmp_path)
    if listed is not None:
        (tmp_path / "some.txt").write_text(listed)
    with pytest.raises(UserError, match=why):
        chosen(["a", "b", "c"], str(tmp_path / "some.txt"), there, tmp_path)


def test_what_is_present_needs_a_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.subset=present: give dataset\.root=DIR"):
        chosen(["a"], "present", Pictures(), tmp_path)
    with pytest.raises(UserError, match="no image to use is present"):
        chosen(["x"], "present", pictures(tmp_path), tmp_path)
    with pytest.raises(UserError, match=r"x: no picture named x in"):
        pictures(tmp_path).path("x")
    with pytest.raises(UserError, match=r"x: the picture is needed, give dataset\.root=DIR"):
        Pictures().path("x")
