"""Rank stability by hand and against scipy's tau."""

import numpy as np
import pytest
from scipy import stats

from gradcam_bench.analysis.stability import ranks_of, stability, taus


def test_ranks_by_hand() -> None:
    assert ranks_of(np.array([[0.3, 0.9, 0.3]])).tolist() == [[2.5, 1, 2.5]]


@pytest.mark.parametrize("seed", range(4))
def test_tau_equals_scipy_s(seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 4, (6, 7)).astype(float)  # with ties
    found = taus(values)
    for i in range(6):
        for j in range(6):
            assert found[i, j] == pytest.approx(stats.kendalltau(values[i], values[j]).statistic)


def test_protocols_that_tell_nothing_apart() -> None:
    found = taus(np.array([[1.0, 1, 1], [2.0, 2, 2], [1, 2, 3]]))
    assert found.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_a_small_multiverse_by_hand() -> None:
    """One choice turns the order round, the other changes nothing."""
    protocols = [{"turns": t, "idle": i} for t in (0, 1) for i in (0, 1)]
    values = np.array([[3.0, 2, 1], [3.1, 2.1, 1.1], [1, 2, 3], [1.1, 2.1, 3.1]])
    found = stability(values, ["a", "b", "c"], protocols)
    assert found.tau == pytest.approx((1 + 1 - 4) / 6)
    assert found.smallest == -1
    assert found.choices["choice"].tolist() == ["turns", "idle"]
    assert found.choices["tau"].tolist() == pytest.approx([-1, 1])
    assert found.choices["pairs"].tolist() == [2, 2]
    table = found.methods.set_index("method")
    assert table.loc["a", ["best_rank", "worst_rank", "first"]].tolist() == [1, 3, 0.5]
    assert table.loc["b", ["best_rank", "worst_rank", "first"]].tolist() == [2, 2, 0]


def test_the_first_place_is_shared() -> None:
    found = stability(np.array([[1.0, 1.0, 0]]), ["a", "b", "c"], [{"x": 0}])
    assert found.methods.set_index("method")["first"].to_dict() == {"a": 0.5, "b": 0.5, "c": 0}
    assert len(found.choices) == 0
    with pytest.raises(ValueError, match="no number"):
        stability(np.array([[1.0, np.nan]]), ["a", "b"], [{"x": 0}])
