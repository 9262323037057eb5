"""How far a ranking of methods depends on choices that a paper may make either way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from gradcam_bench.analysis.reductions import Floats


@dataclass(frozen=True)
class Stability:
    """Of P protocols that rank k methods. methods: per method its median, best and worst rank and the share of
    protocols in which it comes first (ties share a rank, and the first place). tau: Kendall's tau-b of two protocols,
    mean and smallest over all pairs. choices: per choice the mean tau of two protocols that differ in it alone, lowest
    first: the choice that matters most."""

    methods: pd.DataFrame
    tau: float
    smallest: float
    choices: pd.DataFrame


def ranks_of(values: Floats) -> Floats:
    """Ranks [P,k] of values [P,k] of which higher is better: 1 the best, ties share their mean rank."""
    return np.asarray(stats.rankdata(-values, axis=1))


def stability(values: Floats, methods: Sequence[str], protocols: Sequence[Mapping[str, Any]]) -> Stability:
    """values [P,k] (higher is better) of each method under each protocol (its choices). Raises ValueError where a value
    is missing."""
    if not np.isfinite(values).all():
        raise ValueError("a method has no number under some protocol")
    ranks = ranks_of(values)
    first = ranks == ranks.min(1, keepdims=True)
    table = pd.DataFrame(
        {
            "method": list(methods),
            "median_rank": np.median(ranks, axis=0),
            "best_rank": ranks.min(0),
            "worst_rank": ranks.max(0),
            "first": (first / first.sum(1, keepdims=True)).mean(0),
        }
    ).sort_values("median_rank", kind="stable", ignore_index=True)
    agreement = taus(values)
    pairs = agreement[np.triu_indices(len(values), 1)]
    rows = []
    for name in protocols[0]:
        others = pd.Series([str(sorted((k, str(v)) for k, v in one.items() if k != name)) for one in protocols])
        alone = [
            agreement[i, j]
            for group in others.groupby(others).indices.values()
            for n, i in enumerate(group)
            for j in group[n + 1 :]
        ]
        if alone:
            rows.append((name, float(np.mean(alone)), float(np.min(alone)), len(alone)))
    choices = pd.DataFrame(rows, columns=["choice", "tau", "smallest_tau", "pairs"])
    mean, smallest = (float(pairs.mean()), float(pairs.min())) if len(pairs) else (1.0, 1.0)
    return Stability(table, mean, smallest, choices.sort_values("tau", kind="stable", ignore_index=True))


def taus(values: Floats) -> Floats:
    """[P,P]: Kendall's tau-b between the orders in which any two protocols put the methods, values [P,k]. 1 where both
    tie all methods, 0 where one of them does."""
    first, second = np.triu_indices(values.shape[1], 1)
    signs = np.sign(values[:, first] - values[:, second])  # [P,pairs]
    untied = (signs != 0).sum(1).astype(float)
    scale = np.sqrt(np.outer(untied, untied))
    found = np.divide(signs @ signs.T, scale, out=np.zeros_like(scale), where=scale > 0)
    nothing = untied == 0
    found[np.ix_(nothing, nothing)] = 1.0
    return np.asarray(found)
