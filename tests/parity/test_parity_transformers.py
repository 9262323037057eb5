"""Equal to pytorch-grad-cam on transformers, where its user writes out how a layer's tokens lie on the image."""

import networks
import peers
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from test_parity_peers import GRAD_CAM, TOLERANCE

from gradcam_bench.models.zoo import torchvision_network

pytestmark = pytest.mark.parity

RESHAPE = {
    "vit_b_32": lambda tokens: tokens[:, 1:].reshape(len(tokens), 7, 7, -1).permute(0, 3, 1, 2),
    "swin_t": lambda native: native.permute(0, 3, 1, 2),
    "swin_v2_t": lambda native: native.permute(0, 3, 1, 2),
}


@pytest.mark.parametrize("name", RESHAPE)
def test_pytorch_grad_cam(name):
    made = torchvision_network(name, "none", num_classes=7)
    side = 224 if name == "vit_b_32" else 128
    halves = networks.Halves(made.module, made.layer, None, None, side)
    images, targets = halves.images(2), [1, 5]
    evidence = peers.look(halves, images, targets)
    layer = made.module.get_submodule(made.layer)
    for method, theirs in GRAD_CAM.items():
        arguments = {"model": made.module, "target_layers": [layer], "reshape_transform": RESHAPE[name]}
        with getattr(pytorch_grad_cam, theirs)(**arguments) as peer:
            found = torch.from_numpy(peer(images, [ClassifierOutputTarget(target) for target in targets]))
        ours = method(evidence).relu()
        assert ours.amax((1, 2)).max() > 0
        assert peers.apart(peers.scaled_at_input(ours, (side, side)), found) < TOLERANCE, theirs
