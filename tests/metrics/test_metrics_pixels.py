"""Scores of pixels: PxAP against its authors' evaluator written afresh, Loc of Grad-CAM++ by hand and as an IoU."""

import numpy as np
import pytest
import torch
from drawn_trials import INPUT, drawn, trial

from gradcam_bench.analysis import reductions
from gradcam_bench.analysis.reductions import Cell
from gradcam_bench.geometry import Frame
from gradcam_bench.metrics.pixels import grad_cam_pp_loc, pixel_ap

PLAIN = {"frame": "input", "normalize": "none"}


def masks(*drawn_masks, labels=None, ignore=None) -> dict:
    stacked = torch.stack([drawn(*rows) > 0 for rows in drawn_masks])
    found = {"masks": stacked, "mask_labels": torch.tensor(labels or [0] * len(stacked))}
    return found if ignore is None else found | {"ignore": drawn(*ignore) > 0}


def pooled(*curves, weights=None) -> float:
    stacked = torch.cat(curves).numpy()
    count = len(stacked)
    cell = Cell(np.full(count, np.nan), stacked, np.zeros(count, str), np.arange(count), {})
    return reductions.number(cell, "pr_pooled", weights)


def test_pixel_ap_by_hand() -> None:
    """Levels 255 (1.0), 127 (.5), 0: the object's pixels are 1, .5, .5; the background's .5, 0, 0."""
    heatmap = drawn("#55", "5..")
    _, curve = pixel_ap(trial([heatmap], protocol=PLAIN, **masks(("###", "..."))))
    assert curve.shape == (1, 512)
    assert {n: int(c) for n, c in enumerate(curve[0]) if c} == {255: 1, 127: 2, 256 + 127: 1, 256: 2}
    # at 255: precision 1, recall 1/3; at 127: precision 3/4, recall 1; at 0 nothing is gained
    assert pooled(curve) == pytest.approx(1 / 3 + 3 / 4 * 2 / 3)


def test_pixels_to_ignore_count_neither_way_and_those_of_the_object_stay() -> None:
    heatmap = drawn("#55", "5..")
    given = masks(("###", "..."), ignore=("#..", "#.."))
    _, curve = pixel_ap(trial([heatmap], protocol=PLAIN, **given))
    assert {n: int(c) for n, c in enumerate(curve[0]) if c} == {255: 1, 127: 2, 256: 2}
    assert pooled(curve) == 1


def test_masks_of_another_class_are_background_and_several_of_one_are_one() -> None:
    given = masks(("#..", "..."), (".#.", "..."), ("..#", "..."), labels=[0, 0, 1])
    _, curve = pixel_ap(trial([drawn("###", "...")] * 2, protocol=PLAIN, classes=[0, 1], **given))
    assert curve[:, [255, 511, 256]].tolist() == [[2, 1, 3], [1, 2, 3]]


def test_pixel_ap_needs_masks_and_an_object_in_the_frame() -> None:
    made = trial([drawn("#.")], [(0, (0, 0, 1, 1), False)], PLAIN)
    assert pixel_ap(made)[1].isnan().all()
    assert made.notes == {0: "no mask of the class"}
    empty = trial([drawn("#.")], protocol=PLAIN, **masks(("..",)))
    assert pixel_ap(empty)[1].isnan().all()
    assert empty.notes == {0: "the object covers no pixel of the frame"}


def test_a_constant_map_has_the_precision_of_chance_and_a_perfect_one_the_best() -> None:
    given = masks(("##...", "....."))
    curves = [
        pixel_ap(trial([m], protocol=PLAIN, **given))[1] for m in (torch.full((2, 5), 0.7), drawn("##...", "....."))
    ]
    assert [pooled(c) for c in curves] == [pytest.approx(0.2), 1.0]
    whole = masks(("#####", "#####"))  # an object that covers the image
    assert pooled(pixel_ap(trial([drawn("#2345", ".....")], protocol=PLAIN, **whole))[1]) == 1


def evaluator(images, interval: float) -> float:
    """wsolevaluation's histograms of scores and its sum, written afresh."""
    edges = np.append(np.arange(0, 1, interval), [1.0, 2.0, 3.0])
    true = false = np.zeros(len(edges) - 1)
    for scores, truth in images:
        true = true + np.histogram(scores[truth == 1], edges)[0]
        false = false + np.histogram(scores[truth == 0], edges)[0]
    true, false = true[::-1].cumsum(), false[::-1].cumsum()
    area, before = 0.0, 0.0
    for hits, misses in zip(true[1:], false[1:]):
        if hits + misses:
            area += hits / (hits + misses) * (hits / true[-1] - before)
        before = hits / true[-1]
    return area


