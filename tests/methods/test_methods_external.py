"""Attributions of other libraries: what the library itself gives, on a network that is left as it was found."""

import random
import sys

import networks
import numpy as np
import pytest
import torch
import torchvision
from captum import attr
from torch import nn

from gradcam_bench import UserError, catalogue, explain
from gradcam_bench.cases import Asked
from gradcam_bench.methods import external
from gradcam_bench.probe import Probe
from gradcam_bench.supplies import Supplies, shared_look

pytest.importorskip("pytorch_grad_cam")
pytest.importorskip("torchcam")
LABELS = [label for label in catalogue.names("method") if label.startswith("external_")]
TARGETS = [1, 0, 3]


def given(model=None, count=3):
    """(network, images [Q,3,32,32], the same network with nothing in place)."""
    halves = networks.gap(signed=True)
    model = halves.model.float() if model is None else model
    plain = networks.gap(signed=True).model.float()
    plain.stem[2].inplace = False
    return Asked(model, "features", torch.tensor(TARGETS[:count])), halves.images(count).float(), plain


def method(label):
    return catalogue.method(label, catalogue.spec("method", label)).function


def close(found, expected):
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)


def squares(size=32, count=7):
    lines = torch.tensor([int((i + 0.5) * count / size) for i in range(size)])
    return (lines[:, None] * count + lines)[None, None]


def test_captum_is_captum():
    network, images, plain = given()
    images.requires_grad_()
    target = torch.tensor(TARGETS)
    with pytest.warns(UserWarning, match="hooks"):
        expected = attr.DeepLift(plain).attribute(images, target=target)
    close(method("external_captum_deep_lift")(network, images), expected.sum(1))
    expected = attr.LayerGradCam(plain, plain.features).attribute(images, target=target)
    close(method("external_captum_layer_grad_cam")(network, images), expected[:, 0])
    assert (expected < 0).any()
    expected = attr.FeatureAblation(plain).attribute(images, target=target, feature_mask=squares())
    close(method("external_captum_feature_ablation")(network, images), expected.sum(1))


def test_a_patch_is_worth_what_the_score_falls_by():
    network, images, plain = given(count=1)
    without = images.clone()
    without[:, :, squares()[0, 0] == 10] = 0
    fall = (plain(images) - plain(without))[0, TARGETS[0]]
    found = method("external_captum_feature_ablation")(network, images)[0]
    close(found[squares()[0, 0] == 10], (3 * fall).expand(16))  # captum gives it to each of the three colours


def test_the_case_alone_seeds_what_is_random():
    network, images, plain = given()
    seeds = [int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(q))) for q in range(3)]
    for label, ask in {
        "external_captum_gradient_shap": lambda x, t: attr.GradientShap(plain).attribute(
            x, torch.zeros_like(x), target=t, n_samples=20, stdevs=0.1
        ),
        "external_captum_shapley_sampling": lambda x, t: attr.ShapleyValueSampling(plain).attribute(
            x, target=t, feature_mask=squares(), n_samples=5
        ),
    }.items():
        found = method(label)(network, images, [torch.Generator().manual_seed(q) for q in range(3)])
        for q, seed in enumerate(seeds):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                np.random.seed(seed)  # noqa: NPY002
                close(found[q], ask(images[q : q + 1].clone().requires_grad_(), TARGETS[q])[0].sum(0))


@pytest.mark.parametrize(
    ("label", "name"),
    [("external_grad_cam_grad_cam_pp", "GradCAMPlusPlus"), ("external_grad_cam_score_cam", "ScoreCAM")],
)
def test_pytorch_grad_cam_is_pytorch_grad_cam(label, name, capsys):
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, images, plain = given()
    found = method(label)(network, images)
    assert capsys.readouterr() == ("", "")  # no progress bars
    with getattr(pytorch_grad_cam, name)(plain, [plain.features]) as made:
        expected = made(images, [ClassifierOutputTarget(target) for target in TARGETS])
    close(found, torch.from_numpy(expected))
    assert found.shape == (3, 32, 32)


@pytest.mark.parametrize("name", ["vit", "swin"])
def test_pytorch_grad_cam_is_told_how_tokens_lie(name):
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(0)
    if name == "vit":
        model, layer = networks.Attending(), "blocks.1.norm1"
    else:
        model, layer = torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [1, 2], [4, 4]), "features.1.0.norm1"
    images = torch.randn(2, 3, 32, 32)

    def reshape(native):
        tokens = native[:, 1:].unflatten(1, (8, 8)) if name == "vit" else native
        return tokens.permute(0, 3, 1, 2)

    label = "external_grad_cam_grad_cam_pp"
    made = catalogue.method(label, {**catalogue.spec("method", label), "name": "HiResCAM"})
    found = explain(model.eval(), images, [1, 2], [made], layer)[label]
    with pytorch_grad_cam.HiResCAM(model, [model.get_submodule(layer)], reshape_transform=reshape) as peer:
        expected = torch.from_numpy(peer(images.clone(), [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]))
    assert expected.amax() > 0.9
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_torchcam_is_torchcam():
    from torchcam.methods import GradCAMpp

    network, images, plain = given()
    with GradCAMpp(plain, "features", input_shape=(3, 32, 32)) as made:
        expected = made(TARGETS, plain(images), normalized=False)[0]
        of_probabilities = made(TARGETS, plain(images).softmax(1), normalized=False)[0]
    close(method("external_torchcam_grad_cam_pp")(network, images), expected)
    spec = catalogue.spec("method", "external_torchcam_grad_cam_pp") | {"score": "softmax"}
    close(catalogue.method("other", spec).function(network, images), of_probabilities)
    assert not torch.allclose(of_probabilities / of_probabilities.amax(), expected / expected.amax())
    with pytest.raises(UserError, match=r"score of captum\.DeepLift 'softmax'"):
        external.attribution(network, images, "captum", "DeepLift", score="softmax")


