"""The presets of seeds by another route: Pillow, PyTorch's resizing, a confusion matrix, from the authors' words."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from test_presets import CLASSES, grad_cam, ours, picture, tensor
from torch.nn import functional as F

SIZE = (270, 350)
SEEDS = range(3)


def truth(seed):
    """Labels [H,W] of two classes and background, and pixels to ignore: blurred noise in three steps."""
    rng = np.random.default_rng(seed + 50)
    field = ndimage.gaussian_filter(rng.standard_normal(SIZE), 25)
    labels = np.digitize(field, np.quantile(field, [0.5, 0.8]))  # 0, 1, 2
    return np.array([0, CLASSES[0] + 1, CLASSES[1] + 1])[labels], rng.random(SIZE) < 0.05


def given(seed):
    labels, ignore = truth(seed)
    masks = torch.from_numpy(np.stack([labels == label + 1 for label in CLASSES]))
    return {"masks": masks, "mask_labels": torch.tensor(CLASSES), "ignore": torch.from_numpy(ignore)}


def counts(labels, seed):
    """{class: [6]}: what each case's curve must hold, from whole label maps."""
    true, ignore = truth(seed)
    found = {}
    for label in (0, *(c + 1 for c in CLASSES)):
        mine, there = (labels == label) & ~ignore, (true == label) & ~ignore
        found[label] = [(mine & there).sum(), (mine & ~there).sum(), (there & ~mine).sum()]
    first, second = CLASSES
    return {first: [*found[first + 1], *found[0]], second: [*found[second + 1], 0, 0, 0]}


def agree(name, seed, expected):
    """Whether a preset's counts are these, but for a pixel in 20000 that a last bit may move."""
    for label, row in ours(name, seed, metric="seed_miou", **given(seed)).items():
        assert row["problem"] is None
        assert np.abs(row["curve"] - expected[label]).max() <= 5, label
        assert row["curve"][0] > 0


def scaled(image, scale):
    width, height = (int(np.round(side * scale)) for side in image.size)
    return tensor(image if scale == 1 else image.resize((width, height), Image.Resampling.BICUBIC))


def over_background(maps, level):
    """Classes divided by maximum + 1e-5, the background stacked below, argmax, keys."""
    maps = [one / (one.max() + 1e-5) for one in maps]
    stacked = np.stack([np.full(SIZE, level, np.float32), *maps])
    return np.array([0, *(c + 1 for c in CLASSES)])[stacked.argmax(0)]


def resized(grid, size):
    return F.interpolate(torch.from_numpy(grid.astype(np.float32))[None, None], size, mode="bilinear")[0, 0].numpy()


@pytest.mark.parametrize("seed", SEEDS)
def test_irn_2019(seed):
    maps = []
    for target in CLASSES:
        total = np.zeros(SIZE, np.float32)
        for scale in (1.0, 0.5, 1.5, 2.0):
            pixels = scaled(picture(seed), scale)
            pair = np.maximum(grad_cam(pixels, target), 0) + np.maximum(grad_cam(pixels.flip(-1), target), 0)[:, ::-1]
            total += resized(pair, (272, 352))[: SIZE[0], : SIZE[1]]
        maps.append(total)
    agree("irn_2019", seed, counts(over_background(maps, 0.15), seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_psa_2018(seed):
    maps = []
    for target in CLASSES:
        total = np.zeros(SIZE, np.float32)
        for scale in (1.0, 0.5, 1.5, 2.0):
            pixels = scaled(picture(seed), scale)
            total += resized(np.maximum(grad_cam(pixels, target), 0), SIZE)
            total += resized(np.maximum(grad_cam(pixels.flip(-1), target), 0), SIZE)[:, ::-1]
        maps.append(total)
    agree("psa_2018", seed, counts(over_background(maps, 0.2), seed))


def test_the_two_ways_to_merge_scales_differ():
    rows = [ours(name, 0, metric="seed_miou", **given(0)) for name in ("irn_2019", "psa_2018")]
    assert any((rows[0][label]["curve"] != rows[1][label]["curve"]).any() for label in CLASSES)


@pytest.mark.parametrize("seed", SEEDS)
def test_sec_2016(seed):
    pixels = tensor(picture(seed).resize((321, 321), Image.Resampling.BILINEAR))
    large = [resized(grad_cam(pixels, target), SIZE) for target in CLASSES]
    small = [resized(one / one.max(), (41, 41)) for one in large]
    calm = ndimage.median_filter(resized(np.maximum(large[0] / large[0].max(), large[1] / large[1].max()), (41, 41)), 3)
    labels = np.full((41, 41), 255)
    labels[calm < np.sort(calm.ravel())[168]] = 0
    holds = [one > 0.2 * one.max() for one in small]
    for target, mine in sorted(zip(CLASSES, holds), key=lambda pair: -pair[1].sum()):
        labels[mine] = target + 1
    rows, columns = ((np.arange(side) + 0.5) * 41 // side for side in SIZE)
    agree("sec_2016", seed, counts(labels[rows.astype(int)][:, columns.astype(int)], seed))
