"""Every kind of picture comes out as upright RGB, broken ones as a sentence; boxes clipped or named; batches."""

import contextlib
import hashlib
import io
import multiprocessing
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.geometry import warp
from gradcam_bench.loading import load, start_method
from gradcam_bench.models.network import Preprocessing
from gradcam_bench.samples import Picture, Sample, Samples, Skipped, annotation, collate, decode

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)  # upright picture, 5 high, 7 wide
GREY = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7

# EXIF: which side of the upright picture the stored row 0 and column 0 are; here stored[r, c] = upright[y, x].
ORIENTATIONS = {
    1: lambda r, c: (r, c),  # row 0 is the top, column 0 the left
    2: lambda r, c: (r, 6 - c),  # top, right
    3: lambda r, c: (4 - r, 6 - c),  # bottom, right
    4: lambda r, c: (4 - r, c),  # bottom, left
    5: lambda r, c: (c, r),  # left, top
    6: lambda r, c: (c, 6 - r),  # right, top
    7: lambda r, c: (4 - c, 6 - r),  # right, bottom
    8: lambda r, c: (4 - c, r),  # left, bottom
}


def decoded(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    image, _ = decode(path, size)
    assert image.mode == "RGB"
    return np.array(image)


def stored_with(path: Path, orientation: int) -> np.ndarray:
    """Saves COLOURS turned as the tag says, and returns what is stored."""
    shape = (5, 7) if orientation < 5 else (7, 5)
    place = ORIENTATIONS[orientation]
    stored = np.array([[COLOURS[place(r, c)] for c in range(shape[1])] for r in range(shape[0])])
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(stored).save(path, exif=exif)
    return stored


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientations_come_out_upright(tmp_path: Path, orientation: int) -> None:
    stored_with(tmp_path / "a.png", orientation)
    assert np.array_equal(decoded(tmp_path / "a.png"), COLOURS)


def test_a_declared_size_that_fits_only_the_stored_pixels_keeps_these(tmp_path: Path) -> None:
    stored = stored_with(tmp_path / "a.png", 6)
    assert np.array_equal(decoded(tmp_path / "a.png", (7, 5)), stored)
    assert np.array_equal(decoded(tmp_path / "a.png", (5, 7)), COLOURS)
    assert np.array_equal(decoded(tmp_path / "a.png", (99, 99)), COLOURS)  # fits neither
    stored_with(tmp_path / "b.png", 3)
    assert np.array_equal(decoded(tmp_path / "b.png", (5, 7)), COLOURS)  # fits both: upright


def test_grey_pictures_of_every_kind(tmp_path: Path) -> None:
    expected = np.repeat(GREY[..., None], 3, axis=2)
    deep = GREY.astype(np.uint16) * 257  # 255 -> 65535
    kinds = {
        "l.png": Image.fromarray(GREY),
        "la.png": Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(255 - GREY)]),
        "sixteen.png": Image.fromarray(deep),
        "little.tif": Image.fromarray(deep),
        "big.tif": Image.fromarray(deep.astype(">u2")),
        "wide.tif": Image.fromarray(deep.astype(np.int32)),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
        assert np.array_equal(decoded(tmp_path / name), expected), name


def test_colour_pictures_of_every_kind(tmp_path: Path) -> None:
    image = Image.fromarray(COLOURS)
    alpha = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7))
    palette = image.quantize(64)
    assert np.array_equal(np.array(palette.convert("RGB")), COLOURS)  # 35 colours: nothing is lost
    image.save(tmp_path / "rgb.png")
    Image.merge("RGBA", [*image.split(), alpha]).save(tmp_path / "rgba.png")
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "clear.png", transparency=0)
    palette.save(tmp_path / "shades.png", transparency=bytes(range(64)))
    palette.save(tmp_path / "palette.gif")
    image.save(tmp_path / "a.webp", lossless=True)
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(decoded(path), COLOURS), path.name


def test_one_bit_and_cmyk_pictures(tmp_path: Path) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / "bits.png")
    assert np.array_equal(decoded(tmp_path / "bits.png")[..., 1], np.where(GREY > 100, 255, 0))
    Image.new("CMYK", (4, 3), (0, 255, 255, 0)).save(tmp_path / "red.tif")
    assert np.array_equal(decoded(tmp_path / "red.tif"), np.tile(np.uint8([255, 0, 0]), (3, 4, 1)))
    Image.new("CMYK", (16, 16), (255, 0, 255, 0)).save(tmp_path / "green.jpg", quality=95)
    assert np.abs(decoded(tmp_path / "green.jpg").astype(int) - [0, 255, 0]).max() < 8


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png")[1] == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()


