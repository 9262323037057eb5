"""Objects one by one: by hand, by a slow second implementation, and against pycocotools."""

import contextlib
import io
import warnings

import numpy as np
import pytest
import torch
from drawn_trials import INPUT, drawn, trial

from gradcam_bench.analysis import reductions
from gradcam_bench.analysis.reductions import Cell
from gradcam_bench.choices import Protocol
from gradcam_bench.geometry import warp
from gradcam_bench.metrics.localization import box_iou, cor_loc
from gradcam_bench.metrics.objects import box_ap, duplicates, instance_recall
from gradcam_bench.regions.boxes import boxes_at
from gradcam_bench.samples import annotation
from gradcam_bench.trial import Trial

EACH = INPUT | {"rule": "components", "threshold": 0.5}
MAP = drawn(
    "88......",
    "88...99.",
    ".....99.",
    "........",
    "7.......",
)
LEFT, RIGHT, LOW = (0, 0, 2, 2), (5, 1, 7, 3), (0, 4, 1, 5)


def given(*boxes, label: int = 0):
    return [(label, box, False) for box in boxes]


def test_recall_and_duplicates_by_hand() -> None:
    found, counts = instance_recall(trial([MAP], given(LEFT, RIGHT, (3, 3, 5, 5)), EACH))
    assert found.item() == pytest.approx(2 / 3)
    assert counts.tolist() == [[2, 3]]
    found, counts = duplicates(trial([MAP], given(LEFT, RIGHT), EACH))
    assert counts.tolist() == [[0, 3]]


def test_a_true_box_is_found_once() -> None:
    """Both the 8s (4 pixels) and the 7 below overlap one long box a little; the stronger has it."""
    long = [(0, 0, 2, 5)]  # IoU 4/10 with the first, 1/10 with the second
    axes = EACH | {"iou_threshold": 0.1}
    found, counts = instance_recall(trial([MAP], given(*long), axes))
    assert (found.item(), counts.tolist()) == (1, [[1, 1]])
    found, counts = duplicates(trial([MAP], given(*long), axes))
    assert (found.item(), counts.tolist()) == (pytest.approx(1 / 3), [[1, 3]])
    # and of two equal true boxes, the second one goes to the next detection
    found, _ = instance_recall(trial([MAP], given(*long, *long), axes))
    assert found.item() == 1


def test_several_ious_are_averaged() -> None:
    found, counts = instance_recall(trial([MAP], given((0, 0, 2, 3)), EACH | {"iou_threshold": [0.5, 0.6, 0.7]}))
    assert counts.tolist() == [[pytest.approx(2 / 3), 1]]  # IoU 4/6
    assert found.item() == pytest.approx(2 / 3)


def test_a_map_without_a_box_finds_nothing_and_repeats_nothing() -> None:
    flat = torch.zeros(4, 4)
    assert instance_recall(trial([flat], given((0, 0, 2, 2)), EACH))[0].tolist() == [0]
    assert duplicates(trial([flat], given((0, 0, 2, 2)), EACH))[0].tolist() == [0]
    assert box_ap(trial([flat], given((0, 0, 2, 2)), EACH))[1][0, :2].tolist() == [1, -1]


def test_without_a_true_box_there_is_no_number_save_where_the_class_is_known_to_be_absent() -> None:
    made = trial([MAP, MAP], given(LEFT, label=1), EACH, classes=[0, 1])
    for score in (instance_recall, duplicates):
        assert score(made)[0].isnan().tolist() == [True, False]
    assert box_ap(made)[1][:, 0].tolist() == [0, 1]
    unknown = trial([MAP], [], EACH)  # the class is annotated, where it is is not
    unknown = Trial(**{**unknown.__dict__, "annotation": annotation("cat", (5, 8), classes=[0])})
    assert box_ap(unknown)[1].isnan().all()


def test_scores_are_the_mass_above_the_threshold() -> None:
    _, curve = box_ap(trial([MAP], given(LEFT), EACH | {"normalize": "none"}))
    assert curve[0, 1:5].tolist() == pytest.approx([3.6, 3.2, 0.7, -1])
    assert curve[0, 101:105].tolist() == [0, 1, 0, 0]


