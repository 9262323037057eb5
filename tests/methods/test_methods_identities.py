"""What must hold between methods on networks where the theory says so, and where CAM applies and where it does not."""

import networks
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from gradcam_bench.errors import UserError
from gradcam_bench.methods import activation, gradient, principal
from gradcam_bench.probe import Probe

GAP = {
    "gap": networks.gap,
    "gap, signed": lambda: networks.gap(signed=True),
    "resnet18": networks.resnet18,
    "mobilenet_v2": networks.mobilenet_v2,
    "densenet121": networks.densenet121,
}
NOT_GAP = {
    "vgg11": networks.vgg11,
    "squeezenet1_1": networks.squeezenet1_1,
    "pooled before a non-linearity": networks.in_place,
    "an earlier layer": lambda: networks.resnet18("layer3"),
}


def look(halves, count=2, targets=(1, 2, 0), image_index=(1, 0, 1)):
    return Probe(halves.model, [halves.layer]).look(halves.images(count), targets, image_index)[halves.layer]


def close(found, expected, relative=1e-5):
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=relative * float(expected.abs().max()))


@pytest.mark.parametrize("name", GAP)
def test_on_a_gap_network_four_methods_are_cam_over_the_grids_area(name):
    """G_kij = w_k / hw everywhere, so Grad-CAM = HiResCAM = XGrad-CAM = CAM / hw, signs included."""
    evidence = look(GAP[name]())
    height, width = evidence.activations.shape[2:]
    cam = activation.cam(evidence)
    for method in (gradient.grad_cam, gradient.hires_cam):
        close(method(evidence) * height * width, cam)
    totals = evidence.features.sum((2, 3)).abs()
    assert totals[totals > 0].min() > 1e-6  # XGrad-CAM divides by them
    close(gradient.x_grad_cam(evidence) * height * width, cam, 1e-4)


@pytest.mark.parametrize("name", GAP)
def test_on_a_gap_network_hires_cam_sums_to_the_logit_without_its_bias(name):
    halves = GAP[name]()
    evidence = look(halves)
    bias = next(m.bias for m in halves.model.modules() if isinstance(m, nn.Linear)).detach()
    logits = evidence.logits[evidence.image_index, evidence.targets]
    close(gradient.hires_cam(evidence).sum((1, 2)), logits - bias[evidence.targets])


def test_layer_cam_is_hires_cam_where_no_gradient_is_negative():
    halves = networks.gap(signed=True)
    with torch.no_grad():
        halves.model.fc.weight.abs_()
    evidence = look(halves)
    assert (evidence.gradients >= 0).all()
    assert (evidence.activations < 0).any()
    assert torch.equal(gradient.layer_cam(evidence), gradient.hires_cam(evidence))


@pytest.mark.parametrize("name", NOT_GAP)
def test_cam_is_refused_where_it_does_not_apply(name):
    evidence = look(NOT_GAP[name]())
    with pytest.raises(UserError, match="cam does not apply"):
        activation.cam(evidence)
    assert gradient.grad_cam(evidence).abs().max() > 0


class Other(networks.Gap):
    """A Gap network that pools, or ends, in another way."""

    def __init__(self, kind):
        super().__init__(signed=True)
        self.kind = kind
        self.more = nn.Linear(4, 4) if kind == "two linear maps" else nn.Identity()

    def forward(self, images):
        grid = self.features(self.stem(images))
        if self.kind == "maximum":
            return self.fc(grid.amax((2, 3)))
        if self.kind == "relu between":
            return self.fc(grid.relu().mean((2, 3)))
        return self.more(self.fc(grid.mean((2, 3))))


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("bias", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["maximum", "relu between", "two linear maps", "gap"])
def test_cam_judges_by_numbers_of_any_size(kind, bias, scale):
    """Networks with random weights have scores of 1e-9 or 1e9: neither may pass or fail for that."""
    torch.manual_seed(0)
    model = Other(kind).eval()
    with torch.no_grad():
        model.fc.weight *= scale
        model.fc.bias.fill_(bias * scale)
    evidence = Probe(model, ["features"]).look(torch.randn(3, 3, 32, 32), [0, 1, 2])["features"]
    if kind == "gap":
        assert activation.cam(evidence).shape == (3, 8, 8)
    else:
        with pytest.raises(UserError, match="cam does not apply"):
            activation.cam(evidence)


