"""Seeds by hand: who wins a pixel, what the background takes, SEC's cues."""

import numpy as np
import pytest
import torch

from gradcam_bench.regions.seeds import CUE_SIDE, UNKNOWN, at_level, compare, contest, count, cues, painted, sweep

MAPS = torch.tensor([[[0.9, 0.2, 0.15, 0.0]], [[0.5, 0.2, 0.1, 0.3]]])  # two classes on four pixels


def test_the_highest_map_wins_and_of_equals_the_first() -> None:
    winner, value = contest(MAPS)
    assert winner.tolist() == [[0, 0, 0, 1]]
    assert value.tolist() == torch.tensor([[0.9, 0.2, 0.15, 0.3]]).tolist()
    assert contest(MAPS.flip(0))[0].tolist() == [[1, 0, 1, 0]]


def test_ties_go_to_the_background() -> None:
    assert at_level(MAPS, 0.15).tolist() == [[1, 1, 0, 2]]  # .15 in float32 is not above .15 in float32
    assert at_level(MAPS, 0.14).tolist() == [[1, 1, 1, 2]]
    assert at_level(MAPS, 0.3).tolist() == [[1, 0, 0, 0]]
    assert at_level(torch.zeros(2, 1, 2), 0.0).tolist() == [[0, 0]]


def test_the_sweep_is_every_level_at_once() -> None:
    levels = torch.tensor([0.0, 0.15, 0.2, 0.5])
    winner, value = contest(MAPS)
    stays = sweep(value, levels)
    assert stays.tolist() == [[4, 2, 1, 3]]
    for number, level in enumerate(levels.tolist()):
        swept = torch.where(stays > number, winner + 1, 0)
        assert swept.tolist() == at_level(MAPS, level).tolist()


def test_counts_by_hand() -> None:
    winner, value = contest(MAPS)
    stays = sweep(value, torch.tensor([0.1, 0.25]))
    # At .1 the labels are 1 1 1 2, at .25 they are 1 0 0 2; the truth is 1, background, another class, 2.
    found = count(torch.tensor([[1, 0, 3, 2]]), winner, stays, 2, 2)
    assert found[0].tolist() == [[0, 1], [0, 1], [1, 0]]  # background: at .25 one right, one (of the other class) wrong
    assert found[1].tolist() == [[1, 1], [2, 0], [0, 0]]
    assert found[2].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert count(torch.full((1, 4), 4), winner, stays, 2, 2).abs().sum() == 0  # 4 = Q + 2: what does not count


def test_one_label_map_is_counted_as_the_sweep_does() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, truth = torch.rand(3, 9, 7, generator=generator), torch.randint(6, (9, 7), generator=generator)
    winner, value = contest(maps)
    swept = count(truth, winner, sweep(value, torch.tensor([0.7])), 3, 1)
    held = torch.nn.functional.one_hot(truth.flatten(), 6)[:, :5].double()
    assert torch.equal(compare(held, at_level(maps, 0.7).flatten()), swept)


def test_what_nobody_holds_is_missed_and_no_mistake() -> None:
    held = torch.tensor([[2.0, 0, 1], [0, 3, 0], [0, 5, 0]])  # three cells: background, class, another class
    found = compare(held, torch.tensor([0, 1, UNKNOWN]))
    assert found[:, :, 0].tolist() == [[2, 1, 0], [3, 0, 5]]


def cells(values: dict[tuple[int, int], float], floor: float = 0.0) -> torch.Tensor:
    made = torch.full((CUE_SIDE, CUE_SIDE), floor)
    for place, value in values.items():
        made[place] = value
    return made


def test_cues_by_hand() -> None:
    large, small = cells({}), cells({})
    large[10:30, 10:30] = 1.0
    large[0, 0] = 0.2  # exactly a fifth of the maximum: not above it
    small[20:24, 20:40] = 0.5  # the maximum of its own map
    saliency = torch.ones(CUE_SIDE, CUE_SIDE)
    saliency[35:, :] = 0.0  # 6 of 41 rows, more than a tenth: none is below the tenth's own value
    found = cues(torch.stack([large, small]), saliency)
    assert (found[20:24, 20:40] == 2).all()  # the smaller of two claims, whatever the values
    assert (found[10:20, 10:30] == 1).all()
    assert int((found == 1).sum()) == 400 - 40
    assert int((found == 0).sum()) == 0
    saliency[35:, :] = torch.arange(6 * CUE_SIDE).reshape(6, CUE_SIDE) / 1000
    found = cues(torch.stack([large, small]), saliency)
    assert 100 < int((found == 0).sum()) <= int(0.1 * CUE_SIDE**2)
    assert not (found[:35] == 0).any()
    assert int((found == UNKNOWN).sum()) == CUE_SIDE**2 - 400 - 40 - int((found == 0).sum())


def test_cues_equal_a_slow_median_and_a_slow_conflict_rule() -> None:
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(3, CUE_SIDE, CUE_SIDE, generator=generator)
    saliency = torch.randn(CUE_SIDE, CUE_SIDE, generator=generator)
    padded = np.pad(saliency.numpy(), 1, mode="symmetric")
    calm = np.array(
        [[np.median(padded[y : y + 3, x : x + 3]) for x in range(CUE_SIDE)] for y in range(CUE_SIDE)], np.float32
    )
    limit = sorted(calm.ravel())[168]  # a tenth of 1681
    holds = [one > 0.2 * one.max() for one in maps.numpy()]
    found = cues(maps, saliency).numpy()
    for y in range(CUE_SIDE):
        for x in range(CUE_SIDE):
            claims = [(int(holds[q].sum()), q) for q in range(3) if holds[q][y, x]]
            expected = min(claims)[1] + 1 if claims else 0 if calm[y, x] < limit else UNKNOWN
            assert found[y, x] == expected


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_map_nowhere_positive_holds_nothing(value: float) -> None:
    flat = torch.full((1, 5, 5), value)
    assert (cues(flat, flat[0]) == UNKNOWN).all()


def test_labels_are_painted_with_their_classes() -> None:
    labels = torch.tensor([[0, 1, 2, UNKNOWN]], dtype=torch.uint8)
    assert painted(labels, [7, 14]).tolist() == [[0, 8, 15, UNKNOWN]]
