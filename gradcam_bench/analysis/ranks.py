"""Several methods at once: which can be told apart, and who comes first how often."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from gradcam_bench.analysis.reductions import Floats


def tie_groups(ordered: Sequence[str], apart: Collection[tuple[str, str]]) -> list[tuple[str, ...]]:
    """The largest groups of methods no two of which are told apart (pairs in `apart`, in either order), each in the
    given order, best first: the letters of a compact letter display (Piepho 2004). Every method is in at least one."""
    different = {frozenset(pair) for pair in apart}
    groups: list[set[str]] = [set(ordered)]
    for pair in combinations(ordered, 2):
        if frozenset(pair) not in different:
            continue
        for group in [one for one in groups if set(pair) <= one]:
            groups.remove(group)
            groups += [group - {pair[0]}, group - {pair[1]}]
        groups = [one for one in groups if not any(one < other for other in groups)]
        groups = [one for n, one in enumerate(groups) if one not in groups[:n]]
    place = {name: n for n, name in enumerate(ordered)}
    sorted_groups = [tuple(sorted(group, key=place.__getitem__)) for group in groups]
    return sorted(sorted_groups, key=lambda group: [place[name] for name in group])


def letters(groups: Sequence[Collection[str]]) -> dict[str, str]:
    """Each method with the letters of the groups that it is in; methods that share one cannot be told apart."""
    names = dict.fromkeys(name for group in groups for name in group)
    return {name: "".join(letter(n) for n, group in enumerate(groups) if name in group) for name in names}


def letter(place: int) -> str:
    """The letter of a group: a to z, then (26), (27) ..."""
    return "abcdefghijklmnopqrstuvwxyz"[place] if place < 26 else f"({place})"


@dataclass(frozen=True)
class Friedman:
    """ranks [k]: each method's mean rank over the n cases, 1 the best (equal values share theirs). statistic, p: of
    Friedman 1937, that all are the same. critical: mean ranks further apart differ at the 5 % level (Nemenyi 1963)."""

    ranks: Floats
    statistic: float
    p: float
    critical: float
    n: int


def friedman(values: Floats, higher_is_better: bool, alpha: float = 0.05) -> Friedman:
    """Of values [n,k] of k methods on the same n cases. Demsar 2006, sec. 3.2.2. Raises ValueError below k = 3."""
    n, k = values.shape
    if k < 3:
        raise ValueError("Friedman's test compares at least three")
    ranks = stats.rankdata(-values if higher_is_better else values, axis=1)
    same = not np.ptp(values, axis=1).any()
    statistic, p = (0.0, 1.0) if same else stats.friedmanchisquare(*values.T)
    critical = float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n))
    return Friedman(ranks.mean(0), float(statistic), float(p), float(critical), n)