class Raising(nn.Module):
    """The small network, which fails at its n-th forward pass."""

    def __init__(self, n):
        super().__init__()
        self.inner, self.left = networks.gap(signed=True).model.float(), n
        self.features = self.inner.features

    def forward(self, images):
        self.left -= 1
        logits = self.inner(images)
        if self.left <= 0:
            raise RuntimeError("the network gave up")
        return logits


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("nth", [1, 2, 1000])
def test_the_model_is_left_as_found(label, nth):
    model = Raising(nth).train()
    model.inner.fc.eval()
    model.inner.fc.weight.requires_grad_(False)
    model.inner.fc.bias.grad = kept = torch.ones(4)
    handle = model.features.register_forward_hook(lambda *_: None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    network, images, _ = given(model, count=1)
    generators = (
        [torch.Generator()] if "generators" in catalogue.method(label, catalogue.spec("method", label)).takes else []
    )
    try:
        method(label)(network, images, *([generators] if generators else []))
        failed = False
    except RuntimeError as error:
        failed = "gave up" in str(error)
    assert failed or nth > 1
    assert [module.training for module in model.modules()] == [
        module is not model.inner.fc for module in model.modules()
    ]
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["inner.fc.weight"]
    assert model.inner.fc.bias.grad is kept
    assert all(p.grad is None for name, p in model.named_parameters() if name != "inner.fc.bias")
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert list(model.features._forward_hooks) == [handle.id]
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in model.inner.stem.modules())
    assert model.inner.stem[2].inplace
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]


@pytest.mark.parametrize("label", LABELS)
def test_a_dry_run_is_short(label):
    halves = networks.gap()
    halves.model.float()
    images, made, calls = halves.images(2).float(), catalogue.method(label, catalogue.spec("method", label)), []
    looked = shared_look(Probe(halves.model, ["features"]), images, [0, 0], rehearsal=True)
    handle = halves.model.register_forward_hook(lambda *_: calls.append(1))
    supplies = Supplies(images, ["0", "1"], 0, looked)
    assert len(made.function(**supplies.of(label, made.takes))) == 2
    handle.remove()
    assert 1 <= len(calls) <= external.REHEARSED


def test_what_cannot_be_asked_is_refused(monkeypatch):
    network, images, _ = given()
    with pytest.raises(UserError, match="unknown class of captum 'DeepLif': did you mean 'DeepLift'"):
        external.attribution(network, images, "captum", "DeepLif")
    with pytest.raises(UserError, match="unknown library 'captun': did you mean 'captum'"):
        external.attribution(network, images, "captun", "DeepLift")
    again = Asked(network.module, "features@1", network.targets)
    with pytest.raises(UserError, match="features is called several times"):
        external.attribution(again, images, "torchcam", "GradCAM")
    with pytest.raises(UserError, match=r"captum\.LayerGradCam does not apply: it gives \[1, 1\]"):
        external.attribution(Asked(network.module, "fc", network.targets), images, "captum", "LayerGradCam")
    with pytest.raises(UserError, match="does not apply: it explains a class, not a function"):
        explain(network.module, images[:1], [lambda y: y[:, 0]], ["external_captum_deep_lift"], "features")
    monkeypatch.setitem(sys.modules, "torchcam", None)
    monkeypatch.delitem(sys.modules, "torchcam.methods")
    with pytest.raises(UserError, match=r"torchcam cannot be imported .*: pip install torchcam, or"):
        external.attribution(network, images, "torchcam", "GradCAM")


@pytest.mark.parametrize("name", ["mobilenet_v2", "vgg11"])
def test_deep_lifts_sum_is_the_scores_difference(name):
    torch.manual_seed(0)
    model, image = getattr(torchvision.models, name)(weights=None).eval(), torch.randn(1, 3, 48, 48)
    found = method("external_captum_deep_lift")(Asked(model, "features", torch.tensor([2])), image)
    with torch.no_grad():
        difference = (model(image) - model(torch.zeros_like(image)))[:, 2]
    torch.testing.assert_close(found.sum((1, 2)), difference, rtol=1e-3, atol=0)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, images):
        return self.fc(self.features(images).relu().mean((2, 3)))


REFUSED = {
    "squeezenet1_1": "does not apply: its attributions add up to",  # its max-pools overlap
    "resnet18": "does not apply: it needs each activation to be a module of its own",
    "functional": "does not apply: its attributions add up to",
}


@pytest.mark.parametrize("name", REFUSED)
def test_deep_lift_is_refused_where_captums_is_none(name):
    torch.manual_seed(0)
    model = Functional() if name == "functional" else getattr(torchvision.models, name)(weights=None)
    network = Asked(model.eval(), "features", torch.tensor([2]))
    with pytest.raises(UserError, match=rf"^captum\.DeepLift {REFUSED[name]}"):
        method("external_captum_deep_lift")(network, torch.randn(1, 3, 48, 48))


NETWORKS = {"resnet18": "layer4", "mobilenet_v2": "features", "squeezenet1_1": "features"}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("label", [label for label in LABELS if label != "external_captum_deep_lift"])
def test_networks_of_torchvision(label, name):
    """One case on random weights, as in a dry run."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    images = torch.randn(1, 3, 64, 64)
    looked = shared_look(Probe(model, [NETWORKS[name]]), images, [1], rehearsal=True)
    made = catalogue.method(label, catalogue.spec("method", label))
    found = made.function(**Supplies(images, ["0"], 0, looked).of(label, made.takes))
    assert found.isfinite().all()
