"""Networks by name: target layers that exist and are grids, random weights that repeat, files that fit."""

import copy
import inspect
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torchvision import models

from gradcam_bench.catalogue import names, spec
from gradcam_bench.errors import UserError
from gradcam_bench.models.layers import LAYERS, default_layer
from gradcam_bench.models.network import Preprocessing
from gradcam_bench.models.timm_zoo import timm_network
from gradcam_bench.models.zoo import custom_network, torchvision_network

CONFIGURED = sorted(
    found["name"]
    for found in (spec("model", label) for label in names("model"))
    if str(found["_target_"]).endswith("torchvision_network") and found["name"] != "???"
)
OTHERS = [
    "efficientnet_v2_s", "mnasnet0_5", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnext101_32x8d",
    "shufflenet_v2_x0_5", "squeezenet1_0", "vgg11_bn", "vgg16_bn", "wide_resnet101_2",
]  # fmt: skip


TRANSFORMERS = ("maxvit", "swin", "vit")  # their layers give no [B,C,h,w]: see test_models_families.py


@pytest.mark.parametrize("name", sorted(n for n in {*CONFIGURED, *OTHERS} if not n.startswith(TRANSFORMERS)))
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_the_default_layer_is_a_module_whose_output_is_a_grid(name: str) -> None:
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # RegNet cannot be built on meta
        module = torchvision.models.get_model(name, weights=None).eval()
        images = torch.zeros(1, 3, 224, 224)
    shapes = []
    layer = module.get_submodule(default_layer(name, module))
    layer.register_forward_hook(lambda _module, _inputs, output: shapes.append(output.shape))
    module(images)
    assert len(shapes) == 1
    assert len(shapes[0]) == 4
    assert min(shapes[0][-2:]) >= 5


def test_every_family_of_layers_is_tried_above() -> None:
    tried = {
        max((p for p in LAYERS if name.startswith(p)), key=len)
        for name in [*CONFIGURED, *OTHERS]
        if not name.startswith("vgg")
    }
    assert tried | set(TRANSFORMERS) == set(LAYERS)


@pytest.mark.parametrize(("name", "layer"), [("vgg11", 19), ("vgg16", 29), ("vgg16_bn", 42), ("vgg19", 35)])
def test_the_last_relu_of_a_vgg(name: str, layer: int) -> None:
    with torch.device("meta"):
        module = torchvision.models.get_model(name, weights=None)
    assert default_layer(name, module) == f"features.{layer}"


def test_random_weights_repeat_and_leave_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = torchvision_network("squeezenet1_1", weights="none")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    two = torchvision_network("squeezenet1_1", weights=None)
    assert one.digest == two.digest
    assert not one.module.training
    assert (one.layer, len(one.classes)) == ("features", 1000)
    few = torchvision_network("squeezenet1_1", weights="none", num_classes=7, layer="features.3")
    assert (few.layer, few.classes) == ("features.3", None)
    assert few.module(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_an_untrained_vit_has_gradients() -> None:
    """torchvision's own untrained head is zero, and so would be every map."""
    made = torchvision_network("vit_b_32", weights="none", num_classes=5)
    assert made.module.heads.head.weight.detach().std() == pytest.approx(0.02, rel=0.05)
    assert made.digest == torchvision_network("vit_b_32", weights="none", num_classes=5).digest


@pytest.mark.parametrize("wrap", [lambda tensors: tensors, lambda t: {f"module.{k}": v for k, v in t.items()}])
def test_a_files_weights_and_number_of_classes(tmp_path: Path, wrap) -> None:
    torch.manual_seed(1)
    original = torchvision.models.squeezenet1_1(num_classes=7)
    save_file(wrap(original.state_dict()), tmp_path / "a.safetensors")
    before = torch.get_rng_state()
    made = torchvision_network("squeezenet1_1", weights=str(tmp_path / "a.safetensors"))
    assert torch.equal(torch.get_rng_state(), before)
    assert made.classes is None
    for name, tensor in made.module.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[name])
    assert made.preprocessing == Preprocessing()
    with pytest.raises(UserError, match=r"a\.safetensors does not fit ResNet"):
        torchvision_network("resnet18", weights=str(tmp_path / "a.safetensors"))


def test_a_file_of_a_network_that_cannot_be_built_without_memory(tmp_path: Path) -> None:
    original = torchvision.models.regnet_x_400mf(num_classes=3)
    save_file(original.state_dict(), tmp_path / "a.safetensors")
    made = torchvision_network("regnet_x_400mf", weights=str(tmp_path / "a.safetensors"))
    assert torch.equal(made.module.fc.weight, original.fc.weight)


@pytest.mark.filterwarnings("ignore:The default weight initialization")
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_published_files_with_auxiliary_heads_fit(tmp_path: Path, name: str) -> None:
    with torch.device("meta"):
        like = torchvision.models.get_model(name, weights=None, aux_logits=True)
    drawn = {key: torch.full(tensor.shape, 0.01, dtype=tensor.dtype) for key, tensor in like.state_dict().items()}
    assert any("ux" in key for key in drawn)
    save_file(drawn, tmp_path / "a.safetensors")
    made = torchvision_network(name, weights=str(tmp_path / "a.safetensors"))
    assert made.module.fc.weight.unique().tolist() == pytest.approx([0.01])
    assert not any("ux" in key for key in made.module.state_dict())


