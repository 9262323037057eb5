"""Every torchvision classifier has a default layer whose evidence is a grid, the same as plain autograd's."""

import networks
import pytest
import torch
import torchvision
from torch import Tensor

from gradcam_bench.errors import UserError
from gradcam_bench.methods.activation import cam
from gradcam_bench.methods.gradient import grad_cam
from gradcam_bench.models.zoo import torchvision_network
from gradcam_bench.probe import Probe

CATALOGUE = torchvision.models.list_models(module=torchvision.models)
QUICK = [
    "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "maxvit_t", "mnasnet0_5", "mobilenet_v3_small",
    "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vit_b_32",
]  # fmt: skip


def side(name: str) -> int:
    """Pixels: little, but more than one cell; of a transformer whose size is fixed, that."""
    fixed = {"vit": 224, "maxvit": 224, "inception": 160}
    return next((pixels for family, pixels in fixed.items() if name.startswith(family)), 96)


def laid_out(name: str, native: Tensor) -> Tensor:
    """[B,C,h,w] from what a layer of this family gives, written out: a class token and rows of patches, or NHWC."""
    if name.startswith("vit"):
        count, tokens, channels = native.shape
        rows = round((tokens - 1) ** 0.5)
        assert rows**2 == tokens - 1
        return native[:, 1:].reshape(count, rows, rows, channels).permute(0, 3, 1, 2)
    return native.permute(0, 3, 1, 2) if name.startswith("swin") else native


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CATALOGUE])
def test_a_look_at_the_default_layer_equals_plain_autograd(name: str) -> None:
    network = torchvision_network(name, weights="none")
    model = network.module.requires_grad_(False)
    images = torch.randn(2, 3, side(name), side(name), generator=torch.Generator().manual_seed(0))
    classes = model(images).argmax(1).tolist()
    evidence = Probe(model, [network.layer]).look(images, classes)[network.layer]
    activations, gradients = networks.hooked_gradients(model, network.layer, images, classes)
    assert_close(evidence.activations, laid_out(name, activations))
    assert_close(evidence.gradients, laid_out(name, gradients))
    assert min(evidence.gradients.shape[2:]) > 1
    for gradient in evidence.gradients:
        assert gradient.any()
    assert grad_cam(evidence).isfinite().all()


def test_quick_architectures_are_in_the_catalogue() -> None:
    assert set(QUICK) <= set(CATALOGUE)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("swin_t", ["features.7.1.norm1", "features.7.1", "features"]),
        ("vit_b_32", ["encoder.layers.encoder_layer_11.ln_1"]),
    ],
)
def test_cam_refuses_layers_that_the_mean_does_not_follow(name: str, layers: list[str]) -> None:
    network = torchvision_network(name, weights="none", num_classes=10)
    images = torch.randn(2, 3, side(name), side(name), generator=torch.Generator().manual_seed(0))
    for evidence in Probe(network.module, layers).look(images, [3, 5]).values():
        with pytest.raises(UserError, match="cam does not apply"):
            cam(evidence)


def test_cam_applies_to_the_last_norm_of_a_swin() -> None:
    """norm -> mean -> linear: there, with h*w cells, Grad-CAM is CAM / hw."""
    network = torchvision_network("swin_t", weights="none", num_classes=10)
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    evidence = Probe(network.module, ["norm"]).look(images, [3, 5])["norm"]
    assert_close(grad_cam(evidence) * 9, cam(evidence))


@pytest.mark.parametrize("size", [(64, 128), (96, 160)])
def test_a_swin_takes_images_that_are_not_square(size: tuple[int, int]) -> None:
    network = torchvision_network("swin_t", weights="none", num_classes=10)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    evidence = Probe(network.module, [network.layer]).look(images, [3, 5])[network.layer]
    activations, gradients = networks.hooked_gradients(network.module, network.layer, images, [3, 5])
    assert evidence.gradients.shape == (2, 768, size[0] // 32, size[1] // 32)
    assert_close(evidence.activations, activations.permute(0, 3, 1, 2))
    assert_close(evidence.gradients, gradients.permute(0, 3, 1, 2))
