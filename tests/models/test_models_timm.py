"""Networks of timm by name: a target layer for every family, timm's own preprocessing, files of any class count."""

import sys
from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.methods.gradient import grad_cam
from gradcam_bench.models.network import Preprocessing
from gradcam_bench.models.timm_zoo import _preprocessing, timm_network
from gradcam_bench.probe import Probe

timm = pytest.importorskip("timm", reason="timm is an optional extra")

SMALL_SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 12, "depths": (1, 1, 2, 2), "num_heads": (1, 2, 2, 4)}
# architecture, options that make it small -> layer, and how the layer has its grid: NCHW, NHWC or prefix tokens
FAMILIES = {
    "test_resnet": ({}, "layer4", "NCHW"),
    "test_convnext": ({}, "stages", "NCHW"),
    "test_efficientnet": ({}, "bn2", "NCHW"),
    "test_nfnet": ({}, "final_act", "NCHW"),
    "test_mambaout": ({}, "stages", "NHWC"),
    "test_vit": ({}, "blocks.5.norm1", 1),
    "vit_tiny_patch16_224": ({"depth": 2, "reg_tokens": 4, "img_size": 64}, "blocks.1.norm1", 5),
    "deit_tiny_distilled_patch16_224": ({"depth": 2}, "blocks.1.norm1", 2),
    "mixer_s32_224": ({}, "blocks.7.norm1", 0),
    "swin_tiny_patch4_window7_224": (SMALL_SWIN | {"img_size": 128}, "layers.3.blocks.1.norm1", "NHWC"),
    "swinv2_tiny_window8_256": (SMALL_SWIN | {"img_size": 128}, "layers.3.blocks.1.norm1", "NHWC"),
    "maxvit_rmlp_pico_rw_256": ({"img_size": 128}, "norm", "NCHW"),
    "mobilenetv3_small_050": ({}, "blocks", "NCHW"),
    "pvt_v2_b0": ({}, "stages", "NCHW"),
}
SLOW = {
    "beit_base_patch16_224": ({}, "blocks.11.norm1", 1),
    "cait_xxs24_224": ({}, "blocks.23.norm1", 0),
    "coatnet_nano_rw_224": ({}, "norm", "NCHW"),
    "densenet121": ({}, "features", "NCHW"),
    "eva02_tiny_patch14_224": ({"num_classes": 10}, "blocks.11.norm1", 1),
    "inception_v3": ({}, "Mixed_7c", "NCHW"),
    "nfnet_f0": ({}, "final_act", "NCHW"),
    "pit_ti_224": ({}, "transformers.2.blocks.3.norm1", 1),
    "regnety_002": ({}, "s4", "NCHW"),
    "resnet18": ({}, "layer4", "NCHW"),
    "vgg11": ({}, "features.19", "NCHW"),
    "vit_small_patch14_reg4_dinov2": ({"num_classes": 10}, "blocks.11.norm1", 5),
    "xcit_nano_12_p16_224": ({}, "blocks.11.norm1", 0),
}


def laid_out(native: Tensor, order: str | int, shape: torch.Size) -> Tensor:
    """[B,C,h,w] from what a layer of this family gives, written out, its shape apart."""
    if isinstance(order, int):
        count, _, channels = native.shape
        return native[:, order:].reshape(count, *shape[2:], channels).permute(0, 3, 1, 2)
    return native.permute(0, 3, 1, 2) if order == "NHWC" else native


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_look_at_the_default_layer_equals_plain_autograd(name: str) -> None:
    options, layer, order = (FAMILIES | SLOW)[name]
    network = timm_network(name, "none", **options)
    assert network.layer == layer
    model, side = network.module.requires_grad_(False), network.preprocessing.crop
    assert side == options.get("img_size", side)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    classes = model(images).argmax(1).tolist()
    evidence = Probe(model, [layer]).look(images, classes)[layer]
    activations, gradients = networks.hooked_gradients(model, layer, images, classes)
    assert_close(evidence.activations, laid_out(activations, order, evidence.activations.shape))
    assert_close(evidence.gradients, laid_out(gradients, order, evidence.gradients.shape))
    assert min(evidence.gradients.shape[2:]) > 1
    for gradient in evidence.gradients:
        assert gradient.any()
    assert grad_cam(evidence).isfinite().all()


def test_a_vit_for_images_that_are_not_square() -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", depth=1, reg_tokens=4, img_size=(64, 96)).eval()
    images, layer = torch.randn(2, 3, 64, 96), "blocks.0.norm1"
    evidence = Probe(model, [layer]).look(images, [1, 2])[layer]
    activations, gradients = networks.hooked_gradients(model, layer, images, [1, 2])
    assert evidence.gradients.shape == (2, 192, 4, 6)
    assert_close(evidence.activations, laid_out(activations, 5, evidence.activations.shape))
    assert_close(evidence.gradients, laid_out(gradients, 5, evidence.activations.shape))