def reduced(rows, classes, count=1, weights=None) -> float:
    stacked = np.asarray(rows, np.float32)
    nothing = np.full(len(stacked), np.nan)
    cell = Cell(nothing, stacked, np.array(classes), np.arange(len(stacked)), {"iou_threshold": (0.5,) * count})
    return reductions.number(cell, "ap_pooled", weights)


def test_average_precision_by_hand() -> None:
    """Detections .9 right, .8 wrong, .7 right of two true boxes: precision 1 up to recall 1/2, then 2/3."""
    rows = [[1, 0.9, 0.8, 1, 0], [1, 0.7, -1, 1, 0]]
    assert reduced(rows, ["a", "a"]) == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert reduced(rows, ["a", "b"]) == pytest.approx(1)  # each class by itself
    # a wrong one of a picture without the class comes first: precision 0, 1/2, 1/3, 2/4, so 1/2 from every recall on
    assert reduced([*rows, [0, 0.95, -1, 0, 0]], ["a", "a", "a"]) == pytest.approx(0.5)
    assert reduced([[2, 0.9, -1, 1, 0]], ["a"]) == pytest.approx(51 / 101)
    assert reduced([[2, -1, -1, 0, 0], [1, 0.4, -1, 1, 0]], ["a", "b"]) == pytest.approx(0.5)


def pictures(seed: int, ious):
    """Fifteen pictures of noise in blobs, some class asked for that is not there."""
    rng = np.random.default_rng(seed)
    for number in range(15):
        grid = torch.from_numpy(rng.random((9, 11)).astype(np.float32))
        heatmap = torch.nn.functional.interpolate(grid[None, None], (45, 55), mode="bilinear")[0, 0]
        shown = ((heatmap - heatmap.min()) / (heatmap.max() - heatmap.min()) * 255).byte().numpy()
        near = boxes_at(shown, int(255 * 0.7), "components")  # true boxes lie near the map's, some where none is
        objects = [(int(rng.integers(0, 2)), tuple(box + rng.integers(-2, 3, 4)), False) for box in near[::2]]
        objects += [(int(rng.integers(0, 2)), (x, 3, x + 7, 12), False) for x in rng.integers(0, 40, 2).tolist()]
        axes = {"frame": "input", "rule": "components", "threshold": 0.7, "iou_threshold": ious}
        yield Trial(
            [heatmap, heatmap.flip(1)],
            ["none"] * 2,
            [0, 1],
            [0, 0],
            warp((45, 55), (45, 55)),
            annotation(str(number), (45, 55), objects),
            Protocol(axes),
        )


