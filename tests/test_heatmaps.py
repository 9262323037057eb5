"""Rectify, normalise, resize, quantise: against OpenCV, NumPy, and maps worked out by hand."""

import math

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from gradcam_bench.errors import UserError
from gradcam_bench.heatmaps import degenerate, level, normalize, quantize, rectify, resize, resize_quantized, smooth

DRAWN = torch.tensor([[[-2.0, 0.0], [1.0, 4.0]]])
SIZES = [((7, 7), (224, 224)), ((14, 14), (224, 160)), ((5, 9), (33, 47)), ((3, 1), (10, 8)), ((28, 28), (31, 29))]


def test_rectify_by_hand() -> None:
    assert rectify(DRAWN, "relu").tolist() == [[[0, 0], [1, 4]]]
    assert rectify(DRAWN, "abs").tolist() == [[[2, 0], [1, 4]]]
    assert rectify(DRAWN, "none").tolist() == DRAWN.tolist()
    with pytest.raises(UserError, match="did you mean 'relu'"):
        rectify(DRAWN, "rellu")


def test_normalize_by_hand() -> None:
    assert normalize(DRAWN, "minmax").tolist() == [[[0, pytest.approx(1 / 3)], [0.5, 1]]]
    faint = torch.tensor([[[1e-8, 2e-8], [4e-8, 4e-8]]], dtype=torch.float64)  # 1e-8 is added to a span of 3e-8
    assert normalize(faint, "minmax_epsilon").flatten().tolist() == pytest.approx([0, 0.25, 0.75, 0.75])
    assert normalize(faint, "minmax").amax() == 1
    assert normalize(DRAWN, "max").tolist() == [[[-0.5, 0], [0.25, 1]]]
    assert normalize(DRAWN, "none").tolist() == DRAWN.tolist()
    with pytest.raises(UserError, match="did you mean 'minmax'"):
        normalize(DRAWN, "minmx")


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5])
def test_a_constant_map_becomes_zeros(value: float) -> None:
    assert normalize(torch.full((2, 3, 4), value), "minmax").count_nonzero() == 0


def test_a_map_without_a_positive_value_becomes_zeros_under_max() -> None:
    maps = torch.tensor([[[-2.0, -1.0]], [[0.0, 0.0]], [[0.0, 2.0]]])
    assert normalize(maps, "max").tolist() == [[[0, 0]], [[0, 0]], [[0, 1]]]


def test_each_map_is_normalised_alone_and_reaches_exactly_one() -> None:
    maps = torch.rand(50, 6, 7, generator=torch.Generator().manual_seed(0)) * torch.logspace(-20, 20, 50)[:, None, None]
    for how in ("minmax", "max"):
        together = normalize(maps, how)
        assert (together.amax((1, 2)) == 1).all()
        assert torch.equal(together, torch.stack([normalize(one, how) for one in maps]))
    assert (normalize(maps, "minmax").amin((1, 2)) == 0).all()


@pytest.mark.parity
@pytest.mark.parametrize(("small", "large"), SIZES)
@pytest.mark.parametrize(
    ("kernel", "flag"), [("cubic_cv2", cv2.INTER_CUBIC), ("bicubic", cv2.INTER_CUBIC), ("bilinear", cv2.INTER_LINEAR)]
)
def test_resize_equals_opencv(small: tuple[int, int], large: tuple[int, int], kernel: str, flag: int) -> None:
    grid = np.random.default_rng(0).standard_normal(small).astype(np.float32)
    ours = resize(torch.from_numpy(grid), large, kernel).numpy()
    assert ours.shape == large
    np.testing.assert_allclose(ours, cv2.resize(grid, large[::-1], interpolation=flag), atol=1e-5)


def test_cubic_overshoots_and_bilinear_does_not() -> None:
    step = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(4, 4)
    assert resize(step, (16, 16), "cubic_cv2").max() > 1.01
    assert resize(step, (16, 16), "bilinear").max() == 1


def test_nearest_takes_the_pixel_whose_square_holds_the_centre() -> None:
    row = torch.tensor([[0.0, 1.0, 2.0]])
    assert resize(row, (1, 5), "nearest").tolist() == [[0, 0, 1, 2, 2]]
    assert resize(row, (2, 6), "nearest").tolist() == [[0, 0, 1, 1, 2, 2]] * 2


def test_resize_keeps_leading_dimensions_and_refuses_unknown_kernels() -> None:
    maps = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize(maps, (8, 9))[1, 2], resize(maps[1, 2], (8, 9)))
    assert torch.equal(resize(maps, (4, 5), "cubic_cv2"), maps)
    with pytest.raises(UserError, match="did you mean 'bilinear'"):
        resize(maps, (8, 9), "bilinar")


def test_a_left_right_flip_before_is_a_flip_after() -> None:
    grid = torch.rand(7, 5, generator=torch.Generator().manual_seed(1))
    for kernel in ("bilinear", "cubic_cv2", "nearest"):
        torch.testing.assert_close(resize(grid.flip(1), (28, 30), kernel), resize(grid, (28, 30), kernel).flip(1))


