"""Localization errors on maps drawn by hand, and MaxBoxAcc against its authors' evaluator written afresh."""

from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from drawn_trials import INPUT, drawn, trial

from gradcam_bench.analysis import reductions
from gradcam_bench.analysis.reductions import Cell
from gradcam_bench.choices import Protocol
from gradcam_bench.geometry import Frame, warp
from gradcam_bench.metrics.localization import (
    localization_error_gt_known,
    localization_error_top1,
    localization_error_top5,
    max_box_acc,
)
from gradcam_bench.regions import boxes as regions

BLOB = drawn(
    ".......",
    "..222..",
    "..2##..",
    "..222..",
    ".......",
    ".9.....",
    ".......",
)


def errors(box, heatmap=BLOB, **protocol) -> float:
    boxes = box if isinstance(box, list) else [box]
    found, _ = localization_error_gt_known(trial([heatmap], [(0, b, False) for b in boxes], INPUT | protocol))
    return found.item()


def test_the_box_of_the_largest_component_decides() -> None:
    assert errors((2, 1, 5, 4)) == 0  # exactly the nine pixels
    assert errors((1, 5, 2, 6)) == 1  # the smaller component, though it is brighter than most
    assert errors((1, 5, 2, 6), rule="components") == 0


def test_an_iou_of_exactly_the_threshold_is_right() -> None:
    assert errors((2, 1, 5, 7)) == 0  # 9 / 18
    assert errors((2, 0, 5, 7)) == 1  # 9 / 21
    assert errors((2, 0, 5, 7), iou_threshold=0.3) == 0
    assert errors((2, 1, 5, 7), iou_threshold=[0.3, 0.5, 0.7]) == pytest.approx(1 / 3)


def test_any_true_box_of_the_class_may_match_or_only_the_first() -> None:
    assert errors([(0, 5, 7, 7), (2, 1, 5, 4)]) == 0
    assert errors([(0, 5, 7, 7), (2, 1, 5, 4)], matching="first") == 1


def test_the_threshold_is_strict() -> None:
    edge = drawn(".......", "..222..", "..2#2..", ".......", "....#..", ".......", ".......")
    assert errors((2, 1, 5, 3), edge, threshold=0.19) == 0
    assert errors((2, 1, 5, 3), edge, threshold=0.2) == 1  # .2 is not above .2: one pixel is left
    assert errors((3, 2, 4, 3), edge, threshold=0.2) == 0
    fifteen = torch.full((7, 7), 0.15)
    fifteen[3, 3] = 1
    assert errors((3, 3, 4, 4), fifteen) == 0
    assert errors((0, 0, 7, 7), fifteen.nextafter(torch.tensor(1.0))) == 0


def test_corners_join_pixels_of_eight_neighbours_only() -> None:
    diagonal = drawn("#......", ".#.....", "..#....", ".....##", ".......", ".......", ".......")
    assert errors((0, 0, 3, 3), diagonal) == 0
    assert errors((0, 0, 3, 3), diagonal, connectivity=4) == 1
    assert errors((5, 3, 7, 4), diagonal, connectivity=4) == 0


@pytest.mark.parametrize("value", [0.0, -2.0])
def test_a_map_without_anything_positive_is_a_miss(value: float) -> None:
    assert errors((0, 0, 7, 7), torch.full((7, 7), value)) == 1
    assert errors((0, 0, 1, 1), torch.full((7, 7), value)) == 1


def test_a_case_without_a_true_box_is_a_problem() -> None:
    for metric in (localization_error_gt_known, localization_error_top1, localization_error_top5, max_box_acc):
        made = trial([BLOB, BLOB], [(0, (2, 1, 5, 4), False)], INPUT, classes=[0, 3])
        values = metric(made)
        for part in values if isinstance(values, tuple) else [values]:
            if part is not None:
                assert part.reshape(2, -1).isnan().all(1).tolist() == [False, True]
        assert made.notes == {1: "no box of the class"}


def test_ranks_decide_top1_and_top5() -> None:
    right, wrong = (0, (2, 1, 5, 4), False), (1, (0, 5, 7, 7), False)
    ranks = [0, 1, 4, 5, 0, 4]
    made = trial([BLOB] * 6, [right, wrong], INPUT, ranks, classes=[0, 0, 0, 0, 1, 1])
    assert localization_error_gt_known(made)[0].tolist() == [0, 0, 0, 0, 1, 1]
    assert localization_error_top1(made).tolist() == [0, 1, 1, 1, 1, 1]
    assert localization_error_top5(made).tolist() == [0, 0, 0, 1, 1, 1]
    without = trial([BLOB], [right], INPUT, [None])
    assert localization_error_top1(without).isnan().all()
    assert without.notes == {0: "no rank of the class: no model, or outputs not finite"}
    assert localization_error_gt_known(without)[0].tolist() == [0]


