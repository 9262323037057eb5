"""Outputs put together to fewer classes: by hand, through a run on COCO's masks, and what files are refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image

import gradcam_bench as gb
from gradcam_bench import cli
from gradcam_bench.annotations import groups
from gradcam_bench.datasets.coco import coco
from gradcam_bench.errors import UserError
from gradcam_bench.models.grouped import grouped_network
from gradcam_bench.models.scenes_nets import scenes_network
from gradcam_bench.models.zoo import torchvision_network

FILE = "class_name,outputs\nround,0 5-6\nring,5\nedgy,1-2 4\n"


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "groups.csv").write_text(FILE)
    return str(tmp_path / "groups.csv")


def test_a_class_has_the_sum_of_its_outputs_probabilities(file: str) -> None:
    network = torchvision_network("squeezenet1_1", "none", num_classes=10)
    made = grouped_network(network, file)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, found = network.module(images).softmax(1), made.probabilities(made.module(images))
    shares = torch.stack([plain[:, [0, 5, 6]].sum(1), plain[:, 5], plain[:, [1, 2, 4]].sum(1)], 1)
    torch.testing.assert_close(found, shares / shares.sum(1, keepdim=True))
    assert made.classes == ("round", "ring", "edgy")
    assert made.layer == f"network.{network.layer}"
    assert made.digest != network.digest
    assert made.untrained is not None
    assert set(made.untrained().state_dict()) == set(made.module.state_dict())


def test_a_class_of_one_output_is_explained_as_that_output(file: str) -> None:
    network = torchvision_network("resnet18", "none", num_classes=10)
    made = grouped_network(network, file)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    plain = gb.explain(network.module, images, [5], ["grad_cam"], network.layer)["grad_cam"]
    found = gb.explain(made.module, images, [1], ["grad_cam"], made.layer)["grad_cam"]
    torch.testing.assert_close(found, plain)
    assert plain.abs().sum() > 0


def test_what_is_no_group_is_refused(tmp_path: Path, file: str) -> None:
    with pytest.raises(UserError, match=r"unknown model\.groups 'coco_in_imagenett': did you mean 'coco_in_imagenet'"):
        groups.read("coco_in_imagenett", "model.groups")
    with pytest.raises(UserError, match=r"model.network is missing"):
        grouped_network(None, file)
    for line in ("dog,", "dog,x", "dog,5-3", ",5", "dog,1 1", "dog,3\ndog,4"):
        (tmp_path / "bad.csv").write_text(f"class_name,outputs\n{line}\n")
        with pytest.raises(UserError, match=r"line [23] of .*bad.csv should be a new class_name and its outputs"):
            groups.read(str(tmp_path / "bad.csv"), "dataset.classes")
    (tmp_path / "bad.csv").write_text("class_name,outputs\n")
    with pytest.raises(UserError, match="names no class"):
        groups.read(str(tmp_path / "bad.csv"), "dataset.classes")
    (tmp_path / "far.csv").write_text("class_name,outputs\na,3 11\n")
    with pytest.raises(UserError, match=r"model\.groups: output 11, but scenes_gap has outputs 0 to 9"):
        grouped_network(scenes_network("scenes_gap"), str(tmp_path / "far.csv"))


@pytest.mark.parametrize("name", ["coco_in_imagenet", "voc_in_imagenet"])
def test_the_groups_that_come_along_are_of_imagenets_names(name: str) -> None:
    found = groups.read(name, "model.groups")
    names = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.meta["categories"]
    every = [output for outputs in found.values() for output in outputs]
    assert len(every) == len(set(every))
    assert max(every) < 1000
    assert {names[n] for n in found["cat"]} == {"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"}
    assert (names[found["dog"][0]], names[found["dog"][-1]], len(found["dog"])) == (
        "Chihuahua",
        "Mexican hairless",
        118,
    )
    assert {names[n] for n in found["bus"]} == {"minibus", "school bus", "trolleybus"}
    assert {names[n] for n in found["bottle"]} == {
        "beer bottle", "pill bottle", "pop bottle", "water bottle", "wine bottle",
    }  # fmt: skip


def devkit(root: Path) -> None:
    """Two pictures in COCO's format: a disc (5) beside a heart (9), as three categories."""
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for n in (1, 2):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).save(root / "val2017" / f"{n}.jpg")
        images.append({"id": n, "file_name": f"{n}.jpg", "width": 60, "height": 40})
        for k, (category, x) in enumerate(((5, 2), (9, 30), (7, 46))):
            corners = [x, 5, x + 14, 5, x + 14, 30, x, 30]
            annotations.append({
                "id": 10 * n + k, "image_id": n, "category_id": category, "iscrowd": 0, "bbox": [x, 5, 14, 25],
                "area": 350, "segmentation": [corners],
            })  # fmt: skip
    categories = [{"id": 5, "name": "edgy"}, {"id": 7, "name": "unheard of"}, {"id": 9, "name": "round"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))


def test_coco_with_some_of_its_classes_in_a_files_order(tmp_path: Path) -> None:
    devkit(tmp_path / "data")
    (tmp_path / "two.csv").write_text("class_name,outputs\nround,0 5\nedgy,1\n")
    found = coco(str(tmp_path / "data"), classes=str(tmp_path / "two.csv"))
    assert found.classes == ("round", "edgy")
    one = found.annotate(0, masks=True)
    assert one.classes == (1, 0)
    assert one.boxes.tolist() == [[2, 5, 16, 30], [30, 5, 44, 30]]
    assert one.labels.tolist() == [1, 0]
    assert one.masks is not None
    assert one.mask_labels is not None
    assert one.mask_labels.tolist() == [1, 0]
    assert found.truth.categories == (9, 5)
    (tmp_path / "bad.csv").write_text("class_name,outputs\nrounds,0\n")
    with pytest.raises(UserError, match=r"unknown class of instances_val2017.json 'rounds': did you mean 'round'"):
        coco(str(tmp_path / "data"), classes=str(tmp_path / "bad.csv"))


def test_a_run_on_a_data_set_whose_classes_are_groups_of_outputs(tmp_path: Path) -> None:
    devkit(tmp_path / "data")
    (tmp_path / "two.csv").write_text("class_name,outputs\nround,0 5\nedgy,1\n")
    words = [
        "run", "dataset=coco", f"dataset.root={tmp_path / 'data'}", f"dataset.classes={tmp_path / 'two.csv'}",
        "model=grouped", "model@model.network=scenes_gap", f"model.groups={tmp_path / 'two.csv'}",
        "method=[grad_cam,center]", "metric=[seed_miou]", "preset=[default]", "workers=0",
        f"results={tmp_path}", "name=a",
    ]  # fmt: skip
    assert cli.main(words) == 0
    rows = pd.read_parquet(tmp_path / "run" / "a" / "rows.parquet")
    assert rows["problem"].isna().all()
    cases = pd.read_parquet(tmp_path / "run" / "a" / "cases.parquet")
    assert set(cases["class_name"]) == {"round", "edgy"}