def random_images(seed: int, count: int = 12):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        size = tuple(rng.integers(8, 40, 2))
        truth = rng.choice([0, 1, 255], size, p=[0.6, 0.3, 0.1])  # 255: to ignore
        scores = rng.random(size) ** 2 * 0.7 + 0.3 * (truth == 1) * rng.random(size)
        scores = (scores - scores.min()) / (scores.max() - scores.min())
        yield scores, truth


@pytest.mark.parametrize("seed", range(3))
def test_pixel_ap_equals_the_evaluator(seed: int) -> None:
    images = [((np.floor(scores * 255) + 0.25 * (scores < 1)) / 255, truth) for scores, truth in random_images(seed)]
    curves = []
    for scores, truth in images:
        given = {"masks": torch.from_numpy(truth == 1)[None], "mask_labels": torch.tensor([0])}
        given["ignore"] = torch.from_numpy(truth == 255)
        heatmap = torch.from_numpy(scores.astype(np.float32))
        curves.append(pixel_ap(trial([heatmap], protocol=PLAIN, classes=[0], **given))[1])
    assert pooled(*curves) == pytest.approx(evaluator(images, 1 / 255), abs=1e-12)
    assert pooled(*curves) == pytest.approx(evaluator(images, 0.001), abs=1e-12)  # finer bins part no two levels
    weights = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)))
    drawn_again = [image for image, times in zip(images, weights) for _ in range(times)]
    assert pooled(*curves, weights=weights) == pytest.approx(evaluator(drawn_again, 1 / 255), abs=1e-12)


def test_256_levels_are_close_to_the_evaluators_1000() -> None:
    images = list(random_images(7, 30))
    assert evaluator(images, 1 / 255) == pytest.approx(evaluator(images, 0.001), abs=1e-3)


def test_masks_are_brought_to_the_input_by_nearest_neighbour() -> None:
    frame = Frame((4, 4), (2, 2), (1.0, 1.0), (1.0, 1.0))  # the central 2 x 2 of 4 x 4
    given = masks(("....", ".#..", "....", "...."), ignore=("....", "..#.", "....", "...."))
    _, curve = pixel_ap(trial([drawn("#.", "..")], protocol=PLAIN, frame=frame, **given))
    assert curve[0, [255, 256]].tolist() == [1, 2]


def test_loc_of_grad_cam_pp_by_hand() -> None:
    heatmap = drawn("....", ".36.", ".96.", "..6.")
    box = [(0, (1, 1, 3, 3), False)]  # four pixels
    axes = INPUT | {"normalize": "none"}
    for threshold, expected in ((0, 4 / 5), (0.25, 4 / 5), (0.5, 3 / 5), (0.6, 1 / 4), (0.9, 0)):
        found, curve = grad_cam_pp_loc(trial([heatmap], box, axes | {"threshold": threshold}))
        assert found.item() == pytest.approx(expected)
        assert curve[0, round(100 * threshold)] == found[0]


def test_loc_wants_the_class_among_five_and_a_box() -> None:
    made = trial([drawn("#.")] * 4, [(0, (0, 0, 1, 1), False)], INPUT, ranks=[0, 4, 5, None], classes=[0] * 4)
    found, curve = grad_cam_pp_loc(made)
    assert found[:2].tolist() == [1, 1]
    assert found[2:].isnan().all()
    assert curve[2:].isnan().all()
    assert made.notes == {
        2: "the class is not among the model's first five",
        3: "no rank of the class: no model, or outputs not finite",
    }
    nowhere = trial([drawn("#.")], [(1, (0, 0, 1, 1), False)], INPUT)
    assert grad_cam_pp_loc(nowhere)[0].isnan().all()
    assert nowhere.notes == {0: "no box of the class"}


@pytest.mark.parametrize("seed", range(3))
def test_loc_is_the_iou_of_two_sets_of_pixels(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    heatmap = torch.rand(13, 17, generator=generator)
    objects = [(0, (2, 3, 9, 8), False), (0, (6, 5, 15, 12), False), (1, (0, 0, 4, 4), False)]
    _, curve = grad_cam_pp_loc(trial([heatmap], objects, {"frame": "input"}))
    inside = torch.zeros(13, 17, dtype=torch.bool)
    inside[3:8, 2:9] = inside[5:12, 6:15] = True
    scaled = (heatmap - heatmap.min()) / (heatmap.max() - heatmap.min())
    for level in (0, 1, 100, 200, 254, 255):
        above = (scaled * 255).to(torch.uint8) > level
        assert curve[0, level].item() == pytest.approx(((above & inside).sum() / (above | inside).sum()).item())
