"""Kernels against loops written from their definitions, and against OpenCV and Pillow."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from gradcam_bench.resampling import KERNELS, resample

SHAPES = [((7, 7), (224, 224)), ((14, 9), (50, 61)), ((40, 31), (13, 17)), ((1, 6), (5, 4)), ((23, 12), (11, 40))]


def grid(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size)


def key(x: float) -> float:
    """Keys' kernel for a = -0.5, as imresize's documentation writes it."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def matlab_row(row: np.ndarray, count: int) -> np.ndarray:
    """imresize of one row: 1-based positions, a kernel as wide as it must be, the row mirrored at its ends."""
    scale, n = count / len(row), len(row)
    narrow = min(scale, 1.0)
    mirrored = [*range(n), *range(n - 1, -1, -1)]
    out = []
    for x in range(1, count + 1):
        u = x / scale + 0.5 * (1 - 1 / scale)
        left = int(np.floor(u - 4 / narrow / 2))
        taps = range(left, left + int(np.ceil(4 / narrow)) + 2)
        weights = [narrow * key(narrow * (u - k)) for k in taps]
        values = [row[mirrored[(k - 1) % (2 * n)]] for k in taps]
        out.append(np.dot(weights, values) / sum(weights))
    return np.array(out)


def skimage_point(image: np.ndarray, r: float, c: float) -> float:
    """scikit-image's bicubic interpolation at one point: four rows, then across them, borders going on for ever."""

    def cubic(x: float, f: list[float]) -> float:  # the Catmull-Rom polynomial through f[1] at 0 and f[2] at 1
        a, b, c, d = f
        return b + 0.5 * x * (c - a + x * (2 * a - 5 * b + 4 * c - d + x * (3 * (b - c) + d - a)))

    r0, c0 = int(np.floor(r)), int(np.floor(c))
    rows = np.clip(range(r0 - 1, r0 + 3), 0, image.shape[0] - 1)
    columns = np.clip(range(c0 - 1, c0 + 3), 0, image.shape[1] - 1)
    return cubic(r - r0, [cubic(c - c0, [image[y, x] for x in columns]) for y in rows])


@pytest.mark.parametrize(("small", "large"), SHAPES)
def test_matlabs_cubic(small: tuple[int, int], large: tuple[int, int]) -> None:
    image = grid(small)
    rows = np.stack([matlab_row(column, large[0]) for column in image.T], 1)
    expected = np.stack([matlab_row(row, large[1]) for row in rows])
    ours = resample(torch.from_numpy(image), large, "cubic_matlab").numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_matlabs_cubic_is_pillows_away_from_the_border() -> None:
    for large in ((230, 305), (40, 52), (96, 33)):
        image = grid((96, 96), 1).astype(np.float32)
        theirs = np.array(Image.fromarray(image).resize(large[::-1], Image.Resampling.BICUBIC))
        ours = resample(torch.from_numpy(image), large, "cubic_matlab").numpy()
        y, x = (int(np.ceil(2.5 * max(1, new / 96))) for new in large)
        np.testing.assert_allclose(ours[y:-y, x:-x], theirs[y:-y, x:-x], atol=1e-5)


@pytest.mark.parametrize(("small", "large"), SHAPES)
def test_scikit_images_cubic(small: tuple[int, int], large: tuple[int, int]) -> None:
    image = grid(small)
    y, x = ((np.arange(new) + 0.5) * old / new - 0.5 for old, new in zip(small, large))
    expected = np.array([[skimage_point(image, r, c) for c in x] for r in y]).clip(image.min(), image.max())
    ours = resample(torch.from_numpy(image), large, "cubic_skimage").numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-12)


@pytest.mark.parametrize(("small", "large"), [(small, large) for small, large in SHAPES if large > small])
def test_scikit_images_spline(small: tuple[int, int], large: tuple[int, int]) -> None:
    """SciPy's spline through the pixels, asked for at each new pixel's centre."""
    image = grid(small)
    y, x = ((np.arange(new) + 0.5) * old / new - 0.5 for old, new in zip(small, large))
    points = np.meshgrid(y, x, indexing="ij")
    expected = ndimage.map_coordinates(image, points, order=3, mode="nearest").clip(image.min(), image.max())
    ours = resample(torch.from_numpy(image), large, "spline").numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_scikit_images_cubic_stays_within_each_maps_range() -> None:
    maps = torch.tensor([[[0.0, 0.0, 1.0, 1.0]], [[0.0, 3.0, 3.0, 0.0]]])
    found = resample(maps, (1, 64), "cubic_skimage")
    assert found.amax((1, 2)).tolist() == [1, 3]
    assert found.amin() == 0
    assert resample(maps, (1, 64), "cubic_matlab").amax() > 3.01


def test_corners_stay_in_place() -> None:
    row = torch.tensor([[0.0, 3.0, -6.0]])
    assert resample(row, (1, 5), "bilinear_corners").tolist() == [[0, 1.5, 3, -1.5, -6]]
    image = grid((5, 8), 2)
    across = np.stack([np.interp(np.linspace(0, 7, 30), range(8), line) for line in image])
    expected = np.stack([np.interp(np.linspace(0, 4, 21), range(5), line) for line in across.T], 1)
    ours = resample(torch.from_numpy(image), (21, 30), "bilinear_corners").numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-12)


@pytest.mark.parity
def test_cubic_cv2_is_opencvs_whatever_the_sizes() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        small, large = ([int(n) for n in rng.integers(2, 90, 2)] for _ in range(2))
        image = rng.random(small, np.float32)
        theirs = cv2.resize(image, large[::-1], interpolation=cv2.INTER_CUBIC)
        ours = resample(torch.from_numpy(image), (large[0], large[1]), "cubic_cv2").numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=str((small, large)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_keeps_constants_types_and_leading_dimensions(kernel: str) -> None:
    for size in ((9, 31), (3, 4)):
        flat = resample(torch.full((2, 3, 7, 11), 0.375), size, kernel)
        assert flat.shape == (2, 3, *size)
        assert flat.dtype == torch.float32
        torch.testing.assert_close(flat, torch.full_like(flat, 0.375), rtol=0, atol=1e-6)
    maps = torch.from_numpy(grid((2, 5, 7), 4))
    together = resample(maps, (15, 21), kernel)
    for one, alone in zip(together, maps):
        torch.testing.assert_close(one, resample(alone, (15, 21), kernel), rtol=0, atol=1e-12)
    torch.testing.assert_close(together.flip(-1), resample(maps.flip(-1), (15, 21), kernel), rtol=0, atol=1e-12)
    assert torch.equal(resample(maps, (5, 7), kernel), maps)
