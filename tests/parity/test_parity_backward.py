"""Backward rules against captum and pytorch-grad-cam: equal where these follow the papers, else both sides.

Their rules reach activation modules alone, used once and not in place; the networks here are brought to that form.
"""

import warnings

import networks
import peers
import pytest
import torch
from captum import attr
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule
from pytorch_grad_cam import FullGrad, GuidedBackpropReLUModel
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn import functional as F

from gradcam_bench import relevance
from gradcam_bench.methods import backward
from gradcam_bench.pixels import Pixels
from gradcam_bench.probe import Probe

pytestmark = pytest.mark.parity

NETWORKS = {
    "gap": networks.gap,
    "vgg11": networks.vgg11,
    "resnet18": networks.resnet18,
    "mobilenet_v2": networks.mobilenet_v2,
    "squeezenet1_1": networks.squeezenet1_1,
}
TRAINED = ("squeezenet1_1", "mobilenet_v2")


class Once(nn.Module):
    """A residual block's network with an own module for each activation."""

    def __init__(self, blocks):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.act = nn.Conv2d(3, 6, 3, 2), nn.ReLU()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1), nn.BatchNorm2d(6)) for _ in range(blocks))
        self.acts, self.fc = nn.ModuleList(nn.ReLU() for _ in range(blocks)), nn.Linear(6, 4)

    def forward(self, x):
        x = self.act(self.stem(x))
        for block, act in zip(self.blocks, self.acts):
            x = act(x + block(x))
        return self.fc(x.mean((2, 3)))


def once():
    return networks.Halves(Once(3).double().eval(), "acts.2", None, None)


def case(name):
    """(model with nothing in place, images, targets, pixels of the network as it is)."""
    if name.startswith("trained"):
        halves, images, targets = peers.trained(name.removeprefix("trained "))
        images, targets = images[:2], targets[:2]
    else:
        halves = once() if name == "once" else NETWORKS[name]()
        halves.model.double()
        images, targets = halves.images(2).double(), [1, 3]
    pixels = Pixels(Probe(halves.model, [halves.layer]), images, targets)
    return networks._without_in_place(halves.model), images, torch.tensor(targets), pixels


def quietly(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make().detach()


def assert_same(found, expected, tolerance=1e-5):
    assert expected.abs().max() > 0
    assert float((found - expected).abs().max() / expected.abs().max()) < tolerance


SINGLE = ("gap", "vgg11", "squeezenet1_1", "once", "trained squeezenet1_1")  # networks that use no module twice
ALL = (*NETWORKS, "once", *(f"trained {name}" for name in TRAINED))


@pytest.mark.parametrize("name", ALL)
def test_captums_gradients(name):
    model, images, targets, pixels = case(name)
    theirs = quietly(lambda: attr.Saliency(model).attribute(images.clone().requires_grad_(), targets, abs=False))
    assert_same(pixels(), theirs)
    theirs = quietly(lambda: attr.InputXGradient(model).attribute(images.clone().requires_grad_(), targets))
    assert_same(images * pixels(), theirs)


@pytest.mark.parametrize("name", SINGLE)
def test_captums_deconvolution_and_guided_backprop(name):
    model, images, targets, pixels = case(name)
    theirs = quietly(lambda: attr.Deconvolution(model).attribute(images.clone(), targets))
    assert_same(pixels("deconv"), theirs)
    theirs = quietly(lambda: attr.GuidedBackprop(model).attribute(images.clone(), targets))
    assert_same(pixels("guided"), theirs)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "mobilenet_v2"])
def test_pytorch_grad_cams_guided_backprop(name):
    model, images, targets, _ = case(name)
    model.float()
    ours = Pixels(Probe(model, []), images.float(), targets)("guided")
    for image, target, found in zip(images.float(), targets, ours):
        theirs = GuidedBackpropReLUModel(model, device="cpu")(image[None], int(target))
        assert_same(found, torch.from_numpy(theirs).permute(2, 0, 1), 1e-3)


def test_two_libraries_leave_relu6_plain():
    """MobileNetV2 has no other activation: their guided backpropagation is the gradient there."""
    model, images, targets, pixels = case("mobilenet_v2")
    theirs = quietly(lambda: attr.GuidedBackprop(model).attribute(images.clone(), targets))
    assert_same(theirs, pixels())
    theirs = GuidedBackpropReLUModel(model.float(), device="cpu")(images[:1].float(), 1)
    assert_same(torch.from_numpy(theirs).permute(2, 0, 1).double(), pixels()[0], 1e-3)
    assert float((pixels("guided") - pixels()).abs().max() / pixels().abs().max()) > 0.1


