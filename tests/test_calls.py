"""Passes that begin in the middle: what they give is what the whole, changed network gives."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torchvision
from networks import Attending, Gap, InPlace, Tokens, Twice, vgg11
from torch import Tensor, nn

from gradcam_bench import randomize
from gradcam_bench.calls import Calls
from gradcam_bench.models.zoo import torchvision_network
from gradcam_bench.probe import Probe
from gradcam_bench.units import Unit, find_units

TORCHVISION = {
    "resnet18": ("layer4", 64),
    "densenet121": ("features.relu", 64),
    "squeezenet1_1": ("features", 64),
    "mobilenet_v2": ("features", 64),
    "googlenet": ("inception5b", 64),
    "convnext_tiny": ("features", 64),
    "swin_t": ("features.7.1.norm1", 64),
}


def vit() -> nn.Module:
    torch.manual_seed(3)
    model = torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)
    return model


def small(name: str) -> tuple[nn.Module, str, int]:
    """A network with a layer of it and the size of its images."""
    torch.manual_seed(7)
    if name == "vit":
        return vit(), "encoder.layers.encoder_layer_2.ln_1", 32
    if name == "vgg11":
        return vgg11().model, "features.19", 64
    if name in TORCHVISION:
        layer, size = TORCHVISION[name]
        return torchvision_network(name, None, num_classes=5).module, layer, size
    module, layer = {
        "gap": (Gap(), "features"),
        "gap, an early layer": (Gap(), "stem"),
        "in place": (InPlace(), "layer"),
        "twice, first": (Twice(), "block@0"),
        "twice, second": (Twice(), "block@1"),
        "tokens": (Tokens(), "blocks.1.norm1"),
        "attending": (Attending(), "blocks.1.norm1"),
    }[name]
    return module.eval(), layer, 32


EVERY = {"resnet18": 7, "densenet121": 61, "mobilenet_v2": 23, "googlenet": 23, "convnext_tiny": 29, "swin_t": 29}
SMALL = [
    "gap",
    "gap, an early layer",
    "in place",
    "twice, first",
    "twice, second",
    "tokens",
    "attending",
    "vit",
    "vgg11",
]


def whole_look(model: nn.Module, layer: str, values: dict[Tensor, Tensor], images: Tensor) -> tuple[Tensor, ...]:
    """Logits, activations and gradients of a copy of the network that has the values in it."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    other = deepcopy(model)
    other.load_state_dict({names[p]: value for p, value in values.items()}, strict=False)
    found = Probe(other, [layer]).look(images, [0, 1])[layer]
    return found.logits, found.activations, found.gradients


@pytest.mark.parametrize("order", randomize.ORDERS)
@pytest.mark.parametrize("name", [*SMALL, *TORCHVISION])
def test_a_look_that_begins_in_the_middle_is_the_whole_look_at_the_randomised_network(name: str, order: str) -> None:
    model, layer, size = small(name)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    probe = Probe(model, [layer])
    probe.look(images, [0, 1])
    calls = Calls(model, images[:1], probe.target)
    units = find_units(calls, images[:1])
    assert calls.hold([unit.begins for unit in units], images[:1])
    stages = randomize.stages(units, order, EVERY.get(name, 1))
    starts = [calls.start(stage.changed.begins) for stage in stages]
    kept: dict = {}
    with torch.no_grad(), calls.passing(calls.start(0), kept, starts if order != "cascade_up" else starts[:1]):
        model(images.clone())
    for n, stage in enumerate(stages):
        values = randomize.drawn(stage.units, 0, 0, "own")
        ahead = starts[n + 1 : n + 2] if order == "cascade_up" else []
        with randomize.swapped(values), calls.passing(starts[n], kept, ahead):
            found = probe.look(images, [0, 1])[layer]
        expected = whole_look(model, layer, values, images)
        for mine, theirs in zip((found.logits, found.activations, found.gradients), expected, strict=True):
            assert (mine - theirs).abs().max() <= 1e-6 * theirs.abs().max().clamp(min=1e-6), stage.name


def counted(calls: Calls, unit: Unit, images: Tensor) -> list[str]:
    """The leaf modules that compute something when a pass begins at a unit."""
    start, ran = calls.start(unit.begins), []
    names = {module: name for name, module in calls.model.named_modules() if not list(module.children())}
    kept: dict = {}
    with torch.no_grad():
        with calls.passing(calls.start(0), kept, [start]):
            calls.model(images.clone())
        for module in names:
            module.forward = lambda *x, f=module.forward, m=module: (ran.append(names[m]), f(*x))[1]  # type: ignore[method-assign]
        try:
            with calls.passing(start, kept):
                calls.model(images.clone())
        finally:
            for module in names:
                del module.forward
    return ran


def test_what_comes_before_is_not_computed_again() -> None:
    model = torchvision.models.resnet18(num_classes=5).eval()
    images = torch.randn(1, 3, 32, 32)
    calls = Calls(model, images, model.layer4)
    units = {unit.name: unit for unit in find_units(calls, images)}
    ran = counted(calls, units["layer4.1.conv2"], images)
    assert ran == ["layer4.1.conv2", "layer4.1.bn2", "layer4.1.relu", "avgpool", "fc"]
    assert counted(calls, units["fc"], images) == ["avgpool", "fc"]
    assert counted(calls, units["layer4.0.downsample.0"], images)[:3] == [
        "layer4.0.downsample.0",
        "layer4.0.downsample.1",
        "layer4.0.relu",
    ]


def test_behind_the_target_layer_the_graph_is_whole() -> None:
    model = torchvision.models.vgg11(num_classes=5).eval()
    images = torch.randn(1, 3, 32, 32)
    calls = Calls(model, images, model.features[10])
    units = {unit.name: unit for unit in find_units(calls, images)}
    assert counted(calls, units["classifier.6"], images)[0] == "features.11"


class Counting(nn.Module):
    """Multiplies by how often it was called: no function of its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc, self.calls = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.fc(self.stem(images).mean((2, 3)) * self.calls)


def test_a_network_that_counts_its_calls_is_told_apart() -> None:
    images = torch.randn(1, 3, 16, 16)
    model = Counting().eval()
    calls = Calls(model, images, model.stem)
    assert not calls.hold([unit.begins for unit in find_units(calls, images)], images)


def test_an_error_leaves_no_hook_and_no_stand_in() -> None:
    model = Gap().eval()
    images = torch.randn(1, 3, 16, 16)
    calls = Calls(model, images, model.features)
    start, kept = calls.start(calls.first[model.fc]), {}
    with torch.no_grad(), calls.passing(calls.start(0), kept, [start]):
        model(images)
    with pytest.raises(ZeroDivisionError), calls.passing(start, kept, [start]):
        raise ZeroDivisionError
    for module in model.modules():
        assert "forward" not in vars(module)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
