"""Where mass lies, by hand, by obvious second implementations, and on what others get wrong."""

import numpy as np
import pytest
import torch
from drawn_trials import drawn, trial

from gradcam_bench.analysis.reductions import Cell, number
from gradcam_bench.metrics.mass import (
    grid_pointing_game,
    inside_outside_ratio,
    inside_outside_ratio_of_means,
    mass_accuracy,
    rank_accuracy,
    weighting_game,
)

PLAIN = {"frame": "input", "normalize": "none"}
CORNER = [(0, (0, 0, 2, 1), False)]  # the first two pixels
WHOLE = [(0, (0, 0, 3, 2), False)]
OTHER = [(1, (0, 0, 2, 1), False)]


def masked(mask: torch.Tensor) -> dict:
    return {"masks": mask[None], "mask_labels": torch.tensor([0])}


def test_mass_accuracy_by_hand() -> None:
    maps = [drawn("12.", "..7"), drawn("...", "..7"), torch.zeros(2, 3), torch.full((2, 3), 0.5), -drawn("12.", "..7")]
    found = mass_accuracy(trial(maps, CORNER, PLAIN))
    assert found.tolist() == pytest.approx([0.3, 0, 0, 2 / 6, 0])
    signed = torch.tensor([[0.3, -5.0, 0.0], [0.0, 0.1, -9.0]])  # negative values carry nothing
    assert mass_accuracy(trial([signed], CORNER, PLAIN)).item() == pytest.approx(0.75)
    mask = drawn("#..", "..#") > 0
    assert mass_accuracy(trial(maps[:1], protocol=PLAIN | {"region": "mask"}, **masked(mask))).item() == pytest.approx(
        0.8
    )


def test_rank_accuracy_by_hand() -> None:
    maps = [drawn("98.", ".12"), drawn("9.8", ".12"), drawn("..8", "9.2")]
    assert rank_accuracy(trial(maps, CORNER, PLAIN)).tolist() == [1, 0.5, 0]


def test_ties_are_shared_out_and_a_constant_map_has_chance() -> None:
    # K = 2: the 9 is sure; of the three 5 one is taken, one of them is the object's
    assert rank_accuracy(trial([drawn("5.9", "5.5")], CORNER, PLAIN)).item() == pytest.approx((1 / 3) / 2)
    assert rank_accuracy(trial([torch.ones(2, 3)], CORNER, PLAIN)).item() == pytest.approx(2 / 6)
    assert rank_accuracy(trial([torch.zeros(2, 3)], CORNER, PLAIN)).item() == pytest.approx(2 / 6)
    whole = [(0, (0, 0, 3, 2), False)]
    assert rank_accuracy(trial([drawn("5.9", "5.5")], whole, PLAIN)).item() == 1


@pytest.mark.parametrize("seed", range(4))
def test_rank_accuracy_is_the_mean_over_orders_of_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heatmap, mask = rng.integers(0, 5, (6, 7)).astype(np.float32), rng.random((6, 7)) < 0.4
    made = trial([torch.from_numpy(heatmap)], protocol=PLAIN | {"region": "mask"}, **masked(torch.from_numpy(mask)))
    shares = []
    for _ in range(4000):
        order = np.lexsort((rng.random(42), -heatmap.ravel()))[: mask.sum()]
        shares.append(mask.ravel()[order].mean())
    assert rank_accuracy(made).item() == pytest.approx(np.mean(shares), abs=4 * np.std(shares) / np.sqrt(4000) + 1e-6)


def test_inside_over_outside_by_hand() -> None:
    made = trial([drawn("84.", ".12"), torch.full((2, 3), 0.4)], CORNER, PLAIN)
    assert inside_outside_ratio(made).tolist() == pytest.approx([0.6 / (0.3 / 4), 1])


def test_a_ratio_to_nothing_is_no_number() -> None:
    made = trial([drawn("84.", "..."), torch.zeros(2, 3)], CORNER, PLAIN)
    assert inside_outside_ratio(made).isnan().all()
    assert set(made.notes.values()) == {"nothing outside of the boxes"}
    whole = trial([drawn("84.", "12.")], [(0, (0, 0, 3, 2), False)], PLAIN)
    assert inside_outside_ratio(whole).isnan().all()
    none = trial([drawn("84.", "12.")], [(1, (0, 0, 3, 2), False)], PLAIN)
    assert inside_outside_ratio(none).isnan().all()
    assert none.notes == {0: "no box of the class"}


def test_the_ratio_of_means_is_of_all_maps_together() -> None:
    made = trial([drawn("84.", ".12"), drawn("84.", "..."), torch.zeros(2, 3)], CORNER, PLAIN)
    values, curve = inside_outside_ratio_of_means(made)
    assert values is None
    assert curve.tolist() == [pytest.approx(row) for row in ([0.6, 0.3 / 4], [0.6, 0], [0, 0])]
    cell = Cell(np.full(3, np.nan), curve.numpy(), np.zeros(3), np.arange(3), {})
    assert number(cell, "ratio") == pytest.approx(1.2 / (0.3 / 4))
    for boxes, note in ((WHOLE, "nothing outside of the boxes"), (OTHER, "no box of the class")):
        refused = trial([drawn("84.", "12.")], boxes, PLAIN)
        assert inside_outside_ratio_of_means(refused)[1].isnan().all()
        assert refused.notes == {0: note}


def test_the_weighting_game_wants_masks_of_more_than_100_pixels() -> None:
    heatmap = torch.ones(20, 20)
    for side, expected in ((10, None), (11, 110 / 400)):
        mask = torch.zeros(20, 20, dtype=torch.bool)
        mask[:10, :side] = True
        made = trial([heatmap], [(0, (0, 0, 20, 20), False)], PLAIN, **masked(mask))
        found = weighting_game(made)
        if expected is None:
            assert found.isnan().all()
            assert made.notes == {0: "the object covers no more than 100 pixels"}
        else:
            assert found.item() == pytest.approx(expected)
    assert weighting_game(trial([heatmap], [(0, (0, 0, 20, 20), False)], PLAIN)).isnan().all()


def test_grid_pointing_game_by_hand() -> None:
    cells = [(n, (2.0 * (n % 2), 2.0 * (n // 2), 2.0 * (n % 2) + 2, 2.0 * (n // 2) + 2), False) for n in range(4)]
    heatmap = torch.tensor([[1.0, 0, 2, 0], [0, 0, 0, 0], [0, 3, -9, 0], [0, 0, 0, 4]])
    found = grid_pointing_game(trial([heatmap] * 4, cells, PLAIN, classes=[0, 1, 2, 3]))
    assert found.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    faint = [torch.full((4, 4), 1e-9), torch.full((4, 4), 1e-7), -heatmap.abs()]
    assert grid_pointing_game(trial(faint, cells, PLAIN)).tolist() == pytest.approx([0, 0.25, 0])