def test_cam_is_refused_before_the_last_relu_of_an_untrained_network():
    """Same number of channels as the right layer, and scores of 1e-9: only their relative size tells."""
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v2(num_classes=7).eval()
    images = torch.randn(2, 3, 64, 64)
    right = Probe(model, ["features"]).look(images, [0, 1])["features"]
    assert right.logits.abs().max() < 1e-3
    assert activation.cam(right).shape == (2, 2, 2)
    with pytest.raises(UserError, match="cam does not apply"):
        activation.cam(Probe(model, ["features.18.1"]).look(images, [0, 1])["features.18.1"])


SCALES = {  # method: (power of the activations' scale, power of the gradients' scale)
    gradient.grad_cam: (1, 1),
    gradient.x_grad_cam: (1, 1),
    gradient.hires_cam: (1, 1),
    gradient.layer_cam: (1, 1),
    gradient.elementwise_grad_cam: (1, 1),
    principal.eigen_cam: (1, 0),
}


@pytest.mark.parametrize("method", SCALES, ids=lambda m: m.__name__)
def test_scale_of_activations_and_gradients(method):
    evidence = networks.some_evidence(3)
    plain = method(evidence)
    of_activations, of_gradients = SCALES[method]
    a, g = evidence.activations, evidence.gradients
    close(method(networks.evidence_of(4 * a, g)), 4**of_activations * plain)
    close(method(networks.evidence_of(a, 4 * g)), 4**of_gradients * plain)


def test_grad_cam_pp_depends_on_activations_times_gradients_alone():
    """alpha depends on A G; so scaling A up and G down by one factor changes nothing."""
    evidence = networks.some_evidence(3)
    scaled = networks.evidence_of(4 * evidence.activations, evidence.gradients / 4)
    close(gradient.grad_cam_pp(scaled), gradient.grad_cam_pp(evidence))


def test_layer_cam_code_takes_its_gradient_after_the_pool():
    """Autograd at the output of the max-pool that follows, resized with corners aligned, as the authors' code does."""
    halves = networks.vgg11(19)
    images = halves.images(2)
    activations = halves.stem(images).detach().requires_grad_()
    pooled = F.max_pool2d(activations, 2)
    pooled.retain_grad()
    rest = nn.Sequential(*list(halves.head)[1:])  # the head without its pool
    targets = [3, 5]
    rest(pooled)[[0, 1], targets].sum().backward()
    grads = F.interpolate(pooled.grad, size=activations.shape[-2:], mode="bilinear", align_corners=True)
    expected = (activations * grads).relu().sum(1)
    evidence = Probe(halves.model, [halves.layer]).look(images, targets)[halves.layer]
    torch.testing.assert_close(gradient.layer_cam_code(evidence), expected.detach(), rtol=1e-4, atol=1e-6)
    assert (expected - gradient.layer_cam(evidence)).abs().max() > 0.01 * expected.max()


def test_layer_cam_code_is_layer_cam_where_the_gradient_is_the_same_everywhere():
    evidence = networks.some_evidence(0, height=4, width=6)
    flat = networks.evidence_of(evidence.activations.abs(), evidence.gradients[:, :, :1, :1].expand(-1, -1, 4, 6))
    torch.testing.assert_close(gradient.layer_cam_code(flat), 4 * gradient.layer_cam(flat))


def test_layer_cam_code_refuses_a_grid_without_a_window():
    with pytest.raises(UserError, match="no 2x2 max-pool fits"):
        gradient.layer_cam_code(networks.some_evidence(0, height=1, width=3))
