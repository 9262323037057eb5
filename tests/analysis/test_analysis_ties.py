"""Tie groups of a leaderboard: by hand, against `compare`'s own pairs, and that fewer permutations still suffice."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from gradcam_bench.analysis import ties as module
from gradcam_bench.analysis.paired import all_pairs
from gradcam_bench.analysis.ranks import letter, letters
from gradcam_bench.analysis.reductions import Cell, number
from gradcam_bench.analysis.ties import COLUMNS, judge, ties
from gradcam_bench.cells import Rows

IMAGES = 40
MEAN = {"reduce": "mean", "higher_is_better": True, "axes": {}}


def cell(values) -> Cell:
    names = np.array([f"{n:02d}" for n in range(len(values))])
    return Cell(np.asarray(values, float), None, np.array(["0"] * len(values)), names, {})


@pytest.fixture
def methods() -> dict[str, Cell]:
    """good and its twin are the same; near differs from good at random; bad is worse everywhere."""
    rng = np.random.default_rng(0)
    base = rng.random(IMAGES)
    noise = rng.normal(0, 0.3, IMAGES)
    near = base + noise - noise.mean() - 0.01
    return {"bad": cell(base - 0.5), "near": cell(near), "good": cell(base), "twin": cell(base)}


def test_letters_best_and_ties(methods: dict[str, Cell]) -> None:
    found = judge(methods, MEAN)
    assert {name: group for name, (group, *_) in found.items()} == {"good": "a", "twin": "a", "near": "a", "bad": "b"}
    assert {best for _, best, *_ in found.values()} == {"good"}
    assert found["twin"][2:4] == (1.0, True)
    assert found["good"][2:4] == (1.0, True)
    assert found["bad"][2] < 0.05
    assert not found["bad"][3]


def test_the_other_direction_has_another_best(methods: dict[str, Cell]) -> None:
    found = judge(methods, MEAN | {"higher_is_better": False})
    assert {best for _, best, *_ in found.values()} == {"bad"}
    assert [name for name, (*_, tied, _least) in found.items() if tied] == ["bad"]
    assert found["bad"][0] == "a"
    assert found["good"][0] == "b"


def test_it_is_what_compare_says(methods: dict[str, Cell]) -> None:
    values = {name: number(one, "mean") for name, one in methods.items()}
    ranked = sorted(methods, key=lambda name: -values[name])
    theirs = all_pairs({name: methods[name] for name in ranked}, "mean")
    ours = judge(methods, MEAN)
    for name in ranked[1:]:
        assert ours[name][2] == theirs[ranked[0], name][1]
    for a, b in combinations(ranked, 2):
        assert bool(set(ours[a][0]) & set(ours[b][0])) == (theirs[a, b][1] > 0.05)


def test_of_many_images_fewer_permutations_still_tell_apart(
    methods: dict[str, Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counted(a: Cell, b: Cell, reduce: str, count: int) -> float:
        asked.append(count)
        return 1 / (count + 1)

    monkeypatch.setattr(module, "permutation", counted)
    monkeypatch.setattr(module, "EFFORT", 1)
    found = judge(methods, MEAN)
    assert set(asked) == {240}  # 2 / 0.05 for each of six pairs
    assert sorted(group for group, *_ in found.values()) == ["a", "b", "c", "d"]


def test_a_table_for_what_ranks() -> None:
    rows = []
    for metric in ("ranked", "unranked"):
        for stage in ("trained", "cascade_down/01:fc"):
            for method, shift in (("one", 0.0), ("other", 0.5)):
                for n in range(IMAGES):
                    named = {"image_id": f"{n}", "case_id": f"{n}#3", "dataset": "d", "model": "m", "stage": stage}
                    value = (n % 7) / 10 + shift
                    rows.append(named | {"method": method, "metric": metric, "protocol": "p", "value": value})
    frame = pd.DataFrame(rows).assign(draw=0, problem=None, curve=None, view="v")
    cards = {metric: {"p": MEAN | {"higher_is_better": up}} for metric, up in (("ranked", True), ("unranked", None))}
    table = ties(Rows.of(frame), cards)
    assert list(table.columns) == COLUMNS
    assert table[["stage", "method", "metric", "group", "tied"]].to_numpy().tolist() == [
        ["trained", "one", "ranked", "b", False],
        ["trained", "other", "ranked", "a", True],
    ]


@pytest.mark.parametrize(("images", "least"), [(4, 3 / 8), (6, 3 / 32), (9, 3 / 256)])
def test_the_least_p_is_reached_by_methods_as_far_apart_as_can_be(images: int, least: float) -> None:
    """Of 2^n exchanges two are as far apart as the data: none exchanged, and all. Three pairs, corrected."""
    steps = {name: cell([shift + n / 100 for n in range(images)]) for name, shift in (("a", 0), ("b", 10), ("c", 30))}
    found = judge(steps, MEAN, 20_000)
    assert {one[4] for one in found.values()} == {least}
    assert found["a"][2] == pytest.approx(least, rel=0.15)


def test_letters() -> None:
    assert [letter(n) for n in (0, 25, 26)] == ["a", "z", "(26)"]
    assert letters([("x", "y"), ("y", "z")]) == {"x": "a", "y": "ab", "z": "b"}
