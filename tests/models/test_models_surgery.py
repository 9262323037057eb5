"""Heads anew and ends made over: what is replaced, what stays, which grid is left, and that Grad-CAM is CAM there."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

import gradcam_bench as gb
from gradcam_bench.errors import UserError
from gradcam_bench.models.surgery import HEAD_DEVIATION, SURGERIES, operate

FAMILIES = {
    "alexnet": "classifier.6", "convnext_tiny": "classifier.2", "densenet121": "classifier",
    "efficientnet_b0": "classifier.1",
    "googlenet": "fc", "inception_v3": "fc", "maxvit_t": "classifier.5", "mnasnet0_5": "classifier.1",
    "mobilenet_v2": "classifier.1", "regnet_x_400mf": "fc", "resnet18": "fc", "shufflenet_v2_x0_5": "fc",
    "squeezenet1_1": "classifier.1", "swin_t": "head", "vgg11": "classifier.6", "vit_b_16": "heads.head",
}  # fmt: skip


def on_meta(name: str) -> nn.Module:
    """A torchvision network whose weights have shapes alone."""
    if name.startswith("regnet"):  # cannot be built there
        return torchvision.models.get_model(name, weights=None).eval()
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, **extra).eval()


def device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def grid(module: nn.Module, layer: str, side: int = 224) -> tuple[int, ...]:
    """The size (h, w) of a layer's output for an input of `side` pixels."""
    shapes: list[torch.Size] = []
    hook = module.get_submodule(layer).register_forward_hook(lambda _m, _i, output: shapes.append(output.shape))
    module.eval()(torch.zeros(1, 3, side, side, device=device(module)))
    hook.remove()
    return tuple(shapes[-1][-2:])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_new_head_of_each_family(name: str) -> None:
    module = on_meta(name)
    before = {key: id(parameter) for key, parameter in module.named_parameters()}
    with torch.device(device(module)):
        made = operate("head", module, name, 7)
    assert made.new == (FAMILIES[name],)
    assert made.layer is None
    side = 299 if name == "inception_v3" else 224
    assert made.module.eval()(torch.zeros(2, 3, side, side, device=device(module))).shape == (2, 7)
    for key, parameter in made.module.named_parameters():
        assert key.startswith(f"{FAMILIES[name]}.") or before[key] == id(parameter), key


def test_a_new_head_is_drawn_narrowly_and_its_bias_is_0() -> None:
    torch.manual_seed(0)
    head = operate("head", torchvision.models.resnet18(weights=None), "resnet18", 40).module.fc
    assert float(head.weight.detach().std()) == pytest.approx(HEAD_DEVIATION, rel=0.02)
    assert not head.bias.any()


@pytest.mark.parametrize("name", ["resnet18", "deit_tiny_distilled_patch16_224", "levit_128s", "mobilenetv3_small_050"])
def test_a_new_head_of_timms_networks(name: str) -> None:
    timm = pytest.importorskip("timm")
    module = timm.create_model(name, pretrained=False).eval()
    made = operate("head", module, name, 7)
    assert made.new
    assert made.module.eval()(torch.zeros(2, 3, 224, 224)).shape == (2, 7)


def test_without_a_linear_map_there_is_no_head() -> None:
    with pytest.raises(UserError, match="no linear map"):
        operate("head", nn.Sequential(nn.Conv2d(3, 5, 3)), "mine", 7)


@pytest.mark.parametrize(
    ("surgery", "name", "layer", "side"),
    [
        ("gap", "vgg16", "relu", 14),
        ("gap", "vgg16_bn", "relu", 14),
        ("gap", "alexnet", "relu", 13),
        ("gap", "googlenet", "relu", 14),
        ("wsol_resnet", "resnet50", "layer4", 14),
        ("wsol_resnet_28", "resnet50", "layer4", 28),
        ("irn", "resnet50", "layer4", 14),
        ("wsol_inception", "inception_v3", "SPG_A3_2b", 14),
    ],
)
def test_the_grids_that_the_papers_name(surgery: str, name: str, layer: str, side: int) -> None:
    module = on_meta(name)
    before = list(module.parameters())  # kept alive, so that no new one has the id of an old one
    kept = {id(parameter) for parameter in before}
    with torch.device("meta"):
        made = operate(surgery, module, name, 20)
        assert made.module.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 20)
        # AlexNet's 13x13 is of 227 pixels, as Caffe took them; torchvision's padding gives the same of 224
        assert grid(made.module, made.layer or layer) == (side, side)
    assert (made.layer or "layer4") == layer
    for key, parameter in made.module.named_parameters():
        assert (id(parameter) in kept) == (not key.startswith(made.new)), key


def test_irns_head_has_no_bias() -> None:
    with torch.device("meta"):
        assert operate("irn", on_meta("resnet50"), "resnet50", 20).module.fc.bias is None


@pytest.mark.parametrize(
    ("surgery", "name"),
    [("gap", "resnet18"), ("irn", "vgg11"), ("wsol_resnet", "densenet121"), ("wsol_inception", "vgg11")],
)
def test_surgeries_are_refused_where_they_are_not_known(surgery: str, name: str) -> None:
    with pytest.raises(UserError, match=f"not for {name}"):
        operate(surgery, nn.Sequential(), name, 5)
    with pytest.raises(UserError, match="did you mean 'gap'"):
        operate("gab", nn.Sequential(), name, 5)
    assert surgery in SURGERIES


def test_auxiliary_heads_come_off() -> None:
    module = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=True)
    made = operate("head", module, "googlenet", 5).module.train()
    assert isinstance(made(torch.rand(2, 3, 64, 64)), Tensor)
    assert not [key for key in made.state_dict() if key.startswith("aux")]


def test_a_recentred_stem_gives_what_the_whole_network_has_there() -> None:
    """torchvision's published GoogLeNet turns ImageNet's normalisation into its own first (`transform_input`)."""
    torch.manual_seed(0)
    module = torchvision.models.googlenet(
        weights=None, init_weights=False, aux_logits=False, transform_input=True
    ).eval()
    seen: list[Tensor] = []
    module.inception4e.register_forward_hook(lambda _m, _i, output: seen.append(output))
    images = torch.rand(1, 3, 64, 64)
    module(images)
    made = operate("gap", module, "googlenet", 5).module.eval()
    torch.testing.assert_close(made.features(images), seen[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("surgery", "name", "layer"),
    [("gap", "vgg11_bn", "relu"), ("irn", "resnet18", "layer4"), ("wsol_inception", "inception_v3", "SPG_A3_2b")],
)
def test_grad_cam_is_cam_on_the_networks_for_cam(surgery: str, name: str, layer: str) -> None:
    """The weights of Grad-CAM are those of CAM over the number of cells (Selvaraju et al. 2017, section 3)."""
    torch.manual_seed(0)
    module = (
        torchvision.models.inception_v3(weights=None, init_weights=False) if name == "inception_v3" else nn.Sequential()
    )
    if name == "resnet18":
        module = torchvision.models.resnet18(weights=None)
    if name == "vgg11_bn":
        module = torchvision.models.VGG(torchvision.models.vgg.make_layers([8, "M", 512, "M"], True), 5, False, 0.0)
        module.classifier = nn.Identity()
    made = operate(surgery, module, name, 5).module.eval()
    maps = gb.explain(made, torch.rand(2, 3, 96, 96), [1, 4], methods=["cam", "grad_cam"], layer=layer)
    cells = maps["cam"][0].numel()
    torch.testing.assert_close(maps["grad_cam"] * cells, maps["cam"], rtol=1e-4, atol=1e-6)
