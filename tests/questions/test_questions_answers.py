"""Fills, orders and correlations against other programs."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from scipy.stats import pearsonr
from torchvision.transforms.functional import gaussian_blur

from gradcam_bench.questions.answers import fill
from gradcam_bench.questions.masks import correlation, top
from gradcam_bench.questions.removal import area, places, ranks
from gradcam_bench.witness import Witness


def witness(image: torch.Tensor) -> Witness:
    black, white = torch.tensor([-2.0, -1.0, -3.0]).reshape(3, 1, 1), torch.tensor([2.0, 1.0, 3.0]).reshape(3, 1, 1)
    return Witness(image, 2, lambda x: x, lambda x: x, lambda images, units: [], ["a#0"], 0, black, white)


def test_fills() -> None:
    image = torch.randn(3, 20, 24, generator=torch.Generator().manual_seed(0))
    asked = witness(image)
    assert (fill(asked, "mean") == 0).all()
    assert fill(asked, "black")[:, 3, 5].tolist() == [-2, -1, -3]
    assert fill(asked, "white")[:, 3, 5].tolist() == [2, 1, 3]
    torch.testing.assert_close(fill(asked, "own_mean")[1, 7, 9], image[1].mean())
    assert all(fill(asked, how).shape == image.shape for how in ("mean", "black", "white", "own_mean", "blur"))


def test_the_blur_is_that_of_rise() -> None:
    image = torch.randn(3, 20, 24, generator=torch.Generator().manual_seed(1))
    point = np.zeros((11, 11))
    point[5, 5] = 1
    kernel = gaussian_filter(point, 5)  # SciPy folds back what lies beyond the 11 pixels
    expected = np.stack([convolve2d(channel, kernel, mode="same") for channel in image.numpy()])
    np.testing.assert_allclose(fill(witness(image), "blur").numpy(), expected, atol=1e-6)


def test_the_mirrored_blur_is_torchvisions() -> None:
    image = torch.randn(3, 20, 24, generator=torch.Generator().manual_seed(2))
    expected = gaussian_blur(image, [11, 11], [5.0, 5.0])
    torch.testing.assert_close(fill(witness(image), "blur_mirror"), expected, rtol=0, atol=1e-5)


def test_orders_are_stable() -> None:
    heatmap = torch.tensor([[0.5, 1.0, 0.5], [0.0, 1.0, 0.5]])
    assert places(heatmap).tolist() == [1, 4, 0, 2, 5, 3]
    assert ranks(heatmap).tolist() == [[2, 0, 3], [5, 1, 4]]
    assert top(heatmap, 0.5).tolist() == [[0.5, 1.0, 0.0], [0.0, 1.0, 0.0]]


def test_areas() -> None:
    curve = torch.tensor([[1.0, 0.5, 0.25], [0.0, 0.0, 1.0]])
    assert area(curve, "trapezoid").tolist() == [0.5625, 0.25]
    assert area(curve, "mean").tolist() == [0.375, 0.5]


def test_correlation_is_pearsons() -> None:
    a, b = torch.randn(2, 6, 30, generator=torch.Generator().manual_seed(3))
    expected = [pearsonr(x, y).statistic for x, y in zip(a.numpy(), b.numpy())]
    assert correlation(a, b).tolist() == pytest.approx(expected, abs=1e-6)
    assert correlation(a, 3 * a - 1).tolist() == pytest.approx([1] * 6)