def bomb() -> bytes:
    """A PNG of a few bytes whose header announces 60000 x 60000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def picture_bytes(suffix: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).resize((70, 50)).save(buffer, suffix)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("short.jpg", picture_bytes("jpeg")[:-200], "truncated"),
        ("short.png", picture_bytes("png")[:-2000], "truncated"),
        ("empty.jpg", b"", "its bytes are no picture"),
        ("text.jpg", b"<html>404 Not Found</html>", "its bytes are no picture"),
        ("bomb.png", bomb(), "too large to be meant"),
        ("gone.jpg", None, "no such image"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes | None, why: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=why) as error:
        decode(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ")


@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp", "gif", "bmp", "tiff"])
@pytest.mark.filterwarnings("ignore")
def test_whatever_the_bytes_there_is_a_picture_or_a_sentence(tmp_path: Path, suffix: str) -> None:
    whole, rng = picture_bytes(suffix), np.random.default_rng(0)
    for _ in range(15):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 120), 4):
            data[place] = rng.integers(256)
        (tmp_path / "a.jpg").write_bytes(bytes(data[: rng.integers(1, len(data) + 1)]))
        with contextlib.suppress(UserError):
            assert decode(tmp_path / "a.jpg")[0].mode == "RGB"


def test_boxes_are_clipped_and_those_without_a_pixel_named() -> None:
    objects = [
        (3, (-5, 2, 4, 99), False),  # clipped
        (1, (8, 2, 4, 6), False),  # inverted
        (1, (4, 4, 4, 8), True),  # no area
        (2, (50, 4, 60, 8), False),  # outside
        (1, (0, 0, float("nan"), 3), False),
        (3, (9, 7, 10, 8), True),
    ]
    made = annotation("cat", (8, 10), objects)
    assert made.boxes.tolist() == [[0, 2, 4, 8], [9, 7, 10, 8]]
    assert made.boxes.dtype == torch.float32
    assert made.labels.tolist() == [3, 3]
    assert made.difficult.tolist() == [False, True]
    assert made.classes == (3,)
    assert len(made.problems) == 4
    assert made.problems[0] == "cat: box (8, 2, 4, 6) of class 1 covers no pixel of the 10x8 image"


def test_an_annotation_without_boxes_has_empty_tensors_and_the_classes_given() -> None:
    made = annotation("cat", (8, 10), classes=[5])
    assert (made.boxes.shape, made.labels.shape, made.difficult.shape) == ((0, 4), (0,), (0,))
    assert made.classes == (5,)


class Three:
    """Pictures of 4x6, 4x6 and 6x4 pixels between which one cannot be read."""

    name, classes, ids = "three", ("a",), ["a", "b", "c", "d"]

    def read(self, index: int, masks: bool = False) -> Picture:
        if index == 1:
            raise UserError("b.jpg: cannot be decoded")
        size = (6, 4) if index == 2 else (4, 6)
        return Picture(Image.new("RGB", size[::-1], (index, 0, 0)), str(index), annotation(self.ids[index], size))

    def annotate(self, index: int, masks: bool = False):
        return self.read(index).annotation

    def fingerprint(self) -> str:
        return "three"


def as_is(image: Image.Image, view: View):
    size = (image.height, image.width)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float(), warp(size, size)


def test_samples_yield_what_is_broken_and_batches_hold_one_size() -> None:
    samples = Samples(Three(), as_is, View(), [0, 1, 2, 3])
    assert samples[1] == Skipped(1, "b", "b.jpg: cannot be decoded")
    batches, skipped = collate([samples[i] for i in range(len(samples))])
    assert skipped == [samples[1]]
    assert [batch.images.shape for batch in batches] == [(2, 3, 4, 6), (1, 3, 6, 4)]
    assert [[sample.index for sample in batch.samples] for batch in batches] == [[0, 3], [2]]
    assert batches[0].images[:, 0, 0, 0].tolist() == [0, 3]
    assert isinstance(samples[0], Sample)


def test_a_batch_of_nothing_but_skipped_ones_has_no_pixels() -> None:
    assert collate([Skipped(0, "a", "why")]) == ([], [Skipped(0, "a", "why")])


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_keeps_the_order_of_the_indices_whatever_the_workers(workers: int) -> None:
    seen = []
    for batches, skipped in load(Samples(Three(), as_is, View(), [3, 2, 1, 0, 0]), 2, workers):
        seen.append(([s.index for b in batches for s in b.samples], [s.index for s in skipped]))
    assert seen == [([3, 2], []), ([0], [1]), ([0], [])]


def test_processes_that_decode_leave_a_sigterm_to_the_one_that_asks() -> None:
    """`timeout`, SLURM and others send it to all of a group."""
    batches = load(Samples(Three(), as_is, View(), [0] * 20), 1, 1)
    next(batches)
    (worker,) = multiprocessing.active_children()
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    assert len(list(batches)) == 19
    worker.join(10)
    assert worker.exitcode == 0


def test_a_program_that_ends_with_its_loader_open_does_end() -> None:
    program = """
from torch.utils.data import DataLoader
from gradcam_bench.loading import as_worker
batches = iter(DataLoader(list(range(99)), batch_size=1, num_workers=2, worker_init_fn=as_worker))
next(batches)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True).returncode == 0


def test_pictures_are_decoded_in_processes_within_those_of_joblib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose start method is their own: DataLoader's processes cannot be started by it."""
    assert start_method() is None
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "loky")
    assert start_method() == multiprocessing.get_all_start_methods()[0]
    assert len(list(load(Samples(Three(), as_is, View(), [0, 0, 0]), 1, 1))) == 3


class Described(Three):
    """Annotations alone; whoever opens a picture fails."""

    def read(self, index: int, masks: bool = False) -> Picture:
        raise AssertionError("a picture was opened")

    def annotate(self, index: int, masks: bool = False):
        if index == 3:
            raise UserError("d.xml: no such annotation")
        return annotation(self.ids[index], (6, 4) if index == 2 else (4, 6), [(0, (0, 0, 2, 2), False)])


def test_unseen_samples_open_no_picture_and_take_no_memory() -> None:
    samples = Samples(Described(), Preprocessing("warp", 500, None), View("warp", 500), range(4), unseen=True)
    [(batches, skipped)] = load(samples, 4, 0)
    assert [one.image_id for one in skipped] == ["d"]
    [batch] = batches
    assert batch.images.shape == (3, 3, 500, 500)
    assert batch.images.untyped_storage().nbytes() == 4
    assert [(s.frame.source, s.frame.input) for s in batch.samples] == [((4, 6), (500, 500))] * 2 + [
        ((6, 4), (500, 500))
    ]
    assert len({s.digest for s in batch.samples}) == 3
