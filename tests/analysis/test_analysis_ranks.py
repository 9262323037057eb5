"""Groups of ties by hand and by listing all subsets; Friedman and Nemenyi by the textbook's example."""

import itertools

import numpy as np
import pytest

from gradcam_bench.analysis.ranks import friedman, tie_groups


def test_groups_by_hand() -> None:
    assert tie_groups("abc", []) == [("a", "b", "c")]
    assert tie_groups("abc", [("a", "c")]) == [("a", "b"), ("b", "c")]
    assert tie_groups("abc", [("c", "a"), ("a", "b"), ("b", "c")]) == [("a",), ("b",), ("c",)]
    assert tie_groups("abcd", [("a", "b"), ("a", "c"), ("a", "d")]) == [("a",), ("b", "c", "d")]
    assert tie_groups("a", []) == [("a",)]


@pytest.mark.parametrize("seed", range(8))
def test_groups_equal_all_maximal_subsets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = "abcdef"
    apart = [pair for pair in itertools.combinations(names, 2) if rng.random() < 0.4]
    tied = [
        set(some)
        for size in range(1, 7)
        for some in itertools.combinations(names, size)
        if not any(set(pair) <= set(some) for pair in apart)
    ]
    largest = {tuple(sorted(one)) for one in tied if not any(one < other for other in tied)}
    assert set(tie_groups(names, apart)) == largest


def test_friedman_by_hand() -> None:
    """Three methods, four cases: ranks 1 2 3 in three of them, 2 1 3 in one."""
    values = np.array([[3.0, 2, 1], [9, 5, 2], [4, 3, 0], [1, 2, 0]])
    found = friedman(values, higher_is_better=True)
    assert found.ranks.tolist() == [1.25, 1.75, 3.0]
    # 12 n / (k (k + 1)) (sum of squared mean ranks - k (k + 1)^2 / 4)
    assert found.statistic == pytest.approx(12 * 4 / 12 * (1.25**2 + 1.75**2 + 9 - 12))
    assert friedman(-values, higher_is_better=False).ranks.tolist() == [1.25, 1.75, 3.0]


def test_the_critical_difference_is_the_table_s() -> None:
    """Demsar 2006, table 5 (a): q of 2.343 for 3 classifiers, 2.569 for 4, 2.728 for 5, 3.164 for 10."""
    rng = np.random.default_rng(0)
    for k, q in ((3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)):
        found = friedman(rng.random((14, k)), True)
        assert found.critical == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 14)), abs=2e-3)


def test_equal_values_share_a_rank_and_two_methods_are_too_few() -> None:
    found = friedman(np.ones((5, 3)), True)
    assert found.ranks.tolist() == [2, 2, 2]
    assert found.p == 1
    with pytest.raises(ValueError, match="at least three"):
        friedman(np.ones((5, 2)), True)
