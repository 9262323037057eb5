"""A fully convolutional classifier is the plain one at 224 pixels and scores several positions beyond."""

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from gradcam_bench.models.convolutional import convolutional
from gradcam_bench.models.zoo import torchvision_network
from gradcam_bench.probe import Probe

QUICK = ["resnet18"]  # a VGG's many weights take seconds to draw
OTHERS = ["resnet50", "resnet101", "resnext50_32x4d", "vgg11", "vgg16", "vgg16_bn", "wide_resnet50_2"]


def drawn(size: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_the_same_at_224_pixels_and_more_positions_beyond(name: str) -> None:
    plain = torchvision_network(name, "none", num_classes=10)
    scored = torchvision_network(name, "none", num_classes=10, convolutional=True)
    assert (scored.name, scored.layer) == (f"{name}_convolutional", plain.layer)
    assert scored.digest != plain.digest
    images, large = drawn((224, 224)), drawn((224, 280))
    expected = plain.module(images).detach()
    looks = [Probe(made.module, [made.layer]).look(images, [1, 2])[made.layer] for made in (plain, scored)]
    slack = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(looks[1].logits, expected, rtol=0, atol=slack)
    slack = 1e-5 * float(looks[0].gradients.abs().max())
    torch.testing.assert_close(looks[1].gradients, looks[0].gradients, rtol=0, atol=slack)
    columns = 2 if name.startswith("vgg") else 3  # 8 of VGG's cells, 9 of ResNet's: 280 / 32 is 8.75
    with torch.no_grad():
        assert scored.module(images).shape == (2, 10, 1, 1)
        assert scored.module(large).shape == (2, 10, 1, columns)


def test_a_position_is_the_plain_network_on_its_window() -> None:
    """Of the last grid, 7 x 9 cells, each 7 x 7 window is scored as ResNet scores its whole grid."""
    torch.manual_seed(0)
    plain = torchvision.models.resnet18(num_classes=10).eval()
    scored = convolutional(copy.deepcopy(plain), "resnet18")
    trunk = nn.Sequential(*list(plain.children())[:-2])
    with torch.no_grad():
        grid, scores = trunk(drawn((224, 280))), scored(drawn((224, 280)))
        for column in range(3):
            expected = plain.fc(grid[:, :, :, column : column + 7].mean((2, 3)))
            torch.testing.assert_close(
                scores[:, :, 0, column], expected, rtol=0, atol=1e-5 * float(expected.abs().max())
            )


def test_the_positions_of_a_vgg_by_hand() -> None:
    torch.manual_seed(0)
    plain = torchvision.models.vgg11(num_classes=3).eval()
    with torch.no_grad():
        grid = torch.randn(1, 512, 8, 7)
        windows = [plain.classifier(grid[:, :, row : row + 7].flatten(1)) for row in (0, 1)]
        found = convolutional(plain, "vgg11").classifier(grid)
        torch.testing.assert_close(found[:, :, :, 0], torch.stack(windows, 2), rtol=0, atol=1e-5)


def test_weights_of_the_plain_network_are_loaded_and_copies_stand_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain = torchvision.models.resnet18(num_classes=7).eval()
    save_file(plain.state_dict(), tmp_path / "a.safetensors")
    made = torchvision_network("resnet18", str(tmp_path / "a.safetensors"), convolutional=True).module
    images = drawn((224, 224))
    with torch.no_grad():
        expected = plain(images)
        torch.testing.assert_close(made(images)[:, :, 0, 0], expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
        twin = copy.deepcopy(made)
        twin.fc.weight.zero_()
        assert torch.equal(twin(images)[:, :, 0, 0], twin.fc.bias.expand(2, -1))
        torch.testing.assert_close(made(images)[:, :, 0, 0], expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
