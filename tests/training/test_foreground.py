"""The few-shot baseline: regions as targets, a head that learns them, the method that shows it, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from torch.nn import functional as F

import gradcam_bench as gb
from gradcam_bench import cli
from gradcam_bench.datasets.voc import Voc
from gradcam_bench.drawing import CLASSES
from gradcam_bench.errors import UserError
from gradcam_bench.geometry import Frame, warp
from gradcam_bench.models.network import Preprocessing
from gradcam_bench.models.surgery import operate
from gradcam_bench.models.trained import trained_network
from gradcam_bench.overrides import configuration
from gradcam_bench.samples import Annotation, annotation
from gradcam_bench.training.augmentation import Augmentation
from gradcam_bench.training.data import Labels
from gradcam_bench.training.foreground import Regions, placed, region
from gradcam_bench.training.outcome import WEIGHTS
from gradcam_bench.training.preparation import fold
from gradcam_bench.training.recipe import recipe


def known(boxes: list[tuple[int, tuple[float, float, float, float], bool]]) -> Annotation:
    return annotation("a", (4, 6), boxes, [0])


def test_a_region_is_the_boxes_or_the_masks_by_hand() -> None:
    frame: Frame = warp((4, 6), (2, 3))  # half the size both ways
    two = known([(0, (0, 0, 2, 2), False), (1, (4, 2, 6, 4), False)])
    assert region(two, frame).tolist() == [[[1, 0, 0], [0, 0, 1]]]
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, :2, 2:4] = True
    masked = replace(two, masks=masks, mask_labels=torch.tensor([0, 1]))
    assert region(masked, frame).tolist() == [[[0, 1, 0], [0, 0, 0]]]
    with pytest.raises(UserError, match="a: neither a mask nor a box"):
        region(known([]), frame)


def test_places_are_compared_one_by_one() -> None:
    regions = torch.zeros(2, 1, 4, 4)
    regions[1, 0, :2, :3] = 1
    output = torch.arange(8.0).reshape(2, 1, 2, 2).expand(-1, 5, -1, -1)
    logits, targets = placed(output, regions)
    assert logits.flatten().tolist() == list(range(8))
    assert targets.flatten().tolist() == [0, 0, 0, 0, 1, 0.5, 0, 0]


def test_pictures_and_regions_are_flipped_together(scenes_root: Path) -> None:
    dataset = Voc(scenes_root, split="test", classes=CLASSES)
    labels = Labels(tuple(range(4)), torch.ones(4, len(CLASSES)))
    made = Regions(dataset, labels, Preprocessing("warp", 32, None), 0, Augmentation("flip", 32))
    plain = Regions(dataset, labels, Preprocessing("warp", 32, None), 0)
    seen = set()
    for epoch in range(6):
        for position in range(4):
            (pixels, truth), (own, whole) = made[epoch, position], plain[epoch, position]
            flipped = torch.equal(pixels, own.flip(2))
            assert torch.equal(pixels, own) or flipped
            assert torch.equal(truth, whole.flip(2) if flipped else whole)
            assert truth.shape == (1, 32, 32)
            assert torch.equal(made[epoch, position][0], pixels)
            seen.add(flipped)
    assert seen == {True, False}


@pytest.mark.parametrize(("name", "side"), [("vgg11", 14), ("resnet18", 14)])
def test_the_head_gives_every_class_the_same_map(name: str, side: int) -> None:
    made = operate("foreground", torchvision.models.get_model(name, weights=None), name, 7)
    with torch.inference_mode():
        output = made.module.eval()(torch.zeros(1, 3, 224, 224))
    assert output.shape == (1, 7, side, side)
    assert (output == output[:, :1]).all()
    assert made.layer == "foreground"
    with pytest.raises(UserError, match="not for alexnet"):
        operate("foreground", torchvision.models.alexnet(), "alexnet", 7)


def test_it_learns_where_things_are_and_the_method_shows_it(tmp_path: Path) -> None:
    words = ["recipe=few_shot_wsol", "dataset=scenes", "dataset.root.count=6", "model=scenes_gap", "device=cpu"]
    words += ["recipe.preprocessing.size=64", "epochs=2", "batch_size=4", "lr=0.01", "workers=0", "held_out=0.2"]
    assert cli.main(["train", *words, f"results={tmp_path}", "name=few"]) == 0
    network = trained_network(str(tmp_path / "train/few" / WEIGHTS))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = gb.explain(network.module, images, [3, 8], ["foreground", "grad_cam"], network.layer)
    with torch.no_grad():
        logits = network.module(images)[:, 0]
    torch.testing.assert_close(found["foreground"], logits.sigmoid())
    torch.testing.assert_close(F.relu(found["grad_cam"]), F.relu(logits) / logits[0].numel())


def test_the_method_is_refused_where_there_is_no_such_head() -> None:
    net = torchvision.models.resnet18(weights=None).eval()
    with pytest.raises(UserError, match="foreground does not apply: the target layer has 512 channels"):
        gb.explain(net, torch.zeros(1, 3, 64, 64), [0], ["foreground"], "layer4")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe.surgery=head"], "recipe.labels=foreground and recipe.surgery=foreground go together"),
        (["recipe.loss=cross_entropy"], r"takes recipe\.loss=bce"),
        (["recipe.augment=crop_flip"], r"recipe\.augment none or flip"),
    ],
)
def test_what_does_not_go_together_is_a_sentence(words: list[str], message: str) -> None:
    config = configuration(["recipe=few_shot_wsol", "dataset.root=DIR", *words], None, "train")
    with pytest.raises(UserError, match=message):
        recipe(fold(config)["recipe"])
