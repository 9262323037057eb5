"""Pointing games by hand, and the ways in which other implementations get them wrong."""

import pytest
import torch
from drawn_trials import drawn, trial

from gradcam_bench.metrics.pointing import energy_pointing_game, pointing_game


def peak(y: int, x: int, size: tuple[int, int] = (40, 60)) -> torch.Tensor:
    heatmap = torch.zeros(size)
    heatmap[y, x] = 1
    return heatmap


def test_a_peak_hits_less_than_the_tolerance_from_the_box() -> None:
    box = [(0, (20, 10, 30, 20), False)]  # pixels 20..29, 10..19
    places = [(10, 20), (19, 29), (15, 44), (15, 43), (34, 29), (33, 29), (31, 38), (31, 37), (15, 5), (15, 6)]
    #         inside    inside    15 away   14        15        14        12,9 -> 15 12,8    15       14
    hits = pointing_game(trial([peak(y, x) for y, x in places], box))
    assert hits.tolist() == [1, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    exact = pointing_game(trial([peak(19, 29), peak(20, 29), peak(19, 30)], box, {"tolerance": 0}))
    assert exact.tolist() == [1, 0, 0]


def test_x_and_y_are_not_swapped() -> None:
    wide = [(0, (30, 0, 60, 4), False)]
    assert pointing_game(trial([peak(2, 50), peak(35, 2)], wide)).tolist() == [1, 0]
    tall = [(0, (0, 20, 4, 40), False)]
    assert pointing_game(trial([peak(39, 1), peak(1, 39)], tall)).tolist() == [1, 0]
    # A flat index compared with products of corners (as one released Point-CAM does) calls this a hit.
    assert pointing_game(trial([peak(9, 59)], [(0, (15, 15, 30, 30), False)])).tolist() == [0]


def test_all_boxes_of_the_class_are_the_object_or_only_the_first() -> None:
    objects = [(1, (0, 0, 5, 5), False), (0, (0, 30, 5, 40), False), (0, (50, 0, 60, 5), False)]
    maps = [peak(2, 2), peak(35, 2), peak(2, 55)]
    assert pointing_game(trial(maps, objects, {"tolerance": 0})).tolist() == [0, 1, 1]
    assert pointing_game(trial(maps, objects, {"tolerance": 0, "matching": "first"})).tolist() == [0, 1, 0]
    assert pointing_game(trial(maps, objects, {"tolerance": 0}, classes=[1, 1, 1])).tolist() == [1, 0, 0]


def test_of_equal_peaks_the_first_points_unless_any_may() -> None:
    twice = peak(2, 50) + peak(30, 3)  # the first in reading order is (2, 50)
    at_the_second = [(0, (0, 28, 6, 33), False)]
    assert pointing_game(trial([twice], at_the_second, {"tolerance": 0})).tolist() == [0]
    assert pointing_game(trial([twice], at_the_second, {"tolerance": 0, "ties": "any"})).tolist() == [1]
    assert pointing_game(trial([twice.flip(0)], at_the_second, {"tolerance": 0, "ties": "any"})).tolist() == [0]


@pytest.mark.parametrize("ties", ["first", "any"])
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_constant_map_does_not_hit_everywhere(ties: str, value: float) -> None:
    constant = torch.full((40, 60), value)
    middle, corner = [(0, (20, 10, 30, 20), False)], [(0, (0, 0, 3, 3), False)]
    assert pointing_game(trial([constant], middle, {"ties": ties})).tolist() == [0]
    assert pointing_game(trial([constant], corner, {"ties": ties})).tolist() == [1]


@pytest.mark.parametrize("metric", [pointing_game, energy_pointing_game])
def test_without_truth_there_is_a_problem_and_no_hit(metric) -> None:
    nothing = trial([peak(2, 2)])
    assert metric(nothing).isnan().tolist() == [True]
    assert nothing.notes == {0: "no box of the class"}
    empty = {"masks": torch.zeros(1, 40, 60, dtype=torch.bool), "mask_labels": torch.tensor([0])}
    masked = trial([peak(2, 2)], protocol={"region": "mask"}, **empty)
    assert metric(masked).isnan().tolist() == [True]
    assert masked.notes == {0: "the object covers no pixel of the frame"}


@pytest.mark.parametrize("metric", [pointing_game, energy_pointing_game])
def test_difficult_objects(metric) -> None:
    objects = [(0, (0, 0, 5, 5), True), (1, (0, 0, 5, 5), True), (1, (50, 30, 60, 40), False)]
    made = trial([peak(2, 2)] * 2, objects, classes=[0, 1])
    values = metric(made)
    assert values.isnan().tolist() == [True, False]
    assert values[1] == 1  # a difficult object beside a plain one counts as the object
    assert made.notes == {0: "difficult"}
    assert metric(trial([peak(2, 2)] * 2, objects, {"difficult": "keep"}, classes=[0, 1])).tolist() == [1, 1]


def test_masks_are_tighter_than_boxes() -> None:
    mask = torch.zeros(1, 40, 60, dtype=torch.bool)
    mask[0, 10, 20:30] = mask[0, 10:20, 20] = True  # an L in the box 20..29, 10..19
    truth = {"masks": mask, "mask_labels": torch.tensor([0])}
    box = [(0, (20, 10, 30, 20), False)]
    maps = [peak(10, 29), peak(19, 20), peak(19, 29)]
    assert pointing_game(trial(maps, box, {"tolerance": 0}, **truth)).tolist() == [1, 1, 1]
    assert pointing_game(trial(maps, box, {"tolerance": 0, "region": "mask"}, **truth)).tolist() == [1, 1, 0]


HEAT = drawn(
    "..2.",
    ".4#.",
    "....",
)


def test_energy_by_hand() -> None:
    objects = [(0, (1, 1, 3, 2), False)]  # holds .4 and 1 of 1.6
    assert energy_pointing_game(trial([HEAT], objects)).item() == pytest.approx(1.4 / 1.6)
    assert energy_pointing_game(trial([HEAT], [(0, (2, 0, 3, 3), False)])).item() == pytest.approx(1.2 / 1.6)
    assert energy_pointing_game(trial([HEAT], [(0, (0, 0, 4, 3), False)])).item() == 1
    assert energy_pointing_game(trial([HEAT], [(0, (3, 0, 4, 3), False)])).item() == 0


def test_energy_does_not_swap_x_and_y() -> None:
    # Score-CAM's released code indexes the mask [x, y]; on a picture that is not square that is another region.
    wide = torch.zeros(4, 9)
    wide[1, 5:8] = torch.tensor([1.0, 0.5, 0.5])
    assert energy_pointing_game(trial([wide], [(0, (5, 1, 7, 2), False)])).item() == pytest.approx(0.75)


def test_overlapping_boxes_count_their_energy_once() -> None:
    objects = [(0, (1, 1, 3, 2), False), (0, (2, 0, 3, 3), False)]
    assert energy_pointing_game(trial([HEAT], objects)).item() == 1


def test_energy_of_maps_with_none() -> None:
    box = [(0, (0, 0, 2, 2), False)]
    assert energy_pointing_game(trial([torch.zeros(3, 4), torch.full((3, 4), 2.0)], box)).tolist() == [0, 0]


def test_negative_values_carry_no_energy() -> None:
    signed = torch.tensor([[-9.0, 1.0], [3.0, -1.0]])
    left = [(0, (0, 0, 1, 2), False)]
    raw = {"normalize": "none", "rectify": "none"}
    assert energy_pointing_game(trial([signed], left, raw)).item() == 0.75
    # Without ReLU, minmax lifts -9 to 0 and the zeros to .75: (12 + 0) / (10 + 12 + 8)
    assert energy_pointing_game(trial([signed], left, {"rectify": "none"})).item() == pytest.approx(12 / 30)


def test_energy_is_that_of_many_small_values_too() -> None:
    flat = 1 + torch.rand(300, 400, generator=torch.Generator().manual_seed(0)) * 1e-3
    made = trial([flat], [(0, (0, 0, 200, 300), False)], {"normalize": "none"})
    expected = float(flat.double()[:, :200].sum() / flat.double().sum())
    assert energy_pointing_game(made).item() == pytest.approx(expected, rel=1e-6)


def test_only_images_with_one_box_of_at_most_half_of_them() -> None:
    """Wang et al. 2020: one box an image, of whatever class, covering no more than half of it."""
    axes = {"cases": "one_box_small", "tolerance": 0}
    half, more = (0, 0, 30, 40), (0, 0, 31, 40)  # of 60 x 40
    hit = [peak(1, 1)]
    assert pointing_game(trial(hit, [(0, half, False)], axes)).tolist() == [1]
    for objects in ([(0, more, False)], [(0, half, False), (1, (40, 0, 50, 10), False)], [(0, half, False)] * 2):
        made = trial(hit, objects, axes)
        assert pointing_game(made).isnan().all()
        assert energy_pointing_game(made).isnan().all()
        assert made.notes == {0: "not of an image with one box that covers at most half of it"}
