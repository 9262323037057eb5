"""Pieces of a picture: one at a time by hand, and what they must come to on networks with symmetries."""

from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from gradcam_bench import augment as pieces
from gradcam_bench import catalogue
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.explain import explain_batch
from gradcam_bench.geometry import warp
from gradcam_bench.models.network import Network, Preprocessing
from gradcam_bench.probe import Probe
from gradcam_bench.resampling import resample
from gradcam_bench.samples import Batch, Sample, annotation, collate

KINDS = ("ten_crop", "ten_crop_cam")
SIDE, CROP = 40, 32


def chosen(*labels):
    return [catalogue.method(label, catalogue.spec("method", label)) for label in labels]


def batch(count, classes, size=(SIDE, SIDE), seed=0):
    images = torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))
    samples = [
        Sample(b, image, warp(size, size), annotation(f"image{b}", size, classes=asked), str(b))
        for b, (image, asked) in enumerate(zip(images, classes))
    ]
    return Batch(images, tuple(samples))


def explain(module, layer, given, labels, augment="ten_crop", activation="softmax", **view):
    network = Network("tiny", module.float(), Preprocessing("none", None, None), layer, "0", activation)
    look = View(resize="none", crop=CROP, augment=augment, **view)
    return explain_batch(given, network, Probe(module, [layer], look.score), chosen(*labels), look, 8)


@pytest.mark.parity
@pytest.mark.parametrize("size", [(40, 40), (41, 50), (57, 33)])
def test_crops_are_torchvisions(size):
    image = torch.randn(3, *size, generator=torch.Generator().manual_seed(1))
    expected = torch.stack(transforms.TenCrop(CROP)(image))
    assert torch.equal(pieces.pieces(image, pieces.RECIPES["ten_crop"], CROP)[0], expected)


@pytest.mark.parametrize("size", [(40, 40), (41, 50)])
@pytest.mark.parametrize("kind", KINDS)
def test_merging_one_crop_at_a_time(kind, size):
    """Each map is pasted with Pillow where its crop was cut, mirrored ones into a picture that is mirrored after."""
    recipe = pieces.RECIPES[kind]
    maps = torch.randn(2, 10, 4, 5, generator=torch.Generator().manual_seed(2))
    found = pieces.merge([maps], size, CROP, "relu", recipe)
    down, right = size[0] - CROP, size[1] - CROP
    corners = [(0, 0), (0, right), (down, 0), (down, right), (round(down / 2), round(right / 2))]
    for case in range(2):
        total = np.zeros(size)
        for n in range(10):
            canvas = Image.new("F", size[::-1])
            if kind == "ten_crop_cam":
                resized = resample(maps[case, n], (CROP, CROP), "cubic_matlab").abs()
            else:
                resized = resample(maps[case, n].clamp(min=0), (CROP, CROP), "bilinear_corners")
            y, x = corners[n % 5]
            canvas.paste(Image.fromarray(resized.numpy()), (x, y))
            total += np.array(canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if n >= 5 else canvas)
        np.testing.assert_allclose(found[case].numpy(), total, atol=1e-5)


