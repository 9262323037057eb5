"""Faithfulness by hand, on two by two pixels: the answer is the sum of the red channel, 1 for the whole image."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from gradcam_bench.choices import Protocol
from gradcam_bench.geometry import warp
from gradcam_bench.metrics.coherent import adcc, adcc_of_means, arcc, coherency, complexity
from gradcam_bench.metrics.drops import average_drop, average_drop_absolute, average_gain, increase, win
from gradcam_bench.metrics.occlusion import occlusion_rank_correlation
from gradcam_bench.metrics.removal import deletion, insertion, road_combined, road_lerf, road_morf
from gradcam_bench.metrics.stability import infidelity, max_sensitivity
from gradcam_bench.samples import annotation
from gradcam_bench.trial import Trial
from gradcam_bench.witness import Witness

RED = torch.tensor([[0.4, 0.3], [0.2, 0.1]])
MAP = torch.tensor([[1.0, 0.5], [0.0, 0.5]])
STEPS = {"perturb_steps": 4, "fill_insertion": "mean"}
ROAD = {"perturb_noise": 0, "perturb_shares": [25]}


def red_sum(images: Tensor) -> Tensor:
    """Class 0: the sum of red; class 1: what is missing to 1."""
    total = images[:, 0].sum((1, 2))
    return torch.stack([total, 1 - total], 1)


def asked(
    maps: Sequence[Tensor],
    protocol: dict | None = None,
    classes: Sequence[int] | None = None,
    red: Tensor = RED,
    answer: Callable = red_sum,
    explainer: Callable = lambda images, units: [MAP] * len(units),
) -> Trial:
    """Maps as they are, of an image with red and nothing else. The network's activation is the identity."""
    image = torch.stack([red, torch.zeros_like(red), torch.zeros_like(red)])
    classes, size = classes or [0] * len(maps), tuple(red.shape)
    colours = torch.full((3, 1, 1), -1.0), torch.full((3, 1, 1), 2.0)
    names = [f"a#{c}" for c in classes]
    witness = Witness(image, 3, answer, lambda logits: logits, explainer, names, 0, *colours)
    paper, ranks = ["none"] * len(maps), [0] * len(maps)
    truth = annotation("a", size, classes=(0,))
    return Trial(maps, paper, classes, ranks, warp(size, size), truth, Protocol(protocol or {}), witness=witness)


