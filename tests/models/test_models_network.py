"""Preprocessing is torchvision's own, bit for bit, and a frame says where each pixel went."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.models.network import Network, Preprocessing, fingerprint
from gradcam_bench.models.zoo import _preprocessing

RECIPES = [
    models.ResNet18_Weights.IMAGENET1K_V1,
    models.ResNet50_Weights.IMAGENET1K_V2,
    models.ViT_B_16_Weights.IMAGENET1K_V1,
    models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1,
    models.EfficientNet_B0_Weights.IMAGENET1K_V1,
    models.Inception_V3_Weights.IMAGENET1K_V1,
]
SIZES = [(300, 400), (401, 299), (256, 256), (224, 224), (57, 91), (333, 501), (640, 63)]
VIEWS = [
    View(),
    View(resize="warp", size=224),
    View(resize="warp", size=64, crop=51),
    View(resize="shorter", size=96),
    View(resize="shorter", size=97, crop=64, interpolation="bicubic"),
    View(resize="none"),
    View(resize="none", crop=50),
]


@pytest.mark.parity
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_preprocessing_equals_torchvisions_bit_for_bit(recipe: models.WeightsEnum) -> None:
    rng = np.random.default_rng(0)
    for size in SIZES:
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        pixels, frame = _preprocessing(recipe)(image, View())
        assert torch.equal(pixels, recipe.transforms()(image)), size
        assert pixels.shape == (3, *frame.input)


@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize("size", [(300, 400), (401, 299), (57, 91)])
def test_a_landmark_lands_where_the_frame_says(view: View, size: tuple[int, int]) -> None:
    recipe = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)
    height, width = size
    side = max(round(min(size) / 20), 3)
    for y, x in ((height // 2, width // 2), (height // 2 - 7, width // 2 + 5), (height // 3, 2 * width // 3)):
        pixels = np.zeros((*size, 3), np.uint8)
        pixels[y : y + side, x : x + side] = 255
        seen, frame = recipe(Image.fromarray(pixels), view)
        assert seen.shape == (3, *frame.input)
        assert frame == recipe.frame(size, view)
        x0, y0, x1, y1 = frame.to_input(torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32))[0].tolist()
        if min(x0, y0) <= 1 or x1 >= frame.input[1] - 1 or y1 >= frame.input[0] - 1:
            continue  # cut by the crop
        bright = seen[0].clamp(min=0)
        centre = [
            float((bright.sum(1 - axis) * (torch.arange(bright.shape[axis]) + 0.5)).sum() / bright.sum())
            for axis in (0, 1)
        ]
        assert centre == pytest.approx([(y0 + y1) / 2, (x0 + x1) / 2], abs=0.6)
        assert float(bright.sum()) == pytest.approx((x1 - x0) * (y1 - y0), rel=0.25)


def test_frames_by_hand() -> None:
    frame = Preprocessing().frame((300, 400), View())  # to 256 x 341, then 224 x 224 from (16, 58)
    assert (frame.input, frame.offset) == ((224, 224), (16, 58))  # round(58.5) is 58
    assert frame.scale == (256 / 300, 341 / 400)
    assert Preprocessing().frame((400, 300), View()).offset == (58, 16)
    assert Preprocessing().frame((300, 400), View(resize="warp", size=224)).scale == (224 / 300, 224 / 400)
    assert Preprocessing().frame((300, 400), View(resize="shorter", size=224)).input == (224, 298)


def test_resolving_a_view_changes_the_resize_alone() -> None:
    view = View(target="top5", score="exp", layer="x", seed=3)
    resolved = Preprocessing("shorter", 232, 224, "bicubic").resolve(view)
    assert resolved == view.but(resize="shorter", size=232, crop=224, interpolation="bicubic")
    assert Preprocessing().resolve(View(resize="warp", size=64)) == View(resize="warp", size=64)


@pytest.mark.parametrize(
    "view",
    [
        View(resize="shorter", size=40, crop=50),
        View(resize="warp", size=40, crop=50),
        View(resize="none", crop=50),
        View(resize="none", size=99, crop=50),
    ],
    ids=str,
)
def test_a_crop_that_would_be_padded_is_refused(view: View) -> None:
    with pytest.raises(UserError, match=r"view\.crop=50 is larger than the .* the crop would be padded"):
        Preprocessing()(Image.new("RGB", (60, 45)), view)


def test_probabilities_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0, float(np.log(2))]])
    network = Network("n", nn.Identity(), Preprocessing(), "x", "")
    torch.testing.assert_close(network.probabilities(logits), torch.tensor([[0.25, 0.25, 0.5]]))
    multi = Network("n", nn.Identity(), Preprocessing(), "x", "", activation="sigmoid")
    torch.testing.assert_close(multi.probabilities(logits), torch.tensor([[0.5, 0.5, 2 / 3]]))


def test_a_fingerprint_follows_the_name_the_parameters_and_the_buffers() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    prints = [fingerprint("a", module), fingerprint("a", module.eval()), fingerprint("b", module)]
    with torch.no_grad():
        module[0].weight[0, 0] += 1e-4
    prints.append(fingerprint("a", module))
    module[1].running_mean += 1
    prints.append(fingerprint("a", module))
    prints.append(fingerprint("a", module.bfloat16()))
    assert prints[0] == prints[1]
    assert len(set(prints)) == 5


@pytest.mark.parametrize("size", [(300, 400), (401, 299), (57, 91)])
def test_bilinear_on_the_tensor_is_opencvs_on_floats(size: tuple[int, int]) -> None:
    """Not anti-aliased: each pixel is mixed from four, however much the picture shrinks."""
    recipe = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    for view in (View(resize="shorter", size=96), View(resize="warp", size=70, crop=51)):
        seen, frame = recipe(Image.fromarray(picture), view.but(interpolation="bilinear_tensor"))
        assert frame == recipe.frame(size, view)
        full = (70, 70) if view.crop else frame.input
        expected = cv2.resize(picture.astype(np.float32) / 255, full[::-1], interpolation=cv2.INTER_LINEAR)
        (height, width), (y, x) = frame.input, (int(start) for start in frame.offset)
        np.testing.assert_allclose(seen.permute(1, 2, 0), expected[y : y + height, x : x + width], atol=2e-5)
        smooth, _ = recipe(Image.fromarray(picture), view)
        assert (smooth - seen).abs().max() > 0.1 or min(size) < 96


def test_the_shorter_side_is_met_and_the_other_truncated() -> None:
    view = View(resize="shorter", size=224, interpolation="bilinear_tensor")
    assert Preprocessing().frame((333, 500), view).input == (224, 336)  # 336.3
    assert Preprocessing().frame((500, 375), view).input == (298, 224)  # 298.7
