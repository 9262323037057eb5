"""Random weights: units in order of execution, seeds of their own, initialisations, and a model put back bit by bit."""

from __future__ import annotations

import itertools
import math
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
import torchvision
from networks import Gap
from test_calls import vit
from torch import Tensor, nn

from gradcam_bench import randomize
from gradcam_bench.calls import Calls
from gradcam_bench.errors import UserError
from gradcam_bench.models.network import Network
from gradcam_bench.models.timm_zoo import timm_network
from gradcam_bench.models.zoo import torchvision_network
from gradcam_bench.randomize import Settings, drawn, settings, stages, swapped
from gradcam_bench.units import Unit, find_units


def units_of(
    model: nn.Module, size: int = 32, granularity: str = "layer", batch_norm: str = "redraw_affine"
) -> list[Unit]:
    image = torch.zeros(1, 3, size, size)
    return find_units(Calls(model, image, model), image, granularity, batch_norm)


class Backwards(nn.Module):
    """Defined in the reverse of its order of execution; one layer takes no part, one is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.second, self.first = nn.Linear(4, 2), nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 1)
        self.unused, self.scale = nn.Linear(4, 2), nn.Parameter(torch.ones(4))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.second(self.second(self.first(images))).mean((2, 3)) * self.scale)


def test_units_stand_in_order_of_execution_and_leave_out_what_takes_no_part() -> None:
    assert [unit.name for unit in units_of(Backwards().eval())] == ["scale", "first", "second", "fc"]


def test_resnet18_has_41_layers_and_ten_blocks() -> None:
    model = torchvision.models.resnet18().eval()
    names = [unit.name for unit in units_of(model)]
    assert len(names) == 41
    assert names[:2] == ["conv1", "bn1"]
    assert names[-3:] == ["layer4.1.conv2", "layer4.1.bn2", "fc"]
    stage = stages(units_of(model), "cascade_down")[2]
    assert stage.name == "cascade_down/03:layer4.1.conv2"
    blocks = [f"layer{k}.{b}" for k in range(1, 5) for b in range(2)]
    assert [unit.name for unit in units_of(model, granularity="block")] == ["conv1", "bn1", *blocks, "fc"]
    assert not any("bn" in unit.name for unit in units_of(model, batch_norm="keep"))


@pytest.mark.parametrize("granularity", ["layer", "block"])
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v2", "densenet121", "vit", "swin_t"])
def test_every_parameter_is_in_one_unit(name: str, granularity: str) -> None:
    with torch.device("cpu"):
        model = vit() if name == "vit" else getattr(torchvision.models, name)(num_classes=3).eval()
    if name == "swin_t":
        model.head.weight.data.normal_()
    held = [part.parameter for unit in units_of(model, 32 if name == "vit" else 64, granularity) for part in unit.parts]
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    assert len(held) == len(list(model.parameters()))


def test_a_transformers_tokens_positions_and_projections_are_randomised_too() -> None:
    units = {unit.name: {f"{part.name}.{part.key}" for part in unit.parts} for unit in units_of(vit())}
    assert units["class_token"] == {".class_token"}
    assert units["encoder"] == {"encoder.pos_embedding"}
    attention = "encoder.layers.encoder_layer_0.self_attention"
    assert units[attention] == {
        f"{attention}.in_proj_weight",
        f"{attention}.in_proj_bias",
        f"{attention}.out_proj.weight",
        f"{attention}.out_proj.bias",
    }
    blocks = [unit.name for unit in units_of(vit(), granularity="block")]
    assert [name for name in blocks if "layers" in name] == [f"encoder.layers.encoder_layer_{k}" for k in range(3)]


def test_stages_of_each_order_by_hand() -> None:
    a, b, c = (Unit(name, place, ()) for place, name in enumerate("abc"))
    down, up, alone = (stages([a, b, c], order) for order in randomize.ORDERS)
    assert [(s.name, s.units, s.changed, s.follows) for s in down] == [
        ("cascade_down/01:c", (c,), c, False),
        ("cascade_down/02:b", (b, c), b, False),
        ("cascade_down/03:a", (a, b, c), a, False),
    ]
    assert [(s.name, s.units, s.changed, s.follows) for s in up] == [
        ("cascade_up/01:a", (a,), a, False),
        ("cascade_up/02:b", (a, b), b, True),
        ("cascade_up/03:c", (a, b, c), c, True),
    ]
    assert [(s.units, s.changed) for s in alone] == [((a,), a), ((b,), b), ((c,), c)]
    some = stages([a, b, c, Unit("d", 3, ())], "cascade_up", every=2)
    assert [(s.name, s.changed.name) for s in some] == [
        ("cascade_up/01:a", "a"),
        ("cascade_up/03:c", "b"),
        ("cascade_up/04:d", "d"),
    ]


def test_a_seed_for_each_module_and_draw_whatever_the_granularity() -> None:
    model = Gap().eval()
    twin = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3)).eval()
    by_name = {unit.name: next(iter(drawn([unit], 0, 0).values())) for unit in units_of(twin)}
    assert not torch.equal(by_name["1"], by_name["2"])
    layers, blocks = (drawn(units_of(model, granularity=g), 5, 1) for g in ("layer", "block"))
    assert all(torch.equal(layers[p], blocks[p]) for p in model.parameters())
    other_draw, other_seed = drawn(units_of(model), 5, 2), drawn(units_of(model), 6, 1)
    for name in ("stem.0.weight", "fc.weight"):
        p = model.get_parameter(name)
        assert not torch.equal(layers[p], other_draw[p])
        assert not torch.equal(layers[p], other_seed[p])


def test_initialisations_have_the_deviations_they_say() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 5, bias=True), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 8, 3)).eval()
    kernel, bias, scale = model[0].weight, model[0].bias, model[1].weight
    with torch.no_grad():
        kernel.mul_(7).add_(3)
        bias.add_(5)
    own, he, std = (drawn(units_of(model), 0, 0, how) for how in ("own", "he", "std"))
    bound = 1 / math.sqrt(75)  # kaiming_uniform with a = sqrt(5), as Conv2d has it
    assert own[kernel].abs().max() <= bound
    assert own[kernel].std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert he[kernel].std() == pytest.approx(math.sqrt(2 / 75), rel=0.05)
    assert not he[bias].any()
    assert std[kernel].std() == pytest.approx(kernel.std().item(), rel=0.05)
    assert std[kernel].mean().abs() < 0.1
    assert std[bias].mean() == pytest.approx(5, abs=0.1)
    assert not torch.equal(std[bias], bias)
    assert torch.equal(std[scale], torch.ones(64))  # a constant scale stays what it is
    assert torch.equal(own[scale], torch.ones(64))


def built(network: Network, size: int = 64, draw: int = 0, only: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The parameters by name that `architecture` draws for units (of these names, or all) of a network."""
    units = [unit for unit in units_of(network.module, size) if unit.name in only or not only]
    found = drawn(units, 0, draw, "architecture", network.untrained)
    return {name: found[parameter] for name, parameter in network.module.named_parameters() if parameter in found}


