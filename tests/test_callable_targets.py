"""Targets that are functions of the output: policies, segmentation, detection, similarity; against plain autograd."""

import networks
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import gradcam_bench

SIZE = 64


def images(count=2):
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def plainly(model, layer, one, score):
    """(A, dS/dA), each [C,h,w], of one image [1,3,H,W] by a hook and plain autograd."""
    seen = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _i, output: seen.append(output))
    value = score(model(one.clone().requires_grad_()))
    handle.remove()
    return seen[-1][0].detach(), torch.autograd.grad(value.sum(), seen[-1])[0][0]


def assert_plain(model, layer, pictures, score):
    """HiResCAM and Grad-CAM of each image, by the library and by hand."""
    found = gradcam_bench.explain(model, pictures, [score] * len(pictures), ["hires_cam", "grad_cam"], layer)
    for q in range(len(pictures)):
        a, g = plainly(model, layer, pictures[q : q + 1], score)
        for label, weights in (("hires_cam", g), ("grad_cam", g.mean((1, 2), keepdim=True))):
            expected = (weights * a).sum(0)
            assert expected.any()
            close = 1e-4 * float(expected.abs().max())
            torch.testing.assert_close(found[label][q], expected, rtol=0, atol=close)


class Policy(nn.Module):
    """Frames to the logits of four actions and a value."""

    def __init__(self):
        super().__init__()
        self.eyes = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.Conv2d(8, 6, 3, 2), nn.ReLU())
        self.body, self.action, self.value = nn.Linear(6, 16), nn.Linear(16, 4), nn.Linear(16, 1)

    def forward(self, frames):
        thought = self.body(self.eyes(frames).mean((2, 3))).tanh()
        return self.action(thought), self.value(thought)


def test_a_policy():
    torch.manual_seed(0)
    policy = Policy().eval()
    assert_plain(policy, "eyes", images(), lambda output: output[0][:, 2])
    assert_plain(policy, "eyes", images(), lambda output: output[1][:, 0])


def test_segmentation():
    """Class 5's logits summed over a mask."""
    torch.manual_seed(0)
    model = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    networks._settle_batch_norm(model)
    mask = torch.zeros(SIZE, SIZE)
    mask[10:40, 20:50] = 1
    assert_plain(model, "classifier.0", images(), lambda output: (output["out"][:, 5] * mask).sum((1, 2)))


class BoxScores(nn.Module):
    """A detector as a function of a batch [B,3,H,W]: the scores [B,K] of one box, which its own forward, that takes a
    list and returns detections after suppression, does not give."""

    def __init__(self, detector, box):
        super().__init__()
        self.detector, self.box = detector, box

    def forward(self, batch):
        features = self.detector.backbone(batch)
        boxes, sizes = [self.box.to(batch)[None]] * len(batch), [tuple(batch.shape[2:])] * len(batch)
        heads = self.detector.roi_heads
        return heads.box_predictor(heads.box_head(heads.box_roi_pool(features, boxes, sizes)))[0]


def test_detection():
    torch.manual_seed(0)
    build = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn
    model = BoxScores(build(weights=None, weights_backbone=None).eval(), torch.tensor([8.0, 8, 40, 56])).eval()
    layer = "detector.backbone.body"
    layer = next(name for name, m in reversed(list(model.named_modules())) if name.startswith(layer) and is_last(m))
    assert_plain(model, layer, images(), lambda scores: scores.softmax(1)[:, 17])


def is_last(module):
    return isinstance(module, nn.Hardswish)


def test_similarity():
    """The cosine between an image's embedding and that of another."""
    halves = networks.gap(classes=8)
    model, wanted = halves.model.float(), torch.randn(8, generator=torch.Generator().manual_seed(1))
    assert_plain(model, "features", images(), lambda embedded: F.cosine_similarity(embedded, wanted[None]))
