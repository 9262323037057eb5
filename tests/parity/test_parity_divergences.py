"""Where libraries differ from the papers, and the suite does not. Each test asserts both sides, so that it fails on the
day the library is mended (seen with grad-cam 1.5.7 and torchcam 0.5.0)."""

import networks
import numpy as np
import peers
import pytest
import slow_cams
import torch
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

from gradcam_bench.methods import gradient, principal

pytestmark = pytest.mark.parity

SAME, APART = 1e-4, 5e-3
SMALL_GRADIENTS = ["gap", "resnet18", "mobilenet_v2", "squeezenet1_1"]


def grad_cam_pp(evidence):
    """Paper in float64, ours: both after the ReLU."""
    return peers.paper(slow_cams.grad_cam_pp, evidence).relu(), gradient.grad_cam_pp(evidence).relu()


@pytest.mark.parametrize("name", SMALL_GRADIENTS)
def test_pytorch_grad_cams_grad_cam_pp_adds_1e_6_to_a_denominator_of_squared_gradients(name):
    halves, images, targets = peers.case(peers.NETWORKS[name])
    evidence = peers.look(halves, images, targets)
    size = images.shape[-2:]
    paper, ours = (peers.scaled_at_input(maps, size) for maps in grad_cam_pp(evidence))
    theirs = peers.grad_cam("GradCAMPlusPlus", halves, images, targets)
    assert peers.apart(ours, paper) < SAME
    assert peers.apart(theirs, paper) > APART

    def with_epsilon(a, g):
        weights = np.zeros(len(a))
        for k in range(len(a)):
            for i, j in slow_cams.places(a):
                if g[k, i, j] != 0:
                    below = 2 * g[k, i, j] ** 2 + a[k].sum() * g[k, i, j] ** 3 + 1e-6
                    weights[k] += g[k, i, j] ** 2 / below * max(g[k, i, j], 0)
        return slow_cams.weighted(a, weights)

    cause = peers.scaled_at_input(peers.paper(with_epsilon, evidence).relu(), size)
    assert peers.apart(theirs, cause) < SAME


@pytest.mark.parametrize("name", SMALL_GRADIENTS)
def test_torchcams_grad_cam_pp_never_divides(name):
    """It divides a copy, which is thrown away: the weights are sum g^2 relu(g)."""
    halves, images, targets = peers.case(peers.NETWORKS[name])
    evidence = peers.look(halves, images, targets)
    paper, ours = (peers.scaled(maps) for maps in grad_cam_pp(evidence))
    theirs = peers.scaled(peers.torchcam_maps("GradCAMpp", halves, images, targets))
    assert peers.apart(ours, paper) < SAME
    assert peers.apart(theirs, paper) > APART
    weights = (evidence.gradients**2 * evidence.gradients.relu()).sum((2, 3))
    cause = torch.einsum("qc,qchw->qhw", weights, evidence.features)
    assert peers.apart(theirs, peers.scaled(cause)) < SAME


def test_captum_leaves_out_eq_2s_relu_unless_asked():
    halves, images, targets = peers.case(networks.gap)
    evidence = peers.look(halves, images, targets)
    paper = peers.scaled(peers.paper(slow_cams.grad_cam, evidence).relu())
    ours = peers.scaled(gradient.grad_cam(evidence).relu())
    theirs = peers.scaled(peers.captum(halves, images, targets))
    assert peers.apart(ours, paper) < SAME
    assert peers.apart(theirs, paper) > APART


BEFORE_A_RELU_IN_PLACE = {"vgg11": lambda: networks.vgg11(18), "functional": networks.in_place}