def test_the_architectures_own_weights_are_those_of_torchvisions_constructor() -> None:
    """ResNet: normal, variance 2 / fan-out; batch norms 1 and 0; the classifier uniform up to 1 / sqrt(512)."""
    state = torch.get_rng_state()
    network = torchvision_network("resnet18", "none", num_classes=30)
    found = built(network)
    assert torch.equal(torch.get_rng_state(), state)
    assert set(found) == {name for name, _ in network.module.named_parameters()}
    kernel = found["layer2.0.conv1.weight"]  # 64 -> 128 channels: fan-out 128 * 9, fan-in 64 * 9
    assert kernel.std() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.02)
    assert scipy.stats.kstest(kernel.flatten()[:5000].numpy() / math.sqrt(2 / (128 * 9)), "norm").pvalue > 1e-3
    assert kernel.abs().max() > 3.5 * kernel.std()  # no uniform distribution
    assert found["conv1.weight"].std() == pytest.approx(math.sqrt(2 / (64 * 49)), rel=0.02)
    assert (found["bn1.weight"].unique().tolist(), found["bn1.bias"].unique().tolist()) == ([1], [0])
    assert found["fc.weight"].shape == network.module.get_parameter("fc.weight").shape
    assert 0.95 / math.sqrt(512) < found["fc.weight"].abs().max() <= 1 / math.sqrt(512)
    again, other = (built(network, draw=draw, only=("conv1",))["conv1.weight"] for draw in (0, 1))
    assert torch.equal(found["conv1.weight"], again)
    assert not torch.equal(found["conv1.weight"], other)
    same = [found[f"layer1.{k}.conv{n}.weight"].flatten() for k in (0, 1) for n in (1, 2)]  # of one shape
    assert all(abs(np.corrcoef(a, b)[0, 1]) < 0.05 for a, b in itertools.combinations(same, 2))


def test_the_architectures_own_weights_of_a_network_made_convolutional() -> None:
    network = torchvision_network("resnet18", "none", num_classes=30, convolutional=True)
    weight = built(network, 224, only=("fc",))["fc.weight"]
    assert weight.shape == (30, 512, 1, 1)
    assert 0.95 / math.sqrt(512) < weight.abs().max() <= 1 / math.sqrt(512)


def test_the_architectures_own_weights_of_squeezenet() -> None:
    found = built(torchvision_network("squeezenet1_1", "none"))
    assert found["classifier.1.weight"].std() == pytest.approx(0.01, rel=0.01)  # normal, not uniform as all others
    assert found["features.3.squeeze.weight"].abs().max() <= math.sqrt(6 / 64)
    assert not found["features.3.squeeze.bias"].any()