def close(found: Tensor, expected: Sequence[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=2e-6, equal_nan=True)


def test_what_is_left_under_the_map() -> None:
    # Kept: 0.4 + 0.5 * 0.3 + 0.5 * 0.1 = 0.6 of 1 for class 0; class 1 goes from 0 to 0.4.
    trial = asked([MAP, MAP], classes=[0, 1])
    close(average_drop(trial), [0.4, torch.nan])
    assert trial.notes == {1: "the probability of the class is 0"}
    close(average_drop_absolute(trial), [0.4, 0.0])
    close(increase(trial), [0.0, 1.0])
    close(average_gain(trial), [0.0, 0.4])


def test_a_drop_is_relative_and_an_absolute_one_is_not() -> None:
    half = asked([MAP], red=RED / 2)  # 0.5 falls to 0.3
    close(average_drop(half), [0.4])
    close(average_drop_absolute(half), [0.2])


def test_an_answer_that_stays_is_no_increase() -> None:
    everything = asked([torch.ones(2, 2)], {"normalize": "max"})
    close(increase(everything), [0.0])
    close(average_drop(everything), [0.0])
    close(average_gain(everything), [0.0])


def test_what_the_map_takes_away_is_filled() -> None:
    # Missing weight: 0, .5, 1, .5, so a fill of v adds 2 v; black is -1 here, white 2.
    close(average_drop_absolute(asked([MAP], {"fill": "black"})), [0.4 + 2])
    close(average_drop_absolute(asked([MAP], {"fill": "white"})), [0.0])
    close(average_drop_absolute(asked([MAP], {"fill": "own_mean"})), [0.0])  # mean red 0.25: 0.6 + 0.5
    close(increase(asked([MAP], {"fill": "own_mean"})), [1.0])


def test_only_the_largest_values_of_a_map_may_count() -> None:
    # Of the two values 0.5 the first in reading order is kept: 0.4 + 0.15.
    close(average_drop(asked([MAP], {"perturb_keep": 0.5})), [0.45])
    close(average_drop(asked([MAP], {"perturb_keep": 0.3})), [0.45])  # rounded up to two pixels
    close(average_drop(asked([MAP], {"perturb_keep": 0.25})), [0.6])


def test_a_map_that_says_nothing_keeps_nothing() -> None:
    close(average_drop(asked([torch.full((2, 2), 0.7), torch.zeros(2, 2)])), [1.0, 1.0])


def test_a_win_is_a_share_of_the_others() -> None:
    corner = torch.tensor([[1.0, 0.0], [0.0, 0.0]])  # keeps 0.4
    # Drops of class 0: 0.4, 0.6, 0.4; class 1 has a single method.
    trial = asked([MAP, corner, MAP, MAP], classes=[0, 0, 0, 1])
    close(win(trial), [0.75, 0.0, 0.75, torch.nan])
    assert trial.notes == {3: "there is no other method in the run"}
    two = win(asked([MAP, corner]))
    close(two, [1.0, 0.0])
    assert float(win(asked([MAP, MAP])).sum()) == 1


def test_pixels_are_deleted_and_inserted_in_order_of_the_map() -> None:
    # First the upper left (0.4), then upper right (0.3), which comes before the equal lower right (0.1), then 0.2.
    value, curve = deletion(asked([MAP], STEPS))
    close(curve[0], [1.0, 0.6, 0.3, 0.2, 0.0])
    close(value, [(0.5 + 0.6 + 0.3 + 0.2 + 0.0) / 4])
    value, curve = insertion(asked([MAP], STEPS))
    close(curve[0], [0.0, 0.4, 0.7, 0.8, 1.0])
    close(value, [(0.4 + 0.7 + 0.8 + 0.5) / 4])


def test_the_mean_leaves_the_start_out() -> None:
    close(deletion(asked([MAP], {**STEPS, "perturb_area": "mean"}))[0], [(0.6 + 0.3 + 0.2) / 4])


def test_steps_need_not_divide_the_pixels() -> None:
    close(deletion(asked([MAP], {**STEPS, "perturb_steps": 3}))[1][0], [1.0, 0.6, 0.3, 0.0])  # 0, 1, 2 and 4 pixels
    close(deletion(asked([MAP], {**STEPS, "perturb_steps": 8}))[1][0, ::2], [1.0, 0.6, 0.3, 0.2, 0.0])


def test_a_constant_map_goes_in_reading_order() -> None:
    close(deletion(asked([torch.ones(2, 2)], STEPS))[1][0], [1.0, 0.6, 0.3, 0.1, 0.0])


def test_answers_other_than_the_probability() -> None:
    top = {"answer": "top1"}  # class 0 leads while more than half of the red is there, or at exactly half
    close(deletion(asked([MAP], {**STEPS, **top}))[1][0], [1.0, 1.0, 0.0, 0.0, 0.0])
    close(deletion(asked([MAP, MAP], {**STEPS, **top}, [0, 1]))[1][1], [0.0, 0.0, 1.0, 1.0, 1.0])


def test_imputed_pixels_are_means_of_their_neighbours() -> None:
    # Upper left from 0.3 and 0.2 (1/6 each) and 0.1 (1/12): 0.22. Lower left from 0.4, 0.1 (1/6) and 0.3 (1/12): 0.26.
    close(road_morf(asked([MAP], ROAD))[1][0], [0.22 + 0.3 + 0.2 + 0.1])
    close(road_morf(asked([MAP], ROAD))[0], [-0.18])
    close(road_lerf(asked([MAP], ROAD))[1][0], [0.4 + 0.3 + 0.26 + 0.1])
    close(road_lerf(asked([MAP], ROAD))[0], [0.06])
    close(road_combined(asked([MAP], ROAD)), [0.12])


def test_noise_is_the_same_for_every_method_of_a_case() -> None:
    first, second = road_morf(asked([MAP, MAP], {"perturb_noise": 0.3, "perturb_shares": [25, 50]}))[1]
    assert torch.equal(first, second)
    assert float(first[0]) != pytest.approx(0.82, abs=1e-4)


def test_coherency_and_its_company() -> None:
    # Deviations (.5, 0, -.5, 0) and (.5, -.5, -.5, .5): r = 0.5 / (sqrt(.5) * 1).
    cross, coherent = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), (1 + 0.5**0.5) / 2
    trial = asked([MAP], explainer=lambda images, units: [cross] * len(units))
    close(coherency(trial), [coherent])
    close(complexity(trial), [0.5])
    value, terms = adcc(trial)
    close(terms[0], [coherent, 0.5, 0.6])
    close(value, [3 / (1 / coherent + 1 / 0.5 + 1 / 0.6)])
    assert adcc_of_means(trial)[0] is None
    close(adcc_of_means(trial)[1][0], [coherent, 0.5, 0.6])
    value, terms = arcc(asked([MAP], ROAD, explainer=lambda images, units: [cross]))
    close(terms[0], [coherent, 0.5, 0.24])
    close(value, [3 / (1 / coherent + 1 / 0.5 + 1 / 0.24)])


