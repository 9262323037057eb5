"""LeGrad as torchcam has it, on torchvision's vision transformer: an independent implementation by hooks."""

import pytest
import torch
import torchcam.methods
import torchvision
from torch import nn

import gradcam_bench as gb

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(("label", "first"), [("le_grad", 0), ("le_grad_code", 1)])
def test_torchcams_le_grad(label, first):
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(64, 16, 3, 3, 24, 48, num_classes=5).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    images, targets = torch.randn(3, 3, 64, 64), [1, 0, 4]
    ours = gb.explain(model, images, targets, [label], "encoder.layers.encoder_layer_2.ln_1")[label]
    with torchcam.methods.LeGrad(model, list(model.encoder.layers)[first:]) as made:
        theirs = made(targets, model(images), normalized=False)[0].detach()
    assert theirs.amax() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6 * float(theirs.amax()))
