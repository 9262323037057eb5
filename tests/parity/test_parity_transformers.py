"""Equal to pytorch-grad-cam on transformers, where its user writes out how a layer's tokens lie on the image."""

import networks
import peers
import perturbing
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from test_parity_peers import GRAD_CAM, TOLERANCE

from gradcam_bench.methods import contrast, principal
from gradcam_bench.models.zoo import torchvision_network

pytestmark = pytest.mark.parity

RESHAPE = {
    "vit_b_32": lambda tokens: tokens[:, 1:].reshape(len(tokens), 7, 7, -1).permute(0, 3, 1, 2),
    "swin_t": lambda native: native.permute(0, 3, 1, 2),
    "swin_v2_t": lambda native: native.permute(0, 3, 1, 2),
}


def given(name):
    """(network, images, targets, supplies) with random weights."""
    made = torchvision_network(name, "none", num_classes=7)
    side = 224 if name == "vit_b_32" else 128
    halves = networks.Halves(made.module, made.layer, None, None, side)
    images, targets = halves.images(2), [1, 5]
    return halves, images, targets, perturbing.supplied(halves, images, targets)


def theirs(name, kind, halves, images, asked):
    """pytorch-grad-cam: after its ReLU, in [0, 1], [Q,H,W]."""
    layer = halves.model.get_submodule(halves.layer)
    arguments = {"model": halves.model, "target_layers": [layer], "reshape_transform": RESHAPE[name]}
    with getattr(pytorch_grad_cam, kind)(**arguments) as peer:
        return torch.from_numpy(peer(images, asked))


@pytest.mark.parametrize("name", RESHAPE)
def test_pytorch_grad_cam(name):
    halves, images, targets, made = given(name)
    for method, kind in GRAD_CAM.items():
        found = theirs(name, kind, halves, images, [ClassifierOutputTarget(target) for target in targets])
        ours = method(made.evidence).relu()
        assert ours.amax((1, 2)).max() > 0
        assert peers.apart(peers.scaled_at_input(ours, images.shape[-2:]), found) < TOLERANCE, kind


@pytest.mark.slow
@pytest.mark.parametrize("name", RESHAPE)
def test_pytorch_grad_cams_finer_cam(name):
    """(Its Shapley-CAM fails on tokens and on channels last.)"""
    halves, images, targets, made = given(name)
    ours = contrast.finer_cam(made.evidence, made.head, 1.0, 3, "softmax").relu()
    assert ours.amax((1, 2)).max() > 0
    layer = halves.model.get_submodule(halves.layer)
    for q, target in enumerate(targets):
        with pytorch_grad_cam.FinerCAM(halves.model, [layer], RESHAPE[name]) as peer:
            found = torch.from_numpy(peer(images[q : q + 1], target_idx=target))
        assert peers.apart(peers.scaled_at_input(ours[q : q + 1], images.shape[-2:]), found) < TOLERANCE


COMPONENTS = {  # their signs are the solver's there
    "EigenCAM": lambda evidence: principal.eigen_cam(evidence, center=True),
    "EigenGradCAM": principal.eigen_grad_cam,
    "KPCA_CAM": principal.kpca_cam,
    "SegEigenCAM": principal.seg_eigen_cam,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMPONENTS)
@pytest.mark.parametrize("name", RESHAPE)
def test_pytorch_grad_cams_components_up_to_their_sign(name, kind):
    halves, images, targets, made = given(name)
    found = theirs(name, kind, halves, images, [ClassifierOutputTarget(target) for target in targets])
    for one, other in zip(COMPONENTS[kind](made.evidence), found):
        signs = [peers.scaled_at_input(sign.relu()[None], images.shape[-2:])[0] for sign in (one, -one)]
        assert min(peers.apart(sign, other) for sign in signs) < 10 * TOLERANCE