def test_coherency_sees_the_image_under_the_map() -> None:
    seen = []

    def explainer(images: Tensor, units: Sequence[int]) -> list[Tensor]:
        seen.extend(images[:, 0].clone())
        return [images[n, 0] * 7 for n in range(len(images))]

    other = MAP.flip(0)
    found = coherency(asked([MAP, other], explainer=explainer))
    a, b = (torch.corrcoef(torch.stack([m.flatten(), (RED * m).flatten()]))[0, 1] for m in (MAP, other))
    close(found, [(1 + float(a)) / 2, (1 + float(b)) / 2])
    torch.testing.assert_close(seen, [RED * MAP, RED * other])


def test_constant_maps_correlate_with_nothing() -> None:
    trial = asked([MAP, torch.ones(2, 2)], explainer=lambda images, units: [torch.zeros(2, 2)] * len(units))
    close(coherency(trial), [0.5, torch.nan])
    assert trial.notes == {1: "a constant map correlates with nothing"}


def test_a_harmonic_mean_with_a_zero_is_zero() -> None:
    # ROAD finds the reverse of the map better, so the last term is cut to 0.
    worse = asked([1 - MAP], ROAD)
    assert float(road_combined(worse)) < 0
    close(arcc(worse)[0], [0.0])


def test_a_map_that_is_the_function_itself_has_no_infidelity() -> None:
    ones = torch.ones(2, 2)
    plain = {"rectify": "none", "normalize": "none", "perturb_scale": "none", "perturb_side": 0.5}
    close(infidelity(asked([ones], plain)), [0.0])
    # Twice the truth is wrong by the change itself: squares of one pixel take 0.4, 0.3, 0.2 or 0.1.
    value = float(infidelity(asked([2 * ones], {**plain, "perturb_samples": 4000})))
    assert value == pytest.approx((0.16 + 0.09 + 0.04 + 0.01) / 4, rel=0.05)
    close(infidelity(asked([2 * ones, -3 * ones], {**plain, "perturb_scale": "optimal"})), [0.0, 0.0])
    nothing = infidelity(asked([0 * ones], {**plain, "perturb_samples": 4000, "perturb_scale": "optimal"}))
    assert float(nothing) == pytest.approx(value)


def test_sensitivity_is_the_largest_move_over_draws() -> None:
    axes = {"normalize": "none", "perturb_nearby": 5, "perturb_radius": 0.1}
    trial = asked([RED], axes, explainer=lambda images, units: list(images[:, 0]))
    noise = torch.rand(5, 3, 2, 2, generator=trial.witness.generator("max_sensitivity", 0))
    moves = (0.1 * (2 * noise[:, 0] - 1)).flatten(1).norm(dim=1)
    close(max_sensitivity(trial), [float(moves.max() / RED.norm())])
    close(max_sensitivity(asked([MAP], axes)), [0.0])  # the same map whatever the image
    still = asked([torch.zeros(2, 2)], axes)
    assert max_sensitivity(still).isnan().all()
    assert still.notes == {0: "the map is 0 everywhere"}


def test_occlusion_ranks_places_as_the_map_should() -> None:
    axes = {"perturb_grid": 2, "perturb_patch": 0.5}  # patches of one pixel: falls of 0.4, 0.3, 0.2, 0.1
    maps = [RED, -RED, torch.tensor([[3.0, 4.0], [2.0, 1.0]]), torch.ones(2, 2)]
    trial = asked(maps, axes)
    # Ranks 4 3 2 1 against 3 4 2 1: 1 - 6 * (1 + 1) / (4 * 15).
    close(occlusion_rank_correlation(trial), [1.0, -1.0, 0.8, torch.nan])
    assert "same everywhere" in trial.notes[3]
    blind = asked([RED], axes, answer=lambda images: torch.ones(len(images), 2))
    assert occlusion_rank_correlation(blind).isnan().all()


def test_ties_share_their_mean_rank() -> None:
    # Map 2 1 0 1 (ranks 4 2.5 1 2.5), falls ranked 4 3 2 1: deviations (1.5 0 -1.5 0) and (1.5 .5 -.5 -1.5).
    found = occlusion_rank_correlation(asked([MAP], {"perturb_grid": 2, "perturb_patch": 0.5}))
    close(found, [(2.25 + 0.75) / (4.5**0.5 * 5**0.5)])


def test_patches_lie_round_their_cells_and_end_at_the_border() -> None:
    red, seen = torch.arange(1.0, 17).reshape(4, 4), []

    def answer(images: Tensor) -> Tensor:
        seen.extend((images[:, 0] == 0).float().sum((1, 2)).tolist())
        return red_sum(images)

    trial = asked([red], {"perturb_grid": 2, "perturb_patch": 0.75}, red=red, answer=answer)
    occlusion_rank_correlation(trial)
    assert sorted(set(seen)) == [0, 4, 6, 9]  # the image; three pixels a side, of which the border leaves two