def test_densenet_with_its_last_relu_shown_computes_the_same() -> None:
    made = torchvision_network("densenet121", weights="none").module
    with torch.device("meta"):
        original = torchvision.models.densenet121()
    original.load_state_dict(made.state_dict(), assign=True)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = []
    made.features.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        expected = original.eval()(images)
        assert torch.equal(made(images), expected)
        assert float(seen[0].min()) == 0  # what the classifier pools: after the ReLU
        torch.testing.assert_close(made.classifier(seen[0].mean((2, 3))), expected)
        twin = copy.deepcopy(made)
        twin.classifier.weight.zero_()
        assert torch.equal(twin(images), twin.classifier.bias.expand(2, -1))
        assert torch.equal(made(images), expected)


def test_preprocessing_is_that_of_the_weights() -> None:
    made = torchvision_network("inception_v3", weights="none").preprocessing
    assert (made.size, made.crop, made.interpolation) == (342, 299, "bilinear")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet51"}, "unknown torchvision model 'resnet51': did you mean 'resnet50'|'resnet50'"),
        ({"name": "resnet18", "weights": "IMAGENET1K_V3"}, r"unknown weights 'IMAGENET1K_V3': did you mean 'IMAGE"),
        ({"name": "resnet18", "weights": "gone.pth"}, r"gone\.pth is not there"),
        ({"name": "squeezenet1_1", "weights": "none", "dropuot": 0.1}, "model squeezenet1_1: .*dropuot"),
        ({"name": "alexnet", "weights": "none", "convolutional": True}, r"known for vgg\*, .* not for alexnet"),
    ],
)
def test_wrong_settings_are_sentences(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        torchvision_network(**arguments)


def test_published_weights_with_another_number_of_classes_are_refused() -> None:
    with pytest.raises(UserError, match=r"model resnet18: .*num_classes"):
        torchvision_network("resnet18", weights=models.ResNet18_Weights.DEFAULT.name, num_classes=5)


CONV = {"in_channels": 3, "out_channels": 2, "kernel_size": 1}


def test_a_custom_network(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    made = custom_network("torch.nn.Conv2d", layer="x", activation="sigmoid", classes=["a", "b"], **CONV)
    assert torch.equal(torch.get_rng_state(), before)
    assert made.digest == custom_network("torch.nn.Conv2d", layer="x", **CONV).digest
    assert (made.name, made.layer, made.classes, made.activation) == ("Conv2d", "x", ("a", "b"), "sigmoid")
    drawn = {"weight": torch.rand(2, 3, 1, 1), "bias": torch.rand(2)}
    torch.save({"state_dict": drawn}, tmp_path / "a.pth")
    loaded = custom_network("torch.nn.Conv2d", layer="x", weights=str(tmp_path / "a.pth"), **CONV)
    assert torch.equal(loaded.module.weight, drawn["weight"])
    warped = custom_network(
        "torch.nn.Conv2d", layer="x", preprocessing={"resize": "warp", "size": 32, "crop": None}, **CONV
    )
    assert warped.preprocessing == Preprocessing("warp", 32, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "torch.nn.Conv2d", **CONV}, r"model\.layer=NAME is needed"),
        ({"target": "torch.nn.Conv9d", "layer": "x"}, r"cannot import 'torch\.nn\.Conv9d'"),
        ({"target": "nowhere.to.be_found", "layer": "x"}, r"cannot import 'nowhere\.to\.be_found'"),
        ({"target": "Conv2d", "layer": "x"}, "cannot import 'Conv2d'"),
        (
            {"target": "torch.nn.Conv2d", "layer": "x", **CONV, "classes": 21},
            "model.classes=21: a list of the outputs' names",
        ),
        ({"target": "torch.nn.Conv2d", "layer": "x", "kernel_sise": 1}, "did you mean 'kernel_size'"),
        ({"target": "collections.OrderedDict", "layer": "x"}, "returned OrderedDict, not an nn.Module"),
        ({"target": "collections.Counter", "layer": "x"}, "returned Counter, not an nn.Module"),
        ({"target": "torch.nn.Conv2d", "layer": "x", **CONV, "preprocessing": {"crap": 3}}, "did you mean 'crop'"),
        (
            {"target": "torch.nn.Conv2d", "layer": "x", "in_channels": 3},
            r"model\.target=torch\.nn\.Conv2d failed: .*missing 2 required",
        ),
    ],
)
def test_wrong_custom_networks_are_sentences(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        custom_network(**arguments)


def test_the_yamls_of_models_name_arguments_that_exist() -> None:
    for label in names("model"):
        found = spec("model", label)
        for function in (torchvision_network, timm_network):
            if str(found["_target_"]).endswith(f".{function.__name__}"):
                assert set(found) - {"_target_"} <= set(inspect.signature(function).parameters), label
                assert found["name"] in (label, "???")
        if str(found["_target_"]).endswith("torchvision_network"):
            assert ("convolutional" in found) == label.startswith(("resne", "torchvision", "vgg", "wide_resnet")), label