@pytest.mark.parametrize("name", BEFORE_A_RELU_IN_PLACE)
def test_a_relu_in_place_after_the_layer_overwrites_what_two_libraries_captured(name):
    """They keep the layer's output and not a copy; by the time it is used, its negative values are gone (on a CPU)."""
    halves, images, targets = peers.case(BEFORE_A_RELU_IN_PLACE[name])
    size = images.shape[-2:]
    evidence = peers.look(halves, images, targets)
    activations = halves.stem(images.clone()).detach()
    gradients = networks.naive_gradients(halves, images, targets, range(len(images)))
    assert activations.min() < 0
    paper = peers.paper(slow_cams.grad_cam, networks.evidence_of(activations, gradients)).relu()
    ours = gradient.grad_cam(evidence).relu()
    assert peers.apart(peers.scaled(ours), peers.scaled(paper)) < SAME
    assert peers.apart(peers.scaled(peers.captum(halves, images, targets).relu()), peers.scaled(paper)) < SAME
    theirs = peers.torchcam_maps("GradCAM", halves, images, targets)
    assert peers.apart(peers.scaled(theirs), peers.scaled(paper)) > APART
    theirs = peers.grad_cam("GradCAM", halves, images, targets)
    assert peers.apart(theirs, peers.scaled_at_input(paper, size)) > APART


def test_an_epsilon_in_min_max_makes_weak_maps_weaker():
    """Scores 1e-14 times as large have the same Grad-CAM after min-max, whose largest value is 1."""
    halves, images, targets = peers.case(networks.gap)
    plain = peers.scaled(gradient.grad_cam(peers.look(halves, images, targets)).relu())
    with torch.no_grad():
        halves.model.fc.weight *= 1e-14
    evidence = peers.look(halves, images, targets)
    ours = peers.scaled(gradient.grad_cam(evidence).relu())
    assert peers.apart(ours, plain) < SAME
    assert ours.amax((1, 2)).tolist() == [1, 1, 1]
    assert peers.grad_cam("GradCAM", halves, images, targets).max() < 0.5
    assert peers.torchcam_maps("GradCAM", halves, images, targets, normalized=True).max() < 0.5


def test_pytorch_grad_cams_eigen_cam_has_no_rule_for_its_sign():
    """The channels' order and sign change no principal component; there the sign of its map follows the solver."""
    generator = torch.Generator().manual_seed(0)
    flips = 0
    for _ in range(20):
        a = torch.randn(1, 6, 4, 4, generator=generator).relu()
        order = torch.randperm(6, generator=generator)
        signs = torch.randint(0, 2, (1, 6, 1, 1), generator=generator) * 2.0 - 1
        changed = a[:, order] * signs
        ours = [principal.eigen_cam(networks.evidence_of(x, x), center=True)[0] for x in (a, changed)]
        theirs = [torch.from_numpy(get_2d_projection(x.numpy()))[0] for x in (a, changed)]
        assert peers.apart(*ours) < SAME
        assert min(peers.apart(theirs[0], sign * theirs[1]) for sign in (1, -1)) < SAME
        flips += peers.apart(*theirs) > SAME
    assert 0 < flips < 20


def test_pytorch_grad_cams_eigen_cam_centers_and_the_paper_does_not():
    halves, images, targets = peers.case(networks.gap)
    evidence = peers.look(halves, images, targets)
    size = images.shape[-2:]
    paper = peers.scaled_at_input(peers.paper(slow_cams.eigen_cam, evidence).relu(), size)
    ours = peers.scaled_at_input(principal.eigen_cam(evidence).relu(), size)
    theirs = peers.grad_cam("EigenCAM", halves, images, targets)
    assert peers.apart(ours, paper) < SAME
    assert peers.apart(theirs, paper) > APART


def test_libraries_leave_their_mark_on_the_model_and_the_probe_does_not():
    halves, images, targets = peers.case(networks.gap)
    halves.model.train()
    peers.look(halves, images, targets)
    assert all(module.training for module in halves.model.modules())
    assert all(parameter.grad is None for parameter in halves.model.parameters())
    peers.grad_cam("GradCAM", halves, images, targets)
    assert not halves.model.training
    assert any(parameter.grad is not None for parameter in halves.model.parameters())