def test_uint8_levels_are_numpys() -> None:
    values = torch.cat([torch.arange(256) / 255, torch.rand(5000, generator=torch.Generator().manual_seed(0))])
    assert quantize(values, "uint8").tolist() == (values.numpy() * 255).astype(np.uint8).tolist()
    assert quantize(torch.tensor([-0.2, 1.3]), "uint8").tolist() == [0, 255]  # cubic overshoot: no wrapping around


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_percent_level_is_above_t_exactly_where_the_value_is_above_t_percent(dtype: torch.dtype) -> None:
    whole = torch.tensor([t / 100 for t in range(101)], dtype=torch.float64).to(dtype)
    up, down = whole.nextafter(torch.tensor(2.0, dtype=dtype)), whole.nextafter(torch.tensor(-1.0, dtype=dtype))
    values = torch.cat([whole, up, down, torch.rand(2000, dtype=dtype, generator=torch.Generator().manual_seed(0))])
    levels = quantize(values, "percent")
    for t in range(100):
        assert torch.equal(levels > t, values > torch.tensor(t / 100, dtype=torch.float64).to(dtype))


def test_fifteen_percent_of_the_maximum_itself_is_not_above_the_threshold() -> None:
    values = torch.tensor([0.15, 0.1500001, 0.1499999, 1.0])
    assert (quantize(values, "percent") > level(0.15, "percent")).tolist() == [False, True, False, True]
    assert level(0.15, "percent") == 15
    assert [level(t / 100, "percent") for t in range(101)] == list(range(101))


def test_fixed_levels_on_the_grid_of_256() -> None:
    assert [level(t, "uint8") for t in (0.0, 0.15, 0.5, 1.0)] == [0, 38, 127, 255]
    with pytest.raises(UserError, match="no whole percent"):
        level(0.155, "percent")
    with pytest.raises(UserError, match="did you mean 'percent'"):
        quantize(torch.zeros(1, 1), "percents")


def test_smoothing_by_hand() -> None:
    """A deviation of one pixel, cut off at four: of a border's pixel a half and half its own weight stays."""
    w = [math.exp(-k * k / 2) for k in range(5)]
    total = w[0] + 2 * sum(w[1:])
    row = smooth(torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]]), 0.2)
    assert row[0].tolist() == pytest.approx([w[abs(k - 2)] / total for k in range(5)], rel=1e-6)
    edge = smooth(torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]]), 0.2)
    assert edge[0].tolist() == pytest.approx([sum(w[k:]) / total for k in range(5)], rel=1e-6)
    assert torch.allclose(smooth(torch.full((3, 4, 6), 2.5), 0.3), torch.full((3, 4, 6), 2.5))


@pytest.mark.parametrize("size", [(37, 52), (90, 41)])
def test_smoothing_is_scipys_over_the_longer_side(size: tuple[int, int]) -> None:
    maps = torch.rand(2, *size, generator=torch.Generator().manual_seed(1))
    sigma = 0.02 * max(size)
    radius = math.ceil(4 * sigma)
    expected = [ndimage.gaussian_filter(one.double().numpy(), sigma, mode="nearest", radius=radius) for one in maps]
    np.testing.assert_allclose(smooth(maps, 0.02).numpy(), np.stack(expected), atol=1e-6)


def test_why_maps_are_degenerate() -> None:
    rows = [[1.0, 2.0], [3.0, 3.0], [0.0, 0.0], [-2.0, -1.0], [-2.0, 0.0], [torch.nan, 2.0], [1.0, torch.inf]]
    maps = torch.tensor(rows)[:, None]
    reasons = [None, "constant", "constant", "nowhere positive", "nowhere positive", "not finite", "not finite"]
    assert degenerate(maps) == reasons
    assert degenerate(maps[:1]) == [None]
    assert degenerate(torch.tensor([[[1.0, -torch.inf]], [[-2.0, -3.0]]]), "relu") == ["not finite", "constant"]


def test_jpeg_levels_are_those_of_a_file() -> None:
    rng = np.random.default_rng(5)
    maps = torch.from_numpy(cv2.resize(rng.random((7, 9)), (61, 45), interpolation=cv2.INTER_LINEAR))[None].float()
    levels = quantize(torch.cat([maps, 1 - maps]), "jpeg")
    assert levels.dtype == torch.uint8
    for one, found in zip((maps[0], 1 - maps[0]), levels):
        rounded = np.rint(one.numpy() * 255).astype(np.uint8)
        _, file = cv2.imencode(".jpg", rounded, [cv2.IMWRITE_JPEG_QUALITY, 75])
        np.testing.assert_array_equal(found.numpy(), cv2.imdecode(file, cv2.IMREAD_GRAYSCALE))
        assert 0 < np.abs(found.numpy().astype(int) - rounded).max() < 20
    assert level(0.2, "jpeg") == 51


@pytest.mark.parity
@pytest.mark.parametrize("large", [(100, 130), (64, 64), (33, 80)])
def test_resizing_in_8_bits_is_opencvs_to_a_rounding(large: tuple[int, int]) -> None:
    maps = torch.from_numpy(cv2.resize(np.random.default_rng(6).random((9, 9)), (64, 64))).float()
    ours = (resize_quantized(maps, large, "cubic_cv2") * 255).round().numpy()
    theirs = cv2.resize((maps.numpy() * 255).astype(np.uint8), large[::-1], interpolation=cv2.INTER_CUBIC)
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 0.06  # OpenCV before 5 rounds the kernel's weights
    assert torch.equal(quantize(resize_quantized(maps, large, "cubic_cv2"), "uint8"), torch.from_numpy(ours).byte())
