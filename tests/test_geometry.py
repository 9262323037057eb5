"""Boxes, frames and pixels against torchvision, pycocotools, loops over pixels, and cases worked out by hand."""

import math

import numpy as np
import pytest
import torch
import torchvision
from pycocotools import mask as coco

from gradcam_bench.geometry import Frame, area, box_iou, rasterize, warp, within


def random_boxes(rng, count, size=40, whole=False):
    corners = np.sort(rng.uniform(0, size, (count, 2, 2)), axis=1).reshape(count, 4)
    return torch.tensor(corners.round() if whole else corners, dtype=torch.float32)


def test_iou_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 4, 1], [5, 5, 5, 9]])
    b = torch.tensor([[1.0, 0, 3, 2], [0, 0, 2, 2], [2, 0, 4, 2], [5, 5, 5, 9]])
    expected = torch.tensor(
        [
            [2 / 6, 1.0, 0.0, 0.0],  # touching sides share nothing
            [2 / 6, 2 / 6, 2 / 6, 0.0],
            [0.0, 0.0, 0.0, 0.0],  # a box without area equals nothing, not even itself
        ]
    )
    torch.testing.assert_close(box_iou(a, b), expected)


def test_a_pixel_box_has_area_one_and_an_inverted_box_none() -> None:
    boxes = torch.tensor([[3.0, 4, 4, 5], [4, 4, 3, 5], [4, 5, 3, 4]])
    assert area(boxes).tolist() == [1, 0, 0]
    assert box_iou(boxes[:1], boxes[:1]).item() == 1
    assert box_iou(boxes[1:], boxes).count_nonzero() == 0


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(5))
def test_iou_equals_torchvision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng, 30), random_boxes(rng, 20)
    torch.testing.assert_close(box_iou(a, b), torchvision.ops.box_iou(a, b))
    torch.testing.assert_close(box_iou(a, b), box_iou(b, a).T)


def test_iou_of_no_boxes_has_no_entries() -> None:
    nothing = torch.zeros(0, 4)
    assert box_iou(nothing, torch.ones(3, 4)).shape == (0, 3)
    assert box_iou(torch.ones(3, 4), nothing).shape == (3, 0)


def test_rasterize_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [1.5, 0.5, 3.4, 1.6]])  # the second covers the centres 1.5..2.5, 0.5..1.5
    assert rasterize(boxes, (3, 4)).int().tolist() == [[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_rasterize_marks_the_pixels_whose_centre_a_box_covers(seed: int) -> None:
    boxes = random_boxes(np.random.default_rng(seed), 3, size=12) - 2  # some lie partly outside
    expected = [
        [any(x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1 for x0, y0, x1, y1 in boxes.tolist()) for x in range(11)]
        for y in range(7)
    ]
    assert rasterize(boxes, (7, 11)).tolist() == expected


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_rasterize_of_whole_boxes_equals_pycocotools() -> None:
    boxes = random_boxes(np.random.default_rng(0), 8, size=20, whole=True)
    x0, y0, x1, y1 = boxes.T
    runs = coco.frPyObjects(torch.stack([x0, y0, x1 - x0, y1 - y0], 1).double().numpy(), 20, 20)
    assert np.array_equal(rasterize(boxes, (20, 20)).numpy(), coco.decode(coco.merge(runs)).astype(bool))


def test_rasterize_of_boxes_outside_or_inverted_marks_nothing() -> None:
    boxes = torch.tensor([[-9.0, -9, -2, -2], [20, 20, 30, 30], [5, 5, 2, 2], [3, 3, 3, 8]])
    assert not rasterize(boxes, (10, 10)).any()
    assert not rasterize(torch.zeros(0, 4), (10, 10)).any()


def test_within_is_strict() -> None:
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[20, 20] = True
    assert not within(mask, 5, 20, 15)  # exactly 15 away
    assert within(mask, 6, 20, 15)
    assert not within(mask, 11, 8, 15)  # 9, 12 -> 15
    assert within(mask, 11, 9, 15)
    assert within(mask, 20, 20, 0)
    assert not within(mask, 20, 21, 0)
    assert not within(mask, 20, 21, 1)
    assert within(mask, 20, 21, 1.001)
    assert within(mask, 21, 21, 1.4143)
    assert not within(mask, 21, 21, 1.4142)
    assert not within(torch.zeros(4, 4, dtype=torch.bool), 2, 2, 1e6)


@pytest.mark.parametrize("distance", [0, 0.5, 1, 1.5, 2, 3.7, 5, 100])
def test_within_equals_all_distances(distance: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = torch.from_numpy(rng.random((9, 13)) < 0.04)
        y, x = int(rng.integers(9)), int(rng.integers(13))
        distances = [math.hypot(v - y, u - x) for v, u in mask.nonzero().tolist()]
        assert within(mask, y, x, distance) == any(d < distance or d == 0 for d in distances)


def test_warp_by_hand() -> None:
    frame = warp((100, 50), (200, 200))
    assert frame.scale == (2, 4)
    assert frame.to_input(torch.tensor([[10.0, 20, 30, 40]])).tolist() == [[40, 40, 120, 80]]
    assert frame.window() == (0, 0, 50, 100)


def test_frame_of_a_centre_crop_by_hand() -> None:
    frame = Frame((100, 200), (40, 40), (0.5, 0.5), (5.0, 30.0))  # to 50 x 100, then the middle 40 x 40
    boxes = torch.tensor([[60.0, 10, 80, 30], [0, 0, 100, 100], [0, 0, 50, 50]])
    assert frame.to_input(boxes).tolist() == [[0, 0, 10, 10], [0, 0, 20, 40], [0, 0, 0, 20]]
    assert frame.window() == (60, 10, 140, 90)


@pytest.mark.parametrize("seed", range(5))
def test_boxes_inside_the_window_survive_the_way_to_the_input_and_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = Frame((300, 400), (224, 224), (256 / 300, 341 / 400), (16.0, 58.0))
    x0, y0, x1, y1 = frame.window()
    corners = np.sort(rng.uniform((x0 + 1, y0 + 1), (x1 - 1, y1 - 1), (20, 2, 2)), axis=1)
    boxes = torch.from_numpy(corners.reshape(20, 4))
    (sy, sx), (oy, ox) = frame.scale, frame.offset
    back = (frame.to_input(boxes) + boxes.new_tensor([ox, oy, ox, oy])) / boxes.new_tensor([sx, sy, sx, sy])
    torch.testing.assert_close(back, boxes)


def test_the_window_lies_in_the_image_whatever_the_rounding() -> None:
    for height in range(224, 300, 7):
        frame = Frame((height, 500), (224, 224), (1.0, 1.0), (float(round((height - 224) / 2)), 138.0))
        x0, y0, x1, y1 = frame.window()
        assert 0 <= x0 < x1 <= 500
        assert 0 <= y0 < y1 <= height
        assert (y1 - y0, x1 - x0) == (224, 224)
