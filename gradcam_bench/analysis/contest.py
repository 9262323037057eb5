"""A contest: the methods or runs that one protocol scored, pair by pair, told apart or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradcam_bench.analysis.paired import Difference
from gradcam_bench.analysis.ranks import letters, tie_groups

ALPHA = 0.05


@dataclass(frozen=True)
class Contest:
    """The pairs of one protocol in one stratum of cases, their p-values corrected together. values: each contestant's
    number on its own cases. pairs: (a, b) -> (difference, corrected p)."""

    metric: str
    protocol: str
    stratum: str
    higher_is_better: bool | None
    values: Mapping[str, float]
    pairs: Mapping[tuple[str, str], tuple[Difference, float]]

    def better(self, pair: tuple[str, str]) -> str:
        """Which of the two is better, `=` where they cannot be told apart, empty where the metric does not rank."""
        found, corrected = self.pairs[pair]
        if self.higher_is_better is None:
            return ""
        if not corrected <= ALPHA:
            return "="
        return pair[0] if (found.difference > 0) == self.higher_is_better else pair[1]

    @property
    def ranked(self) -> list[str]:
        """The contestants, best first (as they come where the metric does not rank)."""
        sign = {True: -1.0, False: 1.0, None: 0.0}[self.higher_is_better]
        return sorted(self.values, key=lambda name: sign * self.values[name])

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """The contestants in groups that cannot be told apart."""
        return tie_groups(self.ranked, [pair for pair, (_, p) in self.pairs.items() if p <= ALPHA])

    @property
    def letters(self) -> dict[str, str]:
        """The contestants, best first, each with the letters of its groups; none unless all are compared with all."""
        if len(self.pairs) != len(self.values) * (len(self.values) - 1) / 2:
            return {}
        found = letters(self.groups)
        return {name: found[name] for name in self.ranked}
