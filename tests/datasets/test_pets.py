"""Oxford's pets, Stanford's dogs and Imagenette: their numberings, boxes and slips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from scipy.ndimage import binary_dilation

from gradcam_bench.annotations import matlab, synsets
from gradcam_bench.datasets.imagenette import imagenette
from gradcam_bench.datasets.oxford_pet import oxford_pet
from gradcam_bench.datasets.stanford_dogs import stanford_dogs
from gradcam_bench.errors import UserError
from gradcam_bench.samples import Dataset
from gradcam_bench.twins.layouts import WRITERS, scenes


def test_the_thousand_synsets_are_in_order_and_have_torchvisions_names() -> None:
    numbers, names = synsets.index(), synsets.names()
    assert list(numbers) == sorted(numbers)
    assert list(numbers.values()) == list(range(1000))
    known = {"n01440764": "tench", "n02085620": "Chihuahua", "n03888257": "parachute", "n15075141": "toilet tissue"}
    assert {synset: names[numbers[synset]] for synset in known} == known


def test_a_trimaps_outline_counts_neither_way_and_heads_are_another_choice(tmp_path: Path) -> None:
    twins = scenes("one")
    WRITERS["oxford_pet"][0](tmp_path, twins)
    found = oxford_pet(str(tmp_path)).annotate(0, masks=True)
    outline = binary_dilation(twins[0].masks[0], iterations=2) & ~twins[0].masks[0]
    assert np.array_equal(found.ignore.numpy(), outline)
    heads = oxford_pet(str(tmp_path), boxes="head")
    assert heads.annotate(0).boxes.tolist() == twins[0].boxes  # the XML's, 1-based
    assert (len(heads.annotate(1).boxes), heads.annotate(1).classes) == (0, (twins[1].labels[0],))
    assert heads.fingerprint() != oxford_pet(str(tmp_path)).fingerprint()
    assert len(oxford_pet(str(tmp_path), split="all").ids) == len(twins) + 1  # list.txt has a head of comments


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"no picture", "trimaps.*cannot be decoded"), (None, "no such trimap"), ("small", "has the shape")],
)
def test_a_trimap_that_is_none(tmp_path: Path, content: object, sentence: str) -> None:
    WRITERS["oxford_pet"][0](tmp_path, scenes("one"))
    dataset: Dataset = oxford_pet(str(tmp_path))
    path = tmp_path / "annotations/trimaps" / f"{dataset.ids[0]}.png"
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "small":
        Image.fromarray(np.ones((5, 7), np.uint8)).save(path)
    with pytest.raises(UserError, match=sentence):
        dataset.annotate(0)


def test_dogs_keep_imagenets_numbers(tmp_path: Path) -> None:
    twin = scenes("one")[0]
    for breed, name in (("n02085620-Chihuahua", "one"), ("n02116738-African_hunting_dog", "two")):
        for place in ("Images", "Annotation"):
            (tmp_path / place / breed).mkdir(parents=True)
        Image.fromarray(twin.image).save(tmp_path / "Images" / breed / f"{name}.jpg")
        size = f"<size><width>{twin.size[1]}</width><height>{twin.size[0]}</height></size>"
        corners = "<xmin>0</xmin><ymin>2</ymin><xmax>9</xmax><ymax>11</ymax>"
        thing = f"<object><name>x</name><bndbox>{corners}</bndbox></object><object><name>y</name></object>"
        (tmp_path / "Annotation" / breed / name).write_text(f"<annotation>{size}{thing}</annotation>")
    files = np.array([["n02116738-African_hunting_dog/two.jpg"]], dtype=object)
    (tmp_path / "lists").mkdir()
    savemat(tmp_path / "lists" / "train_list.mat", {"file_list": files})
    found = stanford_dogs(str(tmp_path), split="train").annotate(0)
    assert (found.classes, found.boxes.tolist()) == ((275,), [[0, 2, 10, 12]])
    assert found.problems == ("n02116738-African_hunting_dog/two: object 1 has no whole box",)
    own = stanford_dogs(str(tmp_path), split="train", numbering="own")
    assert (own.annotate(0).classes, own.classes) == ((1,), ("Chihuahua", "African hunting dog"))
    with pytest.raises(UserError, match=r"test_list\.mat: no such file"):
        stanford_dogs(str(tmp_path))
    (tmp_path / "lists" / "test_list.mat").write_bytes(b"no list")
    with pytest.raises(UserError, match=r"test_list\.mat: no readable MATLAB file"):
        stanford_dogs(str(tmp_path))
    savemat(tmp_path / "lists" / "test_list.mat", {"file_list": np.array([["n1-none/a.jpg"]], dtype=object)})
    with pytest.raises(UserError, match="no folder of n1-none/a, which the list of `test` names"):
        stanford_dogs(str(tmp_path))


@pytest.mark.parametrize(("size", "folder"), [("320px", "imagenette2-320"), ("full", "imagenette2")])
def test_imagenette_keeps_imagenets_numbers(tmp_path: Path, size: str, folder: str) -> None:
    for synset, name in (("n03888257", "ILSVRC2012_val_00000042"), ("n01440764", "n01440764_18")):
        place = tmp_path / folder / "val" / synset
        place.mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(place / f"{name}.JPEG", format="JPEG")
    dataset = imagenette(str(tmp_path), size=size)
    assert list(dataset.ids) == ["n01440764/n01440764_18", "n03888257/ILSVRC2012_val_00000042"]
    assert [dataset.annotate(n).classes for n in range(2)] == [(0,), (701,)]
    own = imagenette(str(tmp_path), size=size, numbering="own")
    assert [own.annotate(n).classes for n in range(2)] == [(0,), (1,)]
    assert own.classes == ("tench", "parachute")
    assert (dataset.annotate(0).size, len(dataset.annotate(0).boxes)) == ((6, 8), 0)
    with pytest.raises(UserError, match="no imagenette2-160/val in"):
        imagenette(str(tmp_path), size="160px")
    with pytest.raises(UserError, match="did you mean 'val'"):
        imagenette(str(tmp_path), split="vall")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [({"x": 1}, "no 'GTcls' in it"), ({"GTcls": 3}, r"no GTcls\.Segmentation"), (None, "no such file")],
)
def test_a_matlab_file_without_what_is_asked(tmp_path: Path, content: dict | None, sentence: str) -> None:
    if content is not None:
        savemat(tmp_path / "it.mat", content)
    with pytest.raises(UserError, match=sentence):
        matlab.segmentation(tmp_path / "it.mat")
    savemat(tmp_path / "it.mat", {"file_list": np.array([[1.0, 2.0]])})
    with pytest.raises(UserError, match="no list of strings"):
        matlab.strings(tmp_path / "it.mat", "file_list")
