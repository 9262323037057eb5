"""Makers of targets, each against what it says written out; detectors and segmentation by torchvision's structure."""

from __future__ import annotations

import pytest
import torch
import torchvision

import gradcam_bench as gb
from gradcam_bench import targets
from gradcam_bench.models.eyes import SEEN
from gradcam_bench.models.language_nets import talkers


def images(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_a_phrase_is_the_sum_of_its_words() -> None:
    captioner, _ = talkers(None)
    seen = torch.rand(3, SEEN, generator=torch.Generator().manual_seed(1))
    whole = targets.phrase(captioner, "a red ring")(seen)
    words = [targets.phrase(captioner, ("a", "red", "ring"), t, t + 1)(seen) for t in range(3)]
    torch.testing.assert_close(whole, torch.stack(words).sum(0))
    assert (torch.stack(words) < 0).all()
    with pytest.raises(gb.UserError, match="words 2 to 5 of a sentence of 3 words"):
        targets.phrase(captioner, "a red ring", 2, 5)


def test_answers_are_probabilities() -> None:
    _, answerer = talkers(None)
    seen = torch.rand(2, SEEN, generator=torch.Generator().manual_seed(1))
    from gradcam_bench.language import ANSWERS

    every = [targets.answer(answerer, "what colour is the ring?", name)(seen).exp() for name in ANSWERS]
    torch.testing.assert_close(torch.stack(every).sum(0), torch.ones(2))


def test_segmentation() -> None:
    model = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[10:40, 20:50] = True
    target = targets.segmentation(5, mask)
    with torch.no_grad():
        output = model(images())
    torch.testing.assert_close(target(output), output["out"][:, 5, 10:40, 20:50].sum((1, 2)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(targets.segmentation(3)(output["out"]), output["out"][:, 3].sum((1, 2)))
    found = gb.explain(model, images(), [target] * 2, ["grad_cam"], "classifier.0")["grad_cam"]
    assert found.shape == (2, 4, 4)
    with pytest.raises(gb.UserError, match="class 21 of a segmentation"):
        targets.segmentation(21)(output)
    with pytest.raises(gb.UserError, match=r"a mask \[3, 3\] for logits of \[64, 64\]"):
        targets.segmentation(1, torch.ones(3, 3))(output)


def test_detection_takes_the_nearest_of_the_label() -> None:
    output = [
        {
            "boxes": torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40], [21, 21, 40, 40]]),
            "labels": torch.tensor([1, 1, 2]),
            "scores": torch.tensor([0.9, 0.5, 0.7]),
        }
    ]
    assert targets.detection([20, 20, 41, 41], 1)(output).tolist() == [0.5]
    assert targets.detection(torch.tensor([20.0, 20, 41, 41]), 2)(output).tolist() == pytest.approx([0.7])
    with pytest.raises(gb.UserError, match="image 0 of the batch has no detection of label 3"):
        targets.detection([0, 0, 1, 1], 3)(output)


def test_a_detector_explains_its_detection() -> None:
    torch.manual_seed(0)
    build = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn
    model = build(weights=None, weights_backbone=None, box_score_thresh=0.0, rpn_post_nms_top_n_test=20).eval()
    with torch.no_grad():
        label = int(model(images(1))[0]["labels"][0])
    target = targets.detection([8, 8, 40, 56], label)
    found = gb.explain(model, images(1), [target], ["grad_cam"], "backbone.body.16")["grad_cam"]
    assert found.ndim == 3
    assert found.abs().sum() > 0


def test_embedding() -> None:
    embedded = torch.tensor([[3.0, 4.0], [-4.0, 3.0]])
    assert targets.embedding(torch.tensor([3.0, 4.0]))(embedded).tolist() == pytest.approx([1.0, 0.0])
    with pytest.raises(gb.UserError, match=r"must be \[D\], got \[1, 2\]"):
        targets.embedding(torch.ones(1, 2))