def test_the_curve_by_hand() -> None:
    (none, curve) = max_box_acc(trial([BLOB], [(0, (2, 1, 5, 4), False)], INPUT | {"quantize": "uint8"}))
    assert none is None
    assert curve.shape == (1, 256)
    assert curve.dtype == torch.float32
    at = curve[0].tolist()  # levels: .2 -> 51, .9 -> 229, 1 -> 255
    assert set(at[:51]) == {1.0}
    assert set(at[51:255]) == {torch.tensor(2 / 9).item()}  # the two brightest pixels are the largest component
    assert at[255] == 0


def test_boxes_compare_in_the_frame_asked_for() -> None:
    heatmap = drawn("....", ".##.", ".##.", "....")
    frame = warp((8, 16), (4, 4))
    inside_the_source = [(0, (4, 2, 12, 6), False)]
    for where in ("input", "source"):
        made = trial([heatmap], inside_the_source, {"frame": where, "resize": "nearest"}, frame=frame)
        assert max_box_acc(made)[1][0, 100] == 1


def test_true_boxes_outside_the_crop_are_misses_and_cut_ones_cut() -> None:
    frame = Frame((4, 8), (4, 4), (1.0, 1.0), (0.0, 2.0))
    whole = torch.ones(4, 4)
    whole[0, 0] = 0
    for iou in ("half_open", "wsol"):
        protocol = {"frame": "input", "iou": iou}
        for box, expected in (((0, 0, 2, 4), 0), ((6, 0, 8, 4), 0), ((0, 0, 8, 4), 1), ((4, 0, 8, 4), 0.5)):
            made = trial([whole], [(0, box, False)], protocol, frame=frame)
            assert max_box_acc(made)[1][0, 100] == expected, (iou, box)


def test_wsol_boxes_are_truncated_to_whole_pixels() -> None:
    frame = warp((10, 7), (224, 224))  # x: * 32, y: * 22.4
    heatmap = torch.zeros(224, 224)
    heatmap[22:90, 32:161] = 1  # inclusive corners (1, 1, 5, 4) -> (32, 22.4, 160, 89.6) -> (32, 22, 160, 89)
    found = {}
    for iou in ("wsol", "half_open"):
        made = trial([heatmap], [(0, (1, 1, 6, 5), False)], {"frame": "input", "iou": iou}, frame=frame)
        found[iou] = max_box_acc(made)[1][0, 100].item()
    assert found["wsol"] == 1
    # Half-open it is (32, 22.4, 192, 112): a pixel of the source is 32 x 22.4 pixels of the input.
    assert found["half_open"] == pytest.approx(129 * 67.6 / (160 * 89.6 + 129 * 0.4), rel=1e-5)


def evaluate(maps, truths, sizes, deltas, every_contour, side=64, thresholds=1000):
    """The evaluator of Choe et al. as its text says, one threshold at a time: {delta: accuracies}.

    maps: normalised, side x side. truths: inclusive boxes in source pixels. sizes: (width, height) of the sources.
    """
    correct = {delta: np.zeros(thresholds) for delta in deltas}
    for heatmap, boxes, (width, height) in zip(maps, truths, sizes):
        levels = (heatmap * 255).astype(np.uint8)
        scaled = [
            (int(x0 * side / width), int(y0 * side / height), int(x1 * side / width), int(y1 * side / height))
            for x0, y0, x1, y1 in boxes
        ]
        known = {}
        for number, threshold in enumerate(np.arange(0, 1, 1 / thresholds)):
            at = int(threshold * levels.max())
            if at not in known:
                _, binary = cv2.threshold(levels, at, 255, cv2.THRESH_BINARY)
                contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
                if not contours:
                    found = [(0, 0, 0, 0)]
                else:
                    chosen = contours if every_contour else [max(contours, key=cv2.contourArea)]
                    rects = [cv2.boundingRect(contour) for contour in chosen]
                    found = [(x, y, min(x + w, side - 1), min(y + h, side - 1)) for x, y, w, h in rects]
                known[at] = max(inclusive_iou(a, b) for a in found for b in scaled)
            for delta in deltas:
                correct[delta][number] += known[at] >= delta
    return {delta: counts / len(maps) for delta, counts in correct.items()}


