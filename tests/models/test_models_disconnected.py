"""DiFull and DiPart: a cell's scores are the network's own on that cell, and no other cell can change them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from gradcam_bench import cli
from gradcam_bench.errors import UserError
from gradcam_bench.models.disconnected import Disconnected, disconnected_network, halves
from gradcam_bench.models.scenes_nets import scenes_network
from gradcam_bench.models.zoo import torchvision_network
from gradcam_bench.probe import Probe

QUICK = ["resnet18", "squeezenet1_1", "mobilenet_v2"]
OTHERS = ["resnext50_32x4d", "alexnet", "vgg11", "vgg16_bn", "densenet121", "mobilenet_v3_small", "efficientnet_b0"]
FAMILIES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


def drawn(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


def cell(mosaics: Tensor, n: int, side: int = 2) -> Tensor:
    height, width = (length // side for length in mosaics.shape[2:])
    row, column = divmod(n, side)
    return mosaics[:, :, row * height : (row + 1) * height, column * width : (column + 1) * width]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_trunk_and_a_head_are_the_whole_network(name: str) -> None:
    network = torchvision_network(name, "none", num_classes=5)
    images = drawn(2, 3, 96, 64)
    with torch.no_grad():
        expected = network.module(images)
        trunk, head = halves(network.module, network.name)
        grid = trunk(images)
        assert grid.ndim == 4
        torch.testing.assert_close(head(grid), expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("name", FAMILIES)
def test_full_is_the_network_on_each_cell_alone(name: str) -> None:
    plain = torchvision_network(name, "none", num_classes=5)
    made = disconnected_network(plain, "full")
    mosaics = drawn(2, 3, 192, 128)
    with torch.no_grad():
        expected = torch.cat([plain.module(cell(mosaics, n)) for n in range(4)], 1)
        torch.testing.assert_close(made.module(mosaics), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert made.layer == "grid"
    assert made.digest not in (plain.digest, disconnected_network(plain, "part").digest)


def test_part_shares_the_trunk_and_pools_each_cell_by_itself() -> None:
    plain = torchvision_network("resnet18", "none", num_classes=5)
    made = disconnected_network(plain, "part", side=3)
    mosaics = drawn(1, 3, 192, 192)
    with torch.no_grad():
        trunk = torch.nn.Sequential(*list(plain.module.children())[:-2])
        grid = trunk(mosaics)
        expected = torch.cat([plain.module.fc(cell(grid, n, 3).mean((2, 3))) for n in range(9)], 1)  # type: ignore[operator]
        torch.testing.assert_close(made.module(mosaics), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parts", ["full", "part"])
def test_no_other_cell_has_a_gradient(parts: str) -> None:
    made = disconnected_network(scenes_network("scenes_gap"), parts)
    mosaics = drawn(1, 3, 448, 448)
    looked = Probe(made.module, ["grid"]).look(mosaics, [3 * 10 + 4])["grid"]  # class 4 by the head of the last cell
    assert looked.activations.shape == (1, 128, 28, 28)
    reached = [bool(cell(looked.gradients, n).any()) for n in range(4)]
    assert reached == [False, False, False, True]
    mosaics.requires_grad_()
    made.module(mosaics)[0, 34].backward()
    assert mosaics.grad is not None
    seen = [bool(cell(mosaics.grad, n).any()) for n in range(3)]
    assert seen == [parts == "part"] * 3  # over the seams a shared trunk sees its neighbours


def test_on_one_cell_both_are_the_network_itself() -> None:
    plain = scenes_network("scenes_fc")
    images = drawn(1, 3, 224, 224)
    with torch.no_grad():
        for parts in ("full", "part"):
            torch.testing.assert_close(disconnected_network(plain, parts, 1).module(images), plain.module(images))


def test_what_is_wrong_is_said() -> None:
    plain = scenes_network("scenes_gap")
    with pytest.raises(UserError, match=r"model\.network is missing"):
        disconnected_network(None)
    with pytest.raises(UserError, match=r"model\.parts"):
        disconnected_network(plain, "ful")
    with pytest.raises(UserError, match=r"model\.side=0"):
        disconnected_network(plain, side=0)
    with pytest.raises(UserError, match="vit_b_32 has no trunk that is known"):
        disconnected_network(torchvision_network("vit_b_32", "none", num_classes=2))
    with pytest.raises(ValueError, match="no 2x2 cells"):
        Disconnected(torch.nn.Identity(), torch.nn.Identity(), 2, True)(drawn(1, 3, 9, 8))


def test_a_run_scores_the_first_and_the_last_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The map of a method that multiplies activations with gradients place by place stays inside the cell by
    construction, but for the resizing over the seams; the centre's does not."""
    rng = np.random.default_rng(0)
    for number in range(8):
        path = tmp_path / "pictures" / "abcd"[number // 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (256, 256, 3), dtype=np.uint8)).save(path)
    words = ["run", "dataset=grids", "dataset@dataset.source=folder", f"dataset.source.root={tmp_path / 'pictures'}"]
    words += ["dataset.disconnected=true", "model=disconnected", "model@model.network=scenes_gap", "workers=0"]
    words += ["method=[hires_cam,grad_cam,center]", "metric=[grid_pointing_game]", "preset=[grid_pg_2022]"]
    words += [f"results={tmp_path}", "name=di"]
    assert cli.main(words) == 2
    assert "give dataset.outputs" in capsys.readouterr().err
    assert cli.main([*words, "dataset.outputs=10"]) == 0
    table = pd.read_csv(tmp_path / "run" / "di" / "summary.csv").set_index("method")
    assert table["n"].eq(4).all()  # 2 mosaics, 2 corners
    assert table.loc["hires_cam", "value"] > 0.9
    assert table.loc["center", "value"] == pytest.approx(0.25, abs=0.01)
    assert table.loc["grad_cam", "value"] < table.loc["hires_cam", "value"]


@pytest.mark.parametrize("parts", ["full", "part"])
def test_it_is_fed_mosaics_of_what_the_network_is_fed(parts: str) -> None:
    plain = torchvision_network("resnet18", "none")
    made = disconnected_network(plain, parts, 3)
    assert (made.preprocessing.size, made.preprocessing.crop) == (3 * 256, 3 * 224)
    assert made.classes is not None
    assert plain.classes is not None
    assert (len(made.classes), made.classes[1000]) == (9000, f"{plain.classes[0]} in cell 1")
