"""A case may ask anything differentiable of the output: an action, a class over a mask, a box, an embedding."""

import networks
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator

import gradcam_bench as gb
from gradcam_bench.methods import gradient

METHODS = ("grad_cam", "hires_cam", "layer_cam", "eigen_cam", "saliency")


def expected(model: nn.Module, layer: str, images: Tensor, score) -> dict[str, Tensor]:
    """The CAMs from a plain hook and autograd; score: of the output, one number an image."""
    seen = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    leaf = images.clone().requires_grad_()
    total = score(model(leaf)).sum()
    handle.remove()
    at_layer, at_input = torch.autograd.grad(total, [seen[0], leaf])
    evidence = networks.evidence_of(seen[0].detach(), at_layer)
    found = {name: getattr(gradient, name)(evidence) for name in ("grad_cam", "hires_cam", "layer_cam")}
    return found | {"saliency": at_input.abs().amax(1)}


def check(model: nn.Module, layer: str, images: Tensor, score) -> dict[str, Tensor]:
    """Our maps, after they were found to be those."""
    maps = gb.explain(model, images, [score] * len(images), METHODS, layer)
    for name, one in expected(model, layer, images, score).items():
        assert one.any()
        torch.testing.assert_close(maps[name], one, rtol=1e-4, atol=1e-4 * float(one.abs().amax()), msg=name)
    return maps


class Policy(nn.Module):
    """A player's network: what it would do, as logits of actions, and how well it stands, as in actor-critic."""

    def __init__(self) -> None:
        super().__init__()
        self.eyes = nn.Sequential(nn.Conv2d(3, 8, 8, 4), nn.ReLU(), nn.Conv2d(8, 8, 4, 2), nn.ReLU())
        self.actions, self.value = nn.LazyLinear(6), nn.LazyLinear(1)

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        seen = self.eyes(frames).flatten(1)
        return {"actions": self.actions(seen), "value": self.value(seen)}


def test_an_action_of_a_policy_network() -> None:
    torch.manual_seed(0)
    player, frames = Policy(), torch.rand(2, 3, 64, 64)
    player(frames)
    left = check(player.eval(), "eyes", frames, lambda output: output["actions"][:, 2])
    assert left["grad_cam"].shape == (2, 6, 6)
    value = check(player, "eyes", frames, lambda output: output["value"][:, 0])
    assert not torch.allclose(left["grad_cam"], value["grad_cam"])
    with pytest.raises(gb.UserError, match="target class 2: the model's output holds no scores"):
        gb.explain(player, frames, [2, 2], layer="eyes")


def test_a_class_summed_over_a_mask() -> None:
    """Seg-Grad-CAM's question (Vinogradova et al. 2020): the logits of a class over the pixels of a region."""
    torch.manual_seed(0)
    model = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=False
    ).eval()
    networks._settle_batch_norm(model)
    images, mask = torch.rand(2, 3, 64, 96), torch.zeros(64, 96)
    mask[10:30, 40:80] = 1.0
    layer = "backbone.12"
    inside = check(model, layer, images, lambda output: (output["out"][:, 3] * mask).sum((1, 2)))
    everywhere = check(model, layer, images, lambda output: output["out"][:, 3].sum((1, 2)))
    scale = everywhere["hires_cam"].abs().amax()
    assert (inside["hires_cam"] - everywhere["hires_cam"]).abs().amax() > 0.1 * scale


def detector() -> FasterRCNN:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 7, 4, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    backbone.out_channels = 16
    return FasterRCNN(
        backbone,
        min_size=64,
        max_size=96,
        rpn_anchor_generator=AnchorGenerator(((16, 32),), ((0.5, 1.0),)),
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0"], 3, 2),
        box_head=torchvision.models.detection.faster_rcnn.TwoMLPHead(16 * 9, 24),
        box_predictor=torchvision.models.detection.faster_rcnn.FastRCNNPredictor(24, 3),
        box_score_thresh=0.0,
        rpn_pre_nms_top_n_test=30,
        rpn_post_nms_top_n_test=10,
        box_detections_per_img=8,
    ).eval()


def test_the_score_of_a_detectors_box() -> None:
    """The best detection of class 1 near a box, in each image; the detector takes a list, a batch is one."""
    model, images = detector(), torch.rand(2, 3, 64, 96)
    wanted = torch.tensor([[20.0, 10.0, 70.0, 50.0]])

    def score(output: list[dict[str, Tensor]]) -> Tensor:
        near = [torchvision.ops.box_iou(found["boxes"].detach(), wanted)[:, 0] for found in output]
        best = [(iou * (found["labels"] == 1)).argmax() for iou, found in zip(near, output, strict=True)]
        return torch.stack([found["scores"][n] for found, n in zip(output, best, strict=True)])

    with torch.no_grad():
        assert all((found["labels"] == 1).any() for found in model(list(images)))
    maps = check(model, "backbone", images, score)
    assert maps["grad_cam"].shape == (2, 8, 12)


def test_how_near_two_embeddings_are() -> None:
    """Which parts of an image make it like another: the cosine of its embedding and that one's."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None)
    model.fc = nn.Identity()
    images, other = torch.rand(3, 3, 64, 64), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        reference = model.eval()(other)
    near = check(model, "layer3", images, lambda output: F.cosine_similarity(output, reference))
    assert near["grad_cam"].shape == (3, 4, 4)
    itself = gb.explain(model, other, [lambda output: F.cosine_similarity(output, reference)], ["grad_cam"], "layer3")
    assert itself["grad_cam"].abs().amax() < 1e-4 * near["grad_cam"].abs().amax()  # nothing makes it nearer