def inclusive_iou(a, b) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def cases(seed: int, count: int = 12):
    """Grids of several kinds with one to three true boxes each, in pictures of several sizes."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        width, height = (int(v) for v in rng.integers(30, 200, 2))
        grid = rng.standard_normal((7, 7) if number % 2 else (14, 14)).astype(np.float32)
        if number == 3:
            grid[:] = 1  # says nothing: zeros
        y, x = rng.integers(1, len(grid) - 1, 2)
        if number != 3:
            grid[y - 1 : y + 2, x - 1 : x + 2] += 4
        unit = np.array([width, height, width, height]) / len(grid)
        near = np.array([x - 1, y - 1, x + 2, y + 2]) * unit + rng.normal(0, 0.4, 4) * unit
        boxes = [tuple(int(v) for v in near.clip(0, [width - 1, height - 1] * 2))]
        for _ in range(rng.integers(0, 3)):
            x0, y0 = int(rng.integers(0, width - 9)), int(rng.integers(0, height - 9))
            boxes.append((x0, y0, int(rng.integers(x0 + 3, width)), int(rng.integers(y0 + 3, height))))
        yield grid, boxes, (width, height)


@pytest.mark.parity
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("rule", "deltas"), [("wsol_v1", (0.5,)), ("wsol_v2", (0.3, 0.5, 0.7))], ids=["MaxBoxAcc", "MaxBoxAccV2"]
)
def test_max_box_acc_equals_the_evaluator(seed: int, rule: str, deltas: tuple[float, ...]) -> None:
    protocol = {"rectify": "none", "resize": "cubic_cv2", "frame": "input", "rule": rule, "iou": "wsol"}
    curves, prepared, resized, truths, sizes = [], [], [], [], []
    for grid, boxes, (width, height) in cases(seed):
        half_open = [(0, (x0, y0, x1 + 1, y1 + 1), False) for x0, y0, x1, y1 in boxes]
        made = trial([torch.from_numpy(grid)], half_open, protocol, frame=warp((height, width), (64, 64)))
        curves.append(max_box_acc(made)[1][0].numpy())
        prepared.append(made.maps[0].numpy())
        large = cv2.resize(grid, (64, 64), interpolation=cv2.INTER_CUBIC)
        resized.append((large - large.min()) / np.ptp(large) if np.ptp(large) > 1e-5 else np.zeros_like(large))
        truths.append(boxes)
        sizes.append((width, height))
    count = len(curves)
    cell = Cell(np.full(count, np.nan), np.stack(curves), np.zeros(count), np.arange(count), {"iou_threshold": deltas})
    expected = evaluate(prepared, truths, sizes, deltas, rule == "wsol_v2")
    levels = [int(255 * threshold) for threshold in np.arange(0, 1, 0.001)]
    for delta in deltas:
        accuracies = (np.stack(curves) >= np.float32(delta)).mean(0)[levels]
        np.testing.assert_allclose(accuracies, expected[delta], atol=1e-6)
    ours = reductions.number(cell, "mean_of_max")
    assert ours == pytest.approx(np.mean([one.max() for one in expected.values()]), abs=1e-6)
    assert 0.2 < ours < 0.99  # the comparison says something
    # Resized by OpenCV itself: values differ in the last bits, which may move a pixel across a level.
    alone = evaluate(resized, truths, sizes, deltas, rule == "wsol_v2")
    assert ours == pytest.approx(np.mean([one.max() for one in alone.values()]), abs=1 / count)


def test_corners_are_scaled_cut_to_whole_pixels_and_to_the_crop_and_nothing_is_added() -> None:
    """200 x 400 pixels warped to 256, cropped to 224: x * 256 / 400 and y * 256 / 200 of inclusive corners, less 16."""
    frame = Frame((200, 400), (224, 224), (256 / 200, 256 / 400), (16.0, 16.0))
    heatmap = torch.zeros(224, 224)
    heatmap[35:111, 16:79] = 1.0
    # inclusive corners (50, 40), (150, 99): 32, 51.2 and 96, 126.72; without the crop's 16: 16, 35 and 80, 110
    objects = [(0, (50, 40, 151, 100), False)]
    protocol = {**INPUT, "iou": "corners", "rule": "largest_rectangle"}
    _, curve = localization_error_gt_known(trial([heatmap], objects, protocol, frame=frame))
    true, found = 64 * 75, 63 * 76
    assert curve[0, 50].item() == pytest.approx(63 * 75 / (true + found - 63 * 75))


def test_a_box_outside_the_crop_is_no_box_under_corners() -> None:
    frame = Frame((256, 256), (224, 224), (1.0, 1.0), (16.0, 16.0))
    heatmap = torch.zeros(224, 224)
    heatmap[:50, :50] = 1.0
    inside, outside = (0, (20, 20, 60, 60), False), (0, (0, 0, 17, 90), False)
    protocol = {**INPUT, "iou": "corners", "rule": "largest_rectangle"}
    made = trial([heatmap], [outside], protocol, frame=frame)
    assert localization_error_gt_known(made)[0].isnan().all()
    assert made.notes == {0: "no box of the class lies in the frame"}
    both = localization_error_gt_known(trial([heatmap], [outside, inside], protocol, frame=frame))
    alone = localization_error_gt_known(trial([heatmap], [inside], protocol, frame=frame))
    assert both[0].tolist() == alone[0].tolist() == [0.0]
    assert torch.equal(both[1], alone[1])


def test_of_equal_maps_the_components_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = mock.Mock(wraps=regions.component_records)
    monkeypatch.setattr(regions, "component_records", counted)
    regions._RECENT.clear()
    made = trial([BLOB, BLOB, 2 * BLOB], [(0, (2, 1, 5, 4), False)], INPUT)
    for iou in ("half_open", "wsol"):
        curve = localization_error_gt_known(made.under(Protocol(INPUT | {"iou": iou})))[1]
        assert torch.equal(curve[0], curve[2])
    assert counted.call_count == 1
