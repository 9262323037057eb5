"""Targets that are functions of the output: policies, segmentation, detection, similarity; against plain autograd."""

import networks
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator

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
    assert gradcam_bench.explain(policy, images(), [2, 3], layer="eyes")["grad_cam"].any()  # the first output's


def test_segmentation():
    """Class 5's logits summed over a mask."""
    torch.manual_seed(0)
    model = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    networks.settle_batch_norm(model)
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


def test_a_detectors_own_detections():
    """The detector as it is, whose output is a list of detections: the score of the best one near a place."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 7, 4, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    backbone.out_channels = 16
    model = torchvision.models.detection.FasterRCNN(
        backbone,
        min_size=SIZE,
        max_size=SIZE,
        rpn_anchor_generator=AnchorGenerator(((16, 32),), ((0.5, 1.0),)),
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0"], 3, 2),
        box_head=torchvision.models.detection.faster_rcnn.TwoMLPHead(16 * 9, 24),
        box_predictor=torchvision.models.detection.faster_rcnn.FastRCNNPredictor(24, 3),
        box_score_thresh=0.0,
        rpn_post_nms_top_n_test=10,
    ).eval()
    place = torch.tensor([[20.0, 10.0, 60.0, 50.0]])

    def score(output):
        assert all((found["labels"] == 1).any() for found in output)
        near = [torchvision.ops.box_iou(found["boxes"].detach(), place)[:, 0] for found in output]
        best = [(iou * (found["labels"] == 1)).argmax() for iou, found in zip(near, output)]
        return torch.stack([found["scores"][n] for found, n in zip(output, best)])

    assert_plain(model, "backbone", images(), score)


def is_last(module):
    return isinstance(module, nn.Hardswish)


def test_similarity():
    """The cosine between an image's embedding and that of another."""
    halves = networks.gap(classes=8)
    model, wanted = halves.model.float(), torch.randn(8, generator=torch.Generator().manual_seed(1))
    assert_plain(model, "features", images(), lambda embedded: F.cosine_similarity(embedded, wanted[None]))