def coco_ap(rows) -> float:
    """pycocotools' precision, averaged, of (image, class, true boxes, detections [box, score])."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ious, images, truths, detections = rows
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = COCO()
        truth.dataset = {"info": {}, "images": [{"id": i} for i in images], "annotations": truths}
        truth.dataset["categories"] = [{"id": c} for c in (1, 2)]
        truth.createIndex()
        made = COCOeval(truth, truth.loadRes(detections), "bbox")
        made.params.iouThrs, made.params.maxDets = np.array(ious), [100]
        made.params.areaRng, made.params.areaRngLbl = [[0, 1e10]], ["all"]
        made.evaluate()
        made.accumulate()
    precision = made.eval["precision"]
    return float(precision[precision > -1].mean())


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(4))
def test_box_ap_equals_pycocotools(seed: int) -> None:
    ious = (0.1, 0.3, 0.5)
    curves, classes, images, truths, detections = [], [], [], [], []
    for image, made in enumerate(pictures(seed, ious), 1):
        curve = box_ap(made)[1]
        images.append(image)
        for unit, label in enumerate(made.classes):
            curves.append(curve[unit].numpy())
            classes.append(str(label))
            levels = made.levels[unit].numpy()
            heat = made.maps[unit].double().numpy() * (levels > int(255 * 0.7))
            for x0, y0, x1, y1 in boxes_at(levels, int(255 * 0.7), "components").tolist():
                mass = float(heat[int(y0) : int(y1), int(x0) : int(x1)].sum())
                box = [x0, y0, x1 - x0, y1 - y0]
                detections.append({"image_id": image, "category_id": label + 1, "bbox": box, "score": mass})
        for label, (x0, y0, x1, y1) in zip(made.annotation.labels.tolist(), made.annotation.boxes.tolist()):
            box = [x0, y0, x1 - x0, y1 - y0]
            entry = {"id": len(truths) + 1, "image_id": image, "category_id": label + 1, "bbox": box, "iscrowd": 0}
            truths.append(entry | {"area": box[2] * box[3]})
    ours = reduced(curves, classes, 3)
    assert 0.05 < ours < 0.9
    assert ours == pytest.approx(coco_ap((ious, images, truths, detections)), abs=1e-9)


def slow_matches(boxes, scores, truths, demanded):
    """Detections one after the other, pairs one after the other."""
    taken, matched, again = set(), [], []
    for box in [box for _, box in sorted(zip(scores, boxes), key=lambda pair: -pair[0])]:
        ious = []
        for t in truths:
            w, h = min(box[2], t[2]) - max(box[0], t[0]), min(box[3], t[3]) - max(box[1], t[1])
            both = max(w, 0) * max(h, 0)
            ious.append(both / ((box[2] - box[0]) * (box[3] - box[1]) + (t[2] - t[0]) * (t[3] - t[1]) - both))
        free = [(iou, -n) for n, iou in enumerate(ious) if n not in taken and iou >= demanded]
        matched.append(bool(free))
        again.append(not free and max(ious) >= demanded)
        if free:
            taken.add(-max(free)[1])
    return sum(matched), sum(again)


@pytest.mark.parametrize("seed", range(3))
def test_recall_and_duplicates_equal_a_slow_matching(seed: int) -> None:
    for made in pictures(seed, (0.15,)):
        recalled, repeated = instance_recall(made)[1], duplicates(made)[1]
        for unit, label in enumerate(made.classes):
            truths = made.annotation.boxes[made.annotation.labels == label].tolist()
            if not truths:
                assert recalled[unit].isnan().all()
                continue
            levels = made.levels[unit].numpy()
            heat = made.maps[unit].double().numpy() * (levels > int(255 * 0.7))
            boxes = boxes_at(levels, int(255 * 0.7), "components").tolist()
            scores = [heat[int(b[1]) : int(b[3]), int(b[0]) : int(b[2])].sum() for b in boxes]
            matched, again = slow_matches(boxes, scores, truths, np.float32(0.15))
            assert recalled[unit].tolist() == [matched, len(truths)]
            assert repeated[unit].tolist() == [again, len(boxes)]


def test_cor_loc_and_box_iou_by_hand() -> None:
    objects = [(0, (5, 1, 7, 3), False), (1, (0, 0, 3, 3), False), (2, (0, 0, 2, 2), True)]
    axes = EACH | {"rule": "largest_component"}
    made = trial([MAP] * 4, objects, axes, classes=[0, 1, 2, 3])
    right, curve = cor_loc(made)
    assert right[:2].tolist() == [0, 0]  # of the equal two the first component, IoU 4/9 with class 1's
    assert right[2:].isnan().all()
    assert curve[2:].isnan().all()
    assert made.notes == {2: "difficult", 3: "no box of the class"}
    made = trial([MAP] * 4, objects, axes, classes=[0, 1, 2, 3])
    found, curve = box_iou(made)
    assert found[:3].tolist() == pytest.approx([0, 4 / 9, 1])
    assert curve[1, 89].item() == 0  # above 0.89 of the maximum only the 9s are left
    assert cor_loc(trial([MAP], objects, axes | {"iou_threshold": 0.4}, classes=[1]))[0].tolist() == [1]
    assert cor_loc(trial([MAP], objects, axes | {"difficult": "keep"}, classes=[2]))[0].tolist() == [1]