def test_the_architectures_own_tokens_and_positions() -> None:
    """A vision transformer: positions normal of 0.02, the class token zeros as the constructor has it, its projection a
    normal of 1 / fan-in cut off at two, no weight left as it was trained."""
    network = torchvision_network("vit_b_32", "none", num_classes=4, image_size=64)
    module = network.module
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    found = built(network, only=("conv_proj", "class_token", "encoder"))
    assert set(found) == {"conv_proj.weight", "conv_proj.bias", "class_token", "encoder.pos_embedding"}
    assert found["encoder.pos_embedding"].shape == (1, 5, 768)
    assert found["encoder.pos_embedding"].std() == pytest.approx(0.02, rel=0.05)
    assert found["encoder.pos_embedding"].mean().abs() < 2e-3
    assert not found["class_token"].any()
    assert found["conv_proj.weight"].std() == pytest.approx(math.sqrt(1 / (3 * 32 * 32)), rel=0.02)
    assert all(not torch.equal(value, module.get_parameter(name)) for name, value in found.items())


def test_the_architectures_own_weights_of_timm() -> None:
    pytest.importorskip("timm")
    network = timm_network("vit_tiny_patch16_224", "none", num_classes=5, depth=1, img_size=32)
    found = built(network, 32)
    assert found["pos_embed"].std() == pytest.approx(0.02, rel=0.1)
    assert set(found) == {name for name, _ in network.module.named_parameters()}


def test_a_network_of_nobody_knows_what_has_no_architecture_of_its_own() -> None:
    with pytest.raises(UserError, match="needs a network whose constructor is known"):
        drawn(units_of(Gap().eval()), 0, 0, "architecture")


def test_the_model_and_the_random_state_are_left_bit_by_bit() -> None:
    model = Gap().train()
    model.fc.weight.requires_grad_(False)
    before, state = deepcopy(model.state_dict()), torch.get_rng_state()
    places = {name: p.data_ptr() for name, p in model.named_parameters()}
    calls = Calls(model, torch.randn(1, 3, 32, 32), model.features)
    state = torch.get_rng_state()
    units = find_units(calls, torch.zeros(1, 3, 32, 32))
    values = drawn(units, 0, 0)
    with pytest.raises(ZeroDivisionError), swapped(values):  # noqa: PT012
        assert not torch.equal(model.stem[0].weight, before["stem.0.weight"])
        with swapped(randomize.statistics(calls, 0, torch.randn(4, 3, 32, 32, generator=torch.Generator()))):
            raise ZeroDivisionError
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == places
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model.fc.weight.requires_grad
    assert model.stem[0].weight.requires_grad
    assert model.stem[1].momentum == 0.1


def test_recomputed_statistics_are_those_of_the_images() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).eval()
    images = torch.randn(5, 3, 8, 8)
    calls = Calls(model, images[:1], model)
    found = randomize.statistics(calls, calls.first[model[2]], images)
    assert model[1].running_mean not in found
    with torch.no_grad():
        fed = model[2](model[1](model[0](images)))
    assert torch.allclose(found[model[3].running_mean], fed.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(found[model[3].running_var], fed.var((0, 2, 3)), atol=1e-6)
    assert torch.equal(model[3].running_mean, torch.zeros(4))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"order": ["cascade_down"]}, "orders"),
        ({"orders": ["cascade"]}, "cascade_down"),
        ({"orders": "independent"}, "list"),
        ({"orders": []}, "list"),
        ({"granularity": "layers"}, "layer"),
        ({"initialization": "xavier"}, "own"),
        ({"batch_norm": None}, "randomize.batch_norm"),
        ({"target": "predicted"}, "kept"),
        ({"draws": 0}, "randomize.draws=0"),
        ({"every": True}, "randomize.every=True"),
        ({"samples": 2.5}, "randomize.samples=2.5"),
        ({"noise": -1}, "randomize.noise=-1"),
        ({"twin": 3}, "randomize.twin=3"),
        ({"keep": "yes"}, "randomize.keep=yes"),
    ],
)
def test_wrong_settings_are_named(given: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        settings(given)


def test_no_settings_are_the_defaults() -> None:
    assert settings(None) == settings({}) == Settings()


def test_a_network_without_weights_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten()).eval()
    only_norms = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten()).eval()
    assert len(units_of(model, 8)) == 1
    with pytest.raises(UserError, match="no weights"):
        units_of(only_norms, 8, batch_norm="keep")


def test_scores_may_be_within_an_object() -> None:
    class Wrapped(Gap):
        def forward(self, images: Tensor) -> SimpleNamespace:  # type: ignore[override]
            return SimpleNamespace(logits=super().forward(images))

    assert [unit.name for unit in units_of(Wrapped().eval())] == ["stem.0", "stem.1", "features.0", "fc"]
