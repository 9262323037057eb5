"""Mosaics: which pictures, where, and what is said where there are too few."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gradcam_bench import cli
from gradcam_bench.datasets.grids import grids
from gradcam_bench.errors import UserError
from gradcam_bench.samples import Picture, annotation
from gradcam_bench.setup import make


class Plain:
    """Twelve one-coloured pictures, two of each of six classes; the last of a class has a second class."""

    name, classes = "plain", tuple("abcdef")
    ids = tuple(f"p{n}" for n in range(13))

    def annotate(self, index: int, masks: bool = False):
        present = (index % 6,) if index < 12 else (0, 1)
        return annotation(self.ids[index], (60, 80), [(label, (0, 0, 9, 9), False) for label in present])

    def read(self, index: int, masks: bool = False) -> Picture:
        return Picture(Image.new("RGB", (80, 60), (20 * index, 0, 0)), f"digest{index}", self.annotate(index))

    def fingerprint(self) -> str:
        return "same"


def test_cells_hold_different_classes_and_each_picture_is_used_once() -> None:
    made = grids(Plain(), side=2, cell=28, count=99)
    assert 1 <= len(made.ids) <= 3
    used = [number for mosaic in made.mosaics for number, _ in mosaic]
    assert len(set(used)) == len(used)
    assert 12 not in used  # of two classes
    for mosaic in made.mosaics:
        assert len({label for _, label in mosaic}) == 4
        assert all(number % 6 == label for number, label in mosaic)


def test_a_mosaic_shows_its_pictures_where_its_boxes_are() -> None:
    made = grids(Plain(), side=2, cell=28, count=1)
    picture = made.read(0)
    assert picture.image.size == (56, 56)
    known = picture.annotation
    assert known.boxes.tolist() == [[0, 0, 28, 28], [28, 0, 56, 28], [0, 28, 28, 56], [28, 28, 56, 56]]
    assert known.labels.tolist() == [label for _, label in made.mosaics[0]]
    pixels = np.array(picture.image)[..., 0]
    for (number, _), (x0, y0, x1, y1) in zip(made.mosaics[0], known.boxes.long().tolist()):
        assert (pixels[y0:y1, x0:x1] == 20 * number).all()
    assert made.annotate(0).boxes.tolist() == known.boxes.tolist()


def test_the_centre_is_cut_out_of_a_picture_that_is_not_square() -> None:
    class Striped(Plain):
        def read(self, index: int, masks: bool = False) -> Picture:
            image = Image.new("RGB", (128, 64))  # 64 -> 64: shorter side 8/7 of 56
            image.putdata([(x, y, 0) for y in range(64) for x in range(128)])
            return Picture(image, "d", self.annotate(index))

    pixels = np.array(grids(Striped(), side=1, cell=56, count=1).read(0).image)
    assert pixels[0, 0].tolist() == [36, 4, 0]  # (128 - 56) / 2, (64 - 56) / 2
    assert pixels[-1, -1].tolist() == [91, 59, 0]


def test_the_draw_depends_on_the_seed_alone() -> None:
    one, same, other = (grids(Plain(), cell=28, seed=seed) for seed in (0, 0, 1))
    assert one.mosaics == same.mosaics
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert one.read(0).digest == same.read(0).digest
    assert len({grids(Plain(), cell=cell).read(0).digest for cell in (28, 35)}) == 2


def cases(path: Path, rows) -> str:
    pd.DataFrame(rows, columns=["image_id", "rank", "probability", "target"]).to_parquet(path)
    return str(path)


def test_only_pictures_that_every_network_is_sure_of(tmp_path: Path) -> None:
    rows = [(f"p{n}", 0, 0.999 - 0.001 * n, "gt") for n in range(12)]  # p0 to p9 have at least 0.99
    first = cases(tmp_path / "a.parquet", rows)
    second = cases(tmp_path / "b.parquet", [(i, int(i == "p3"), p, t) for i, _, p, t in rows])
    assert {n for m in grids(Plain(), cases=first, count=99).mosaics for n, _ in m} <= set(range(10))
    used = {n for seed in range(9) for m in grids(Plain(), cases=[first, second], seed=seed).mosaics for n, _ in m}
    assert used <= set(range(10)) - {3}
    with pytest.raises(UserError, match="takes pictures of 9 classes; there are 6 with a picture of one class that"):
        grids(Plain(), side=3, cases=first)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes pictures of 9 classes; there are 6"):
        grids(Plain(), side=3)
    with pytest.raises(UserError, match=r"dataset\.source is missing"):
        grids(None)
    with pytest.raises(UserError, match=r"no cases\.parquet of a run"):
        grids(Plain(), cases=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="side=0"):
        grids(Plain(), side=0)


def test_another_data_set_is_chosen_on_the_command_line(scenes_root: Path) -> None:
    words = ["dataset=grids", "dataset@dataset.source=scenes", f"dataset.source.root={scenes_root}"]
    config = cli.configuration([*words, "dataset.side=1", "dataset.cell=64"])["dataset"]
    made = make(config, "dataset")
    assert made.classes[0] == "disc"
    assert made.read(0).image.size == (64, 64)


def test_disconnected_mosaics_show_one_class_in_two_corners() -> None:
    made = grids(Plain(), side=2, cell=28, count=99, disconnected=True, outputs=7)
    assert made.mosaics
    assert len(made.classes) == 28
    assert [made.classes[n] for n in (0, 6, 7)] == ["a in cell 0", "output 6 in cell 0", "a in cell 1"]
    used = [number for mosaic in made.mosaics for number, _ in mosaic]
    assert len(set(used)) == len(used)
    for index, mosaic in enumerate(made.mosaics):
        labels = [label for _, label in mosaic]
        assert labels[0] == labels[3]
        assert len(set(labels)) == 3
        known = made.annotate(index)
        assert known.boxes.tolist() == [[0, 0, 28, 28], [28, 28, 56, 56]]
        assert known.labels.tolist() == [labels[0], 3 * 7 + labels[0]]
    assert made.fingerprint() != grids(Plain(), side=2, cell=28, count=99).fingerprint()
    for wrong in ({"side": 1}, {"outputs": 5}):
        with pytest.raises(UserError, match=r"dataset\.(disconnected|outputs)"):
            grids(Plain(), disconnected=True, **wrong)
