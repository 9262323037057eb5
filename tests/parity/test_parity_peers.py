"""Equal to pytorch-grad-cam, torchcam and captum wherever these follow the papers: to 1e-4 of maps in [0, 1]."""

import peers
import pytest
import slow_cams

from gradcam_bench.methods import activation, gradient, principal

pytestmark = pytest.mark.parity

GRAD_CAM = {
    gradient.grad_cam: "GradCAM",
    gradient.x_grad_cam: "XGradCAM",
    gradient.hires_cam: "HiResCAM",
    gradient.layer_cam: "LayerCAM",
    gradient.elementwise_grad_cam: "GradCAMElementWise",
}
TORCHCAM = {gradient.grad_cam: "GradCAM", gradient.x_grad_cam: "XGradCAM", gradient.layer_cam: "LayerCAM"}
TOLERANCE = 1e-4


@pytest.mark.parametrize("method", GRAD_CAM, ids=lambda m: m.__name__)
@pytest.mark.parametrize("name", peers.params(peers.CASES))
def test_pytorch_grad_cam(name, method):
    halves, images, targets = peers.CASES[name]()
    ours = method(peers.look(halves, images, targets)).relu()
    theirs = peers.grad_cam(GRAD_CAM[method], halves, images, targets)
    assert ours.amax((1, 2)).max() > 0
    assert peers.apart(peers.scaled_at_input(ours, images.shape[-2:]), theirs) < TOLERANCE


@pytest.mark.parametrize("name", peers.params(peers.CASES))
def test_pytorch_grad_cams_eigen_cam_is_our_centered_one_up_to_its_sign(name):
    halves, images, targets = peers.CASES[name]()
    ours = principal.eigen_cam(peers.look(halves, images, targets), center=True)
    theirs = peers.grad_cam("EigenCAM", halves, images, targets)
    for one, other in zip(ours, theirs):
        found = [peers.scaled_at_input(sign.relu()[None], images.shape[-2:])[0] for sign in (one, -one)]
        assert min(peers.apart(f, other) for f in found) < TOLERANCE
        assert peers.apart(*found) > 0.5  # the sign is no small matter


@pytest.mark.parametrize("method", TORCHCAM, ids=lambda m: m.__name__)
@pytest.mark.parametrize("name", peers.params(peers.CASES))
def test_torchcam(name, method):
    halves, images, targets = peers.CASES[name]()
    ours = method(peers.look(halves, images, targets)).relu()
    theirs = peers.torchcam_maps(TORCHCAM[method], halves, images, targets)
    assert peers.apart(peers.scaled(ours), peers.scaled(theirs)) < TOLERANCE


POOLED = ["gap", "gap, signed", "resnet18", "mobilenet_v2", "trained mobilenet_v2", "trained resnet18"]
POOLED += ["trained resnet50", "large resnet50", "large densenet121", "large efficientnet_b0"]


@pytest.mark.parametrize("name", peers.params(POOLED))
def test_torchcams_cam_is_ours_before_the_relu(name):
    halves, images, targets = peers.CASES[name]()
    ours = activation.cam(peers.look(halves, images, targets))
    theirs = peers.torchcam_maps("CAM", halves, images, targets)
    assert theirs.min() < 0 or name.startswith("trained")
    assert peers.apart(ours, theirs) < TOLERANCE * ours.abs().max()


@pytest.mark.parametrize("name", peers.params(peers.CASES))
def test_captum(name):
    halves, images, targets = peers.CASES[name]()
    ours = gradient.grad_cam(peers.look(halves, images, targets))
    theirs = peers.captum(halves, images, targets, relu_attributions=True)
    assert peers.apart(peers.scaled(ours.relu()), peers.scaled(theirs)) < TOLERANCE
    signed = peers.captum(halves, images, targets)
    assert peers.apart(ours, signed) < TOLERANCE * ours.abs().max()


@pytest.mark.parametrize("name", peers.params(peers.CASES))
def test_grad_cam_pp_is_the_papers_formula(name):
    """No library can be asked (test_parity_divergences.py shows why): the formula itself in float64."""
    halves, images, targets = peers.CASES[name]()
    evidence = peers.look(halves, images, targets)
    ours, theirs = gradient.grad_cam_pp(evidence).relu(), peers.paper(slow_cams.grad_cam_pp, evidence).relu()
    assert peers.apart(peers.scaled(ours), peers.scaled(theirs)) < TOLERANCE
