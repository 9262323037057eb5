"""Who contributed how much to what several choices changed together: Shapley 1953."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

EXACT = 7  # players up to which all their orders are weighed, 2^7 coalitions
ORDERS = 24  # drawn beyond that, each with its reverse

Coalition = frozenset[str]


def shapley(players: Sequence[str], value: Callable[[Coalition], float], seed: int = 0) -> dict[str, float]:
    """Each player's mean contribution to `value` over all orders in which the players may join, in the unit of value.

    The contributions add up to value(all) - value(none). Up to EXACT players exactly; beyond that over ORDERS random
    orders and their reverses (Mitchell et al. 2022, antithetic sampling), which add up to it too.
    """
    worth = cache(value)
    shares = dict.fromkeys(players, 0.0)
    orders = _orders(players, seed)
    if orders is None:
        return {player: _exactly(player, players, worth) for player in players}
    for order in orders:
        before: Coalition = frozenset()
        for player in order:
            after = before | {player}
            shares[player] += (worth(after) - worth(before)) / len(orders)
            before = after
    return shares


def coalitions(players: Sequence[str], seed: int = 0) -> list[Coalition]:
    """Every coalition whose value `shapley` asks for."""
    orders = _orders(players, seed)
    if orders is None:
        return [frozenset(some) for size in range(len(players) + 1) for some in itertools.combinations(players, size)]
    return list(dict.fromkeys(frozenset(order[:size]) for order in orders for size in range(len(order) + 1)))


def _exactly(player: str, players: Sequence[str], worth: Callable[[Coalition], float]) -> float:
    others, total = [one for one in players if one != player], 0.0
    for size in range(len(others) + 1):
        gains = [
            worth(frozenset((*some, player))) - worth(frozenset(some)) for some in itertools.combinations(others, size)
        ]
        total += float(np.mean(gains)) / len(players)
    return total


def _orders(players: Sequence[str], seed: int) -> list[tuple[str, ...]] | None:
    if len(players) <= EXACT:
        return None
    rng = np.random.default_rng(seed)
    drawn = [tuple(players[n] for n in rng.permutation(len(players))) for _ in range(ORDERS)]
    return [order for one in drawn for order in (one, one[::-1])]
