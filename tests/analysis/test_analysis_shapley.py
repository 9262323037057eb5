"""Shapley values by hand, by all orders, and that they add up."""

import itertools

import numpy as np
import pytest

from gradcam_bench.analysis.shapley import EXACT, coalitions, shapley


def test_the_glove_game_by_hand() -> None:
    """One left glove, two right ones, a pair is worth 1: 2/3, 1/6, 1/6."""
    worth = lambda who: float("left" in who and len(who) > 1)  # noqa: E731
    assert shapley(["left", "r1", "r2"], worth) == pytest.approx({"left": 2 / 3, "r1": 1 / 6, "r2": 1 / 6})


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_all_orders_by_a_plain_loop(count: int) -> None:
    players = [f"p{n}" for n in range(count)]
    rng = np.random.default_rng(count)
    table = {frozenset(s): rng.normal() for k in range(count + 1) for s in itertools.combinations(players, k)}
    expected = dict.fromkeys(players, 0.0)
    orders = list(itertools.permutations(players))
    for order in orders:
        for place, player in enumerate(order):
            expected[player] += (table[frozenset(order[: place + 1])] - table[frozenset(order[:place])]) / len(orders)
    found = shapley(players, table.__getitem__)
    assert found == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(table[frozenset(players)] - table[frozenset()])
    assert set(coalitions(players)) == set(table)


def test_many_players_are_sampled_and_still_add_up() -> None:
    players = [f"p{n}" for n in range(EXACT + 3)]
    rng = np.random.default_rng(0)
    alone = dict(zip(players, rng.normal(size=len(players)), strict=True))
    asked = set()

    def worth(who: frozenset) -> float:
        asked.add(who)
        together = 0.5 * ("p0" in who and "p1" in who)
        return sum(alone[player] for player in sorted(who)) + together

    found = shapley(players, worth)
    assert sum(found.values()) == pytest.approx(sum(alone.values()) + 0.5)
    assert [found[p] for p in players[2:]] == pytest.approx([alone[p] for p in players[2:]])  # additive players exactly
    assert found["p0"] == pytest.approx(alone["p0"] + 0.25)  # an order and its reverse: each is the later one once
    assert asked == set(coalitions(players))


def test_nobody() -> None:
    assert shapley([], lambda who: 3.0) == {}
