"""OpenImages30k: the region to ignore, masks of other pixels, and what is wrong with broken ones; the real lists."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gradcam_bench.datasets.openimages import openimages
from gradcam_bench.errors import UserError
from gradcam_bench.twins.layouts import Written, scenes
from gradcam_bench.twins.layouts import openimages as written_twins

LISTS = Path(__file__).parents[3] / "shared" / "real" / "wsol_metadata"


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return written_twins(tmp_path, scenes("class"))


def test_what_is_ignored_is_outside_every_mask(written: Written) -> None:
    for index, twin in enumerate(scenes("class")):
        found = openimages(**written.settings).annotate(index, masks=True)
        upper = torch.zeros(twin.size, dtype=torch.bool)
        upper[: twin.size[0] // 2] = True
        assert torch.equal(found.ignore, upper & ~found.masks.any(0))
        assert found.boxes.shape == (0, 4)


def test_an_image_without_a_region_to_ignore(written: Written, tmp_path: Path) -> None:
    path = tmp_path / "metadata/OpenImages/test/localization.txt"
    path.write_bytes("".join(f"{line.rpartition(',')[0]},\r\n" for line in path.read_text().split()).encode())
    assert not openimages(**written.settings).annotate(0, masks=True).ignore.any()


def test_masks_of_other_pixels_are_brought_to_the_pictures(written: Written, tmp_path: Path) -> None:
    for path in (tmp_path / "OpenImages").rglob("*.png"):
        with Image.open(path) as image:
            image.resize((3 * image.width, 3 * image.height), Image.Resampling.NEAREST).save(path)
    found = openimages(**written.settings).read(0, masks=True).annotation
    assert np.array_equal(found.masks.numpy(), np.stack(scenes("class")[0].masks))


def test_masks_missing_or_of_another_shape(written: Written, tmp_path: Path) -> None:
    made = openimages(**written.settings)
    path = tmp_path / "OpenImages" / made.ids[0].replace(".jpg", "_m0.png")
    Image.new("L", (50, 400)).save(path)
    with pytest.raises(UserError, match=r"_m0\.png: the mask has 50x400 pixels, its picture"):
        made.read(0, masks=True)
    path.unlink()
    with pytest.raises(UserError, match=r"_m0\.png: no such mask"):
        made.read(0, masks=True)
    assert made.read(0).annotation.masks is None


def test_names_and_wrong_settings(written: Written, tmp_path: Path) -> None:
    made = openimages(**written.settings)
    assert len(made.classes) == 100
    assert made.classes[made.annotate(0).classes[0]] == f"/m/0{scenes('class')[0].labels[0]}xyz"
    (tmp_path / "names.txt").write_text("".join(f"thing {index}\n" for index in range(10)))
    assert openimages(**written.settings, classes=str(tmp_path / "names.txt")).classes[9] == "thing 9"
    (tmp_path / "names.txt").write_text("one\n")
    with pytest.raises(UserError, match=r"dataset\.classes: .* names 1 classes, the lists have class \d"):
        openimages(**written.settings, classes=str(tmp_path / "names.txt"))
    with pytest.raises(UserError, match=r"dataset\.metadata is missing"):
        openimages(written.settings["root"])
    with pytest.raises(UserError, match=r"no image_ids\.txt in .* nor in its val, OpenImages/val"):
        openimages(**written.settings, split="val")
    with pytest.raises(UserError, match="the picture is needed"):
        openimages(metadata=written.settings["metadata"]).annotate(0)


@pytest.mark.skipif(not LISTS.is_dir(), reason="the real lists are not beside this checkout")
def test_the_real_lists_are_whole() -> None:
    for split, count, masks in (("test", 5000, 7632), ("val", 2500, 3854)):
        made = openimages(metadata=str(LISTS), split=split)
        assert (len(made.ids), len(made.classes)) == (count, 100)
        assert made.classes[0] == "/m/01226z"
        assert sum(len(parts) for parts in made.truth.masks.values()) == masks
        ignored = [[bool(region) for _, region in made.truth.masks[image_id]] for image_id in made.ids]
        assert all(flags[0] and not any(flags[1:]) for flags in ignored)