def test_averages_by_hand():
    logits = torch.tensor([[0.0, 2.0, -1.0], [3.0, -3.0, 0.5]])
    plain, mixed = (pieces.RECIPES[kind] for kind in KINDS)
    torch.testing.assert_close(pieces.mean_logits(logits, "softmax", plain)[0].float(), logits.mean(0))
    for activation, function in (("softmax", lambda x: x.softmax(1)), ("sigmoid", torch.sigmoid)):
        row = pieces.mean_logits(logits, activation, mixed).float()
        torch.testing.assert_close(function(row)[0], function(logits).mean(0))
    far = pieces.mean_logits(torch.tensor([[0.0, 2000.0], [0.0, 2000.0]]), "softmax", mixed)
    assert far.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_grad_cam_by_ten_backward_passes(kind):
    """A forward and a backward pass for every crop alone; its map pasted by hand."""
    halves = networks.gap(signed=True)
    halves.model.float()
    given, recipe = batch(2, [(1, 3), (2,)]), pieces.RECIPES[kind]
    cases, maps, _ = explain(halves.model, "features", given, ["grad_cam", "hires_cam"], kind)
    assert [case.id for case in cases] == ["image0#1", "image0#3", "image1#2"]
    for q, (b, target) in enumerate([(0, 1), (0, 3), (1, 2)]):
        one, other, rows = [], [], []
        for piece in transforms.TenCrop(CROP)(given.images[b]):
            activations = halves.stem(piece[None]).detach().requires_grad_()
            logits = halves.head(activations)
            grads = torch.autograd.grad(logits[0, target], activations)[0]
            one.append((grads.mean((2, 3), keepdim=True) * activations).sum(1)[0].detach())
            other.append((grads * activations).sum(1)[0].detach())
            rows.append(logits[0].detach())
        for label, each in (("grad_cam", one), ("hires_cam", other)):
            expected = pieces.merge([torch.stack(each)[None]], (SIDE, SIDE), CROP, "relu", recipe)[0]
            torch.testing.assert_close(maps[label][q], expected, rtol=1e-4, atol=1e-6)
        said = torch.stack(rows)
        mean = said.mean(0).softmax(0) if kind == "ten_crop" else said.softmax(1).mean(0)
        assert cases[q].probability == pytest.approx(float(mean[target]), rel=1e-4)
        assert cases[q].rank == int((mean > mean[target]).sum())
        assert cases[q].predicted == int(mean.argmax())


