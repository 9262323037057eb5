"""Which methods of a run cannot be told apart, for its leaderboard: `compare`'s test on every pair of every column."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from gradcam_bench.analysis.contest import ALPHA
from gradcam_bench.analysis.exchange import PERMUTATIONS, permutation
from gradcam_bench.analysis.paired import holm, matched
from gradcam_bench.analysis.ranks import letters, tie_groups
from gradcam_bench.analysis.reductions import Cell, number
from gradcam_bench.analysis.summary import KEYS, Cards, Key, groups
from gradcam_bench.cells import Rows

COLUMNS = [*KEYS, "group", "best", "p_best", "tied", "p_least"]
EFFORT = 10**9  # images exchanged in a column: beyond that its pairs get fewer permutations
ENOUGH = 2 / ALPHA  # permutations a pair at least, so that the smallest p survives the correction for their number


def ties(rows: Rows, cards: Cards, permutations: int = PERMUTATIONS) -> pd.DataFrame:
    """A line for each method under each protocol that ranks, COLUMNS. group: letters; methods that share one cannot be
    told apart at the 5 % level by the permutation test of paired images, Holm's correction over the pairs of the
    column. best: the method of the best number, p_best: corrected p of the difference from it, tied: not told apart
    from it (the best is tied with itself). p_least: the smallest corrected p that so few images can give; above 0.05 no
    two methods can be told apart, whatever their numbers. Stages of random weights are left out."""
    setting = [KEYS.index(name) for name in ("dataset", "model", "stage")]
    lines = []
    for group in groups(rows, cards):
        columns: dict[tuple[str, ...], dict[Key, Cell]] = {}
        for key, (cell, card) in group.items():
            if card["higher_is_better"] is not None and "/" not in key[KEYS.index("stage")]:
                columns.setdefault(tuple(key[n] for n in setting), {})[key] = cell
        for column in columns.values():
            judged = judge({key[KEYS.index("method")]: cell for key, cell in column.items()}, card, permutations)
            lines += [(*key, *judged[key[KEYS.index("method")]]) for key in column]
    return pd.DataFrame(lines, columns=COLUMNS)


def judge(
    methods: Mapping[str, Cell], card: Mapping[str, object], permutations: int = PERMUTATIONS
) -> dict[str, tuple[str, str, float, bool, float]]:
    """(group, best, p_best, tied, p_least) of each method of one column."""
    reduce = str(card["reduce"])
    sign = 1.0 if card["higher_is_better"] is False else -1.0
    values = {name: number(cell, reduce) for name, cell in methods.items()}
    ordered = sorted(values, key=lambda name: sign * values[name])
    pairs = list(combinations(ordered, 2))
    images = max(len(cell.images) for cell in methods.values())
    count = int(min(permutations, max(EFFORT / (images * max(len(pairs), 1)), ENOUGH * len(pairs))))
    corrected = dict(zip(pairs, holm([_p(methods[a], methods[b], reduce, count) for a, b in pairs]), strict=True))
    tied = tie_groups(ordered, [pair for pair, p in corrected.items() if p <= ALPHA])
    best = ordered[0]
    p_best = {name: corrected.get((best, name), 1.0) for name in ordered}
    group = letters(tied)
    fewest = min(len(np.unique(cell.images)) for cell in methods.values())
    least = min(1.0, len(pairs) * max(2.0 ** (1 - fewest), 1 / (count + 1)))  # all exchanged, or none, of 2^images
    return {name: (group[name], best, p_best[name], not p_best[name] <= ALPHA, least) for name in ordered}


def _p(a: Cell, b: Cell, reduce: str, permutations: int) -> float:
    mine, theirs = matched(a, b)
    return permutation(mine, theirs, reduce, permutations) if len(mine.images) else float("nan")