def test_two_libraries_do_not_see_a_functional_relu():
    model = networks.in_place().model
    images = networks.in_place().images(2)
    pixels = Pixels(Probe(model, []), images, [1, 3])
    theirs = quietly(lambda: attr.GuidedBackprop(model).attribute(images.clone(), torch.tensor([1, 3])))
    assert_same(theirs, pixels())
    assert float((pixels("guided") - pixels()).abs().max() / pixels().abs().max()) > 0.1


@pytest.mark.parametrize("name", ["gap", "once"])
def test_captums_integrated_gradients(name):
    model, images, targets, pixels = case(name)
    found = backward.integrated_gradients(pixels, images, networks.black(images), 20, "zero")
    made = attr.IntegratedGradients(model)
    theirs = quietly(lambda: made.attribute(images, 0 * images, targets, n_steps=20, method="riemann_right"))
    assert_same(found, theirs.sum(1))


class Modules(nn.Module):
    """Everything a module, which is what captum's LRP can see."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.AvgPool2d(2)),
        )
        self.top = nn.Sequential(nn.Linear(54, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x):
        return self.top(self.layers(x).flatten(1))


def lrp_case():
    model = Modules().double().eval()
    images = torch.randn(2, 3, 18, 18, generator=torch.Generator().manual_seed(0)).double()
    return model, images, torch.tensor([1, 3]), Pixels(Probe(model, []), images, [1, 3])


def test_captums_lrp():
    """Its default rule, epsilon; but not at poolings, where it takes the epsilon rule too and ours differ by 1e-9."""
    model, images, targets, pixels = lrp_case()
    ours = pixels(relevance.composite("epsilon", epsilon=1e-12))
    theirs = quietly(lambda: attr.LRP(model).attribute(images.clone().requires_grad_(), targets))
    assert_same(ours, theirs, 1e-4)


def test_captums_alpha1_beta0():
    """It leaves biases out of the denominator, which Bach et al. 2015, eq. 60, has in it: equal without any."""
    model, images, targets, _ = lrp_case()

    def theirs():
        for layer in (*model.layers, *model.top):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.rule = Alpha1_Beta0_Rule()
        return quietly(lambda: attr.LRP(model).attribute(images.abs().requires_grad_(), targets))

    def ours():
        return Pixels(Probe(model, []), images.abs(), [1, 3])(relevance.composite("alpha1_beta0"))

    found = ours()
    assert float((found - theirs()).abs().max() / found.abs().max()) > 1e-3
    for layer in (*model.layers, *model.top):
        if getattr(layer, "bias", None) is not None:
            layer.bias.data.zero_()
    assert_same(ours(), theirs(), 1e-4)


def full_grad_as_pytorch_grad_cam(model, images, targets, per_channel):
    """Its sum of layers with the rescaling of a layer (Srinivas and Fleuret's code) or of each channel (its own)."""
    pixels = Pixels(Probe(model, []), images, targets)

    def rescale(values):
        values = values.abs()
        dims = (2, 3) if per_channel else (1, 2, 3)
        low, high = values.amin(dims, keepdim=True), values.amax(dims, keepdim=True)
        return (values - low) / (1e-7 + high - low)

    gradients, layers = pixels.biases(lambda values: values)
    total = rescale(images * gradients).sum(1)
    for layer in layers:
        if layer.ndim == 4:
            total = total + F.interpolate(rescale(layer), images.shape[2:], mode="bilinear").sum(1)
    low, high = total.amin((1, 2), keepdim=True), total.amax((1, 2), keepdim=True)
    return (total - low) / (high - low)


@pytest.mark.parametrize("name", ["gap", "resnet18"])
def test_pytorch_grad_cams_full_grad_rescales_channel_by_channel(name):
    """The authors' code does so layer by layer: a channel that says little is as loud as any other in theirs."""
    model, images, targets, _ = case(name)
    model, images = model.float(), images.float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = FullGrad(model, [])
        theirs = torch.from_numpy(made(images, [ClassifierOutputTarget(int(t)) for t in targets]))
    cause = full_grad_as_pytorch_grad_cam(model, images, targets, True)
    assert peers.apart(theirs, cause) < 0.02
    ours = peers.scaled(backward.full_grad(Pixels(Probe(model, []), images, targets), images))
    assert peers.apart(ours, theirs) > 0.05