class Pointwise(nn.Module):
    """A 1x1 convolution, global average pooling, a linear map: what a place says depends on its own pixel alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.features, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 5)

    def forward(self, images):
        return self.fc(self.features(images).relu().mean((2, 3)))


def test_on_a_pointwise_network_the_sum_is_one_map_times_how_often_a_pixel_was_seen():
    given = batch(1, [(2, 4)])
    module = Pointwise().eval()
    _, maps, _ = explain(module, "features", given, ["grad_cam"])
    # at the ReLU's input the gradient is the weight where the unit is on: the mean over a crop is the weight a crop
    counts = torch.zeros(SIDE, SIDE)
    expected = torch.zeros(2, SIDE, SIDE)
    for turned in (False, True):
        picture = given.images[0].flip(-1) if turned else given.images[0]
        for y, x in pieces.places((SIDE, SIDE), CROP):
            features = module.features(picture[None, :, y : y + CROP, x : x + CROP])[0].detach()  # [4,h,w]
            on = (features > 0).float().mean((1, 2)) / CROP**2  # [4]
            for row, target in enumerate((2, 4)):
                values = ((module.fc.weight[target].detach() * on)[:, None, None] * features).sum(0).clamp(min=0)
                part = torch.zeros(SIDE, SIDE)
                part[y : y + CROP, x : x + CROP] = values
                expected[row] += part.flip(-1) if turned else part
            counts[y : y + CROP, x : x + CROP] += 1
    torch.testing.assert_close(maps["grad_cam"], expected, rtol=1e-4, atol=1e-7)
    assert counts.min() == 2  # one corner's crop, plain and mirrored
    assert counts[SIDE // 2, SIDE // 2] == 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_mirrored_picture_has_a_mirrored_map_and_the_same_answer(kind):
    halves = networks.gap()
    given = batch(1, [(0, 2)])
    turned = Batch(given.images.flip(-1), tuple(
        Sample(s.index, s.pixels.flip(-1), s.frame, s.annotation, s.digest) for s in given.samples
    ))  # fmt: skip
    cases, maps, _ = explain(halves.model, "features", given, ["grad_cam", "layer_cam"], kind)
    mirrored, others, _ = explain(halves.model, "features", turned, ["grad_cam", "layer_cam"], kind)
    for label, found in maps.items():
        torch.testing.assert_close(others[label].flip(-1), found, rtol=1e-4, atol=1e-6)
    for one, other in zip(cases, mirrored):
        assert other.probability == pytest.approx(one.probability, rel=1e-5)


def test_no_bit_depends_on_the_batch():
    halves = networks.gap()
    classes = [(1, 3), (2,), (0, 1, 2)]
    given = batch(3, classes)
    labels = ["grad_cam", "cam", "eigen_cam", "layer_cam", "center", "noise"]
    cases, maps, _ = explain(halves.model, "features", given, labels)
    alone = [explain(halves.model, "features", Batch(s.pixels[None], (s,)), labels) for s in given.samples]
    assert [case.logit for case in cases] == [case.logit for mine, *_ in alone for case in mine]
    for label in labels:
        assert torch.equal(maps[label], torch.cat([found[label] for _, found, _ in alone])), label
        assert maps[label].shape == (6, SIDE, SIDE)


def test_controls_see_the_whole_picture():
    halves = networks.gap()
    given = batch(2, [(1,), (0, 3)])
    _, maps, _ = explain(halves.model, "features", given, ["center", "noise", "cam"])
    network = Network("tiny", halves.model, Preprocessing("none", None, None), "features", "0")
    _, plain, _ = explain_batch(
        given, network, Probe(halves.model, ["features"]), chosen("center", "noise"), networks.view()
    )
    for label in ("center", "noise"):
        assert torch.equal(maps[label], plain[label])
    _, blind, _ = explain_batch(given, None, None, chosen("noise"), View(resize="none", crop=CROP, augment="ten_crop"))
    assert torch.equal(blind["noise"], maps["noise"])


@pytest.mark.parametrize("kind", KINDS)
def test_classes_chosen_by_the_model_are_those_of_all_crops_together(kind):
    halves = networks.gap()
    given = batch(3, [(0,)] * 3)
    cases, maps, _ = explain(halves.model, "features", given, ["grad_cam"], kind, target="top5")
    assert [case.rank for case in cases] == [0, 1, 2, 3] * 3
    assert len(maps["grad_cam"]) == 12
    cases, *_ = explain(halves.model, "features", given, ["grad_cam"], kind, target="predicted")
    assert [(case.rank, case.target) for case in cases] == [(0, case.predicted) for case in cases]


def test_an_image_without_a_class_has_no_case():
    cases, maps, _ = explain(networks.gap().model, "features", batch(2, [(), (1,)]), ["grad_cam", "center"])
    assert [case.id for case in cases] == ["image1#1"]
    assert len(maps["grad_cam"]) == len(maps["center"]) == 1


def test_preprocessing_leaves_the_picture_whole():
    recipe = Preprocessing()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    view = View(resize="warp", size=40, crop=32, augment="ten_crop")
    pixels, frame = recipe(picture, view)
    whole, full = recipe(picture, View(resize="warp", size=40))
    assert torch.equal(pixels, whole)
    assert frame == full == recipe.frame((50, 70), view)
    one, _ = recipe(picture, View(resize="warp", size=40, crop=32))
    assert torch.equal(pieces.pieces(pixels, pieces.RECIPES["ten_crop"], 32)[0][4], one)
    made, _ = collate([Sample(0, pixels, frame, annotation("a", (50, 70)), "")])
    assert made[0].images.shape == (1, 3, 40, 40)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({"resize": "warp", "size": 256}, "view.augment=ten_crop needs view.crop, in pixels"),
        ({"resize": "none"}, "view.augment=ten_crop needs view.crop"),
    ],
)
def test_ten_crops_need_a_crop(view, message):
    with pytest.raises(UserError, match=message):
        View(augment="ten_crop", **view)


def test_weights_without_a_crop_have_no_ten():
    assert Preprocessing().resolve(View(augment="ten_crop")).crop == 224
    with pytest.raises(UserError, match=r"view\.augment=ten_crop needs view\.crop"):
        Preprocessing("warp", 224, None).resolve(View(augment="ten_crop"))
    with pytest.raises(UserError, match="the crop would be padded"):
        Preprocessing().frame((50, 50), View(resize="none", crop=60, augment="ten_crop"))


@pytest.mark.parametrize("kind", ["flip", "multi_scale"])
@pytest.mark.parametrize("size", [(40, 40), (41, 50)])
def test_pairs_at_each_scale_one_by_one(kind, size):
    """A look at every piece alone; maps rectified, resized, mirrored back and added up."""
    halves = networks.gap(signed=True)
    halves.model.float()
    given = batch(2, [(1, 3), (2,)], size)
    cases, maps, _ = explain(halves.model, "features", given, ["grad_cam"], kind)
    scales = [1] if kind == "flip" else [1, 0.5, 1.5, 2]
    for q, (b, target) in enumerate([(0, 1), (0, 3), (1, 2)]):
        total, said = torch.zeros(size), []
        for scale in scales:
            scaled = tuple(round(side * scale) for side in size)
            image = given.images[b : b + 1]
            image = image if scale == 1 else nn.functional.interpolate(image, scaled, mode="bicubic", antialias=True)
            for mirrored in (False, True):
                activations = halves.stem(image.flip(3) if mirrored else image).detach().requires_grad_()
                logits = halves.head(activations)
                said.append(logits[0].detach())
                grads = torch.autograd.grad(logits[0, target], activations)[0]
                found = (grads.mean((2, 3), keepdim=True) * activations).sum(1).detach().relu()
                found = nn.functional.interpolate(found[None], size, mode="bilinear")[0, 0]
                total += found.flip(1) if mirrored else found
        torch.testing.assert_close(maps["grad_cam"][q], total, rtol=1e-4, atol=1e-6)
        assert cases[q].logit == pytest.approx(float(torch.stack(said).mean(0)[target]), rel=1e-4)


@pytest.mark.parametrize("kind", ["flip", "multi_scale"])
def test_a_mirrored_picture_has_the_mirrored_sum(kind):
    halves = networks.gap()
    given = batch(1, [(1,)])
    turned = Batch(given.images.flip(3), (replace(given.samples[0], pixels=given.samples[0].pixels.flip(2)),))
    plain, found = (
        explain(halves.model, "features", one, ["layer_cam"], kind)[1]["layer_cam"] for one in (given, turned)
    )
    torch.testing.assert_close(found, plain.flip(2))


def test_predicted_classes_are_those_of_all_scales_together():
    halves = networks.gap()
    given = batch(3, [(0,)] * 3)
    cases, *_ = explain(halves.model, "features", given, ["grad_cam"], "multi_scale", target="predicted")
    assert [case.rank for case in cases] == [0, 0, 0]
    assert [case.target for case in cases] == [case.predicted for case in cases]


def test_costs_count_every_piece():
    halves = networks.gap()
    for kind, count in (("flip", 2), ("multi_scale", 8), ("ten_crop", 10)):
        _, _, costs = explain(halves.model, "features", batch(1, [(1, 2)]), ["grad_cam", "center"], kind)
        assert (costs["grad_cam"].forwards, costs["grad_cam"].backwards) == (count, 2 * count)
        assert costs["center"].forwards == 0
        assert pieces.count(kind) == count


@pytest.mark.parametrize("size", [(40, 40), (41, 50)])
def test_scales_of_seeds_are_pillows(size):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    pixels, _ = Preprocessing()(picture, View(resize="none"))
    colours = Preprocessing().mean, Preprocessing().std
    found = pieces.pieces(pixels, pieces.RECIPES["multi_scale_irn"], 0, colours)
    for group, scale in zip(found, (1.0, 0.5, 1.5, 2.0)):
        wide, high = (int(np.round(side * scale)) for side in picture.size)
        expected, _ = Preprocessing()(picture.resize((wide, high), Image.Resampling.BICUBIC), View(resize="none"))
        torch.testing.assert_close(group[0], expected)
        torch.testing.assert_close(group[1], expected.flip(-1))


def test_a_grid_of_sixteen_pixels_a_cell_stays_where_it_is():
    """A picture of 40 pixels has cells that end at 48: the first two lie in it whole, the third by half."""
    recipe = pieces.RECIPES["multi_scale_irn"]
    maps = torch.zeros(1, 2, 3, 3)
    maps[0, 0, 1, 1] = 1.0  # the middle cell, pixels 16 to 31
    maps[0, 1, 1, 0] = 1.0  # of the mirrored picture the first: the last of the grid
    found = pieces.merge([maps], (40, 40), 0, "relu", recipe)[0]
    whole = resample(torch.tensor([[0.0, 0, 0], [0, 1, 1], [0, 0, 0]]), (48, 48), "bilinear")
    assert torch.equal(found, whole[:40, :40])
    assert found.shape == (40, 40)
    assert float(pieces.merge([maps], (40, 40), 0, "relu", pieces.RECIPES["multi_scale_psa"])[0, 20, 0]) == 0