PICTURED = {
    "vit_tiny_patch16_224": "center, crop_pct 0.9, bicubic, mean 0.5",
    "dm_nfnet_f0": "squash, 0.9",
    "test_resnet": "center, 0.95",
    "vit_base_patch16_siglip_224": "squash, 0.9",
    "inception_v3.tv_in1k": "299",
    "convnext_tiny.fb_in22k_ft_in1k_384": "squash, 1.0",
    "vgg11.tv_in1k": "bilinear",
}


@pytest.mark.parity
@pytest.mark.parametrize("name", PICTURED)
def test_preprocessing_equals_timms_bit_for_bit(name: str) -> None:
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    recipe, theirs = _preprocessing(name, config), timm.data.create_transform(**config, is_training=False)
    rng = np.random.default_rng(0)
    for size in ((300, 400), (401, 299), (500, 333), (224, 224), (160, 91)):
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        pixels, frame = recipe(image, View())
        assert torch.equal(pixels, theirs(image)), size
        assert pixels.shape == (3, *frame.input)


def test_every_published_recipe_is_understood_but_for_a_few_that_no_view_can_say() -> None:
    for name in timm.list_models(pretrained=True):
        config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
        if config["crop_mode"] == "border" or config["input_size"][1] != config["input_size"][2]:
            with pytest.raises(UserError, match=f"model {name}: preprocessing to .* by crop_mode=.* is not supported"):
                _preprocessing(name, config)
        else:
            recipe = _preprocessing(name, config)
            View(resize=recipe.resize, size=recipe.size, crop=recipe.crop, interpolation=recipe.interpolation)


def test_random_weights_repeat_and_leave_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = timm_network("test_vit", "none")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert timm_network("test_vit", None).digest == one.digest
    assert (one.name, len(one.classes), one.module.training) == ("test_vit", 1000, False)
    assert one.preprocessing.crop == 160
    few = timm_network("test_vit", "none", num_classes=7, layer="blocks.2.norm1")
    assert (few.layer, few.classes, few.module.head.out_features) == ("blocks.2.norm1", None, 7)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "deit_tiny_distilled_patch16_224"])
def test_a_files_weights_and_number_of_classes(tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    original = timm.create_model(name, num_classes=7)
    saved = {"state_dict": {f"module.{key}": tensor for key, tensor in original.state_dict().items()}, "arch": name}
    torch.save(saved, tmp_path / "a.pth")
    made = timm_network(name, str(tmp_path / "a.pth"))
    for key, tensor in made.module.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[key])
    assert made.classes is None
    with pytest.raises(UserError, match=r"a\.pth has 7 classes, model\.num_classes=9 asked"):
        timm_network(name, str(tmp_path / "a.pth"), num_classes=9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet51"}, "unknown timm model 'resnet51': did you mean 'resnet"),
        ({"name": "zzzzzz"}, r"unknown timm model 'zzzzzz': \(valid: see timm\.list_models"),
        ({"name": "test_vit.nonsense", "weights": "none"}, "model test_vit.nonsense: Invalid pretrained tag"),
        ({"name": "test_vit", "weights": "gone.pth"}, r"gone\.pth is not there"),
        ({"name": "test_vit", "weights": "none", "nonsense": 3}, "model test_vit: .*nonsense"),
        ({"name": "test_vit", "num_classes": 5}, r"num_classes=5 is not the published weights' number"),
        ({"name": "test_vit", "weights": "none", "num_classes": 0}, "model test_vit has no classes"),
        ({"name": "swin_tiny_patch4_window7_224", "weights": "none", "img_size": (64, 96)}, "to 96x64 .*not supported"),
    ],
)
def test_wrong_settings_are_sentences(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        timm_network(**arguments)


def test_where_no_layer_is_known_the_candidates_are_listed() -> None:
    """Hiera's tokens come in the order of its windows: nothing of it is a grid for certain."""
    small = {"embed_dim": 12, "stages": (1, 1, 1, 1)}
    with pytest.raises(UserError, match=r"no default layer is known for hiera_tiny_224: model\.layer=NAME is needed"):
        timm_network("hiera_tiny_224", "none", **small)


def test_without_timm_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"^model=timm needs the package timm: pip install 'gradcam-bench\[timm\]'$"):
        timm_network("test_vit", "none")


def test_the_networks_of_both_libraries_are_the_same_function(tmp_path: Path) -> None:
    """torchvision's ResNet file is timm's too; both recipes at their own sizes."""
    from gradcam_bench.models.zoo import torchvision_network

    theirs = torchvision_network("resnet18", "none")
    save_file(theirs.module.state_dict(), tmp_path / "a.safetensors")
    ours = timm_network("resnet18", str(tmp_path / "a.safetensors"))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    looks = [Probe(made.module, ["layer4"]).look(images, [1, 2])["layer4"] for made in (ours, theirs)]
    assert_close(looks[0].logits, looks[1].logits)
    assert_close(grad_cam(looks[0]), grad_cam(looks[1]))
    assert isinstance(ours.preprocessing, Preprocessing)
