"""compare: on runs of controls, which take no network and a second."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradcam_bench.cli import main
from gradcam_bench.finished import differing, open_runs

CHOICES = ["model=none", "method=[center,noise]", "workers=0", "limit=20"]
METRICS = ["metric=[pointing_game,energy_pointing_game,max_box_acc]", "preset=[default,wsol_2020_v1]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `one` and `two`, which differ in their seed, and `other`, in a choice of one protocol."""
    results = tmp_path_factory.mktemp("results")
    for name, more in (("one", []), ("two", ["seed=1"]), ("other", ["protocol.tolerance=0"])):
        assert main(["run", *CHOICES, *METRICS, f"results={results}", f"name={name}", *more]) == 0
    return results / "run"


def compared(folder: Path, out: Path, *names: str, flags: tuple[str, ...] = ()) -> pd.DataFrame:
    assert main(["compare", *(str(folder / name) for name in names), "--out", str(out), *flags]) == 0
    return pd.read_csv(out / "compare.csv")


def test_one_run_compares_its_methods(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table = compared(folder, tmp_path, "one")
    assert {frozenset(pair) for pair in table[["a", "b"]].to_numpy().tolist()} == {frozenset({"center", "noise"})}
    assert (table["difference"] >= 0).all()  # the better one first
    assert set(table["metric"]) == {"pointing_game", "energy_pointing_game", "max_box_acc"}
    summary = pd.read_csv(folder / "one" / "summary.csv").set_index(["metric", "protocol", "method"])["value"]
    for row in table.itertuples():
        for name, value in ((row.a, row.value_a), (row.b, row.value_b)):
            assert value == pytest.approx(summary[row.metric, row.protocol, name])
        assert row.difference == pytest.approx(row.value_a - row.value_b)
        assert row.low <= row.difference <= row.high
        assert row.p_holm == row.p  # one pair a protocol
    shown = capsys.readouterr().out
    assert "share a letter" in shown
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {f"compare.{end}" for end in ("csv", "md", "tex", "html", "svg", "png", "pdf")}


def test_a_mean_s_p_is_that_of_exchanging_signs(folder: Path, tmp_path: Path) -> None:
    row = compared(folder, tmp_path, "one", flags=("--metrics", "energy_pointing_game")).iloc[0]
    (run,) = open_runs([str(folder / "one")])
    cells = run.cells("energy_pointing_game", "default")
    by_image = {name: pd.Series(cell.values).groupby(cell.images).agg(["sum", "size"]) for name, cell in cells.items()}
    gaps = (by_image["center"]["sum"] - by_image["noise"]["sum"]).to_numpy()
    rng = np.random.default_rng(0)
    drawn = np.abs((rng.choice([-1, 1], (20_000, len(gaps))) * gaps).sum(1))
    assert row.p == pytest.approx((drawn >= abs(gaps.sum()) - 1e-9).mean(), abs=0.01)


def test_two_runs_compare_each_method_with_itself(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table = compared(folder, tmp_path, "one", "two").set_index(["metric", "a"])
    assert set(table["b"]) == {"center [two]", "noise [two]"}
    same = table.loc["pointing_game", "center [one]"]
    assert (same.difference, same.p_holm, same.better) == (0, 1, "=")
    assert table.loc["energy_pointing_game", "noise [one]"].difference != 0
    assert "cannot be told apart" in capsys.readouterr().out


def test_two_protocols_are_not_set_side_by_side(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table = compared(folder, tmp_path, "one", "other")
    assert "pointing_game" not in set(table["metric"])
    assert {"energy_pointing_game", "max_box_acc"} == set(table["metric"])
    said = capsys.readouterr().out
    assert "left out: pointing_game is under default in one, under custom-" in said
    assert "tolerance (15.0 / 0.0)" in said
    command = ["compare", str(folder / "one"), str(folder / "other"), "--metrics", "pointing_game"]
    assert main(command) == 2
    assert "share no protocol" in capsys.readouterr().err


def test_what_two_protocols_differ_in() -> None:
    one = {"view": {"resize": "warp", "size": 224}, "axes": {"threshold": 0.15}}
    other = {"view": {"resize": "warp", "size": 256}, "axes": {"threshold": 0.2}}
    assert differing(one, other) == "threshold (0.15 / 0.2), view.size (224 / 256)"
    assert differing(one, one) == "their presets' names alone"


def test_strata_are_compared_too(folder: Path, tmp_path: Path) -> None:
    table = compared(folder, tmp_path, "one", flags=("--by", "size", "--metrics", "energy_pointing_game"))
    cases = pd.read_parquet(folder / "one" / "cases.parquet").drop_duplicates("case_id")
    counts = cases["size"].value_counts()
    for stratum, count in counts.items():
        assert table.set_index("stratum").loc[f"size={stratum}", "n"] == count
    assert table.set_index("stratum").loc["all", "n"] == counts.sum()


def test_names_are_escaped(folder: Path, tmp_path: Path) -> None:
    compared(folder, tmp_path, "one")
    assert r"max\_box\_acc" in (tmp_path / "compare.tex").read_text()
    with (tmp_path / "compare.csv").open() as file:
        assert len(list(csv.reader(file))) == 4


def test_cases_without_a_partner_are_counted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    results = folder.parent
    assert main(["run", *CHOICES[:3], "limit=15", *METRICS, f"results={results}", "name=fewer"]) == 0
    table = compared(folder, tmp_path, "one", "fewer", flags=("--metrics", "energy_pointing_game"))
    more = pd.read_parquet(folder / "one" / "cases.parquet")["case_id"].nunique()
    fewer = pd.read_parquet(folder / "fewer" / "cases.parquet")["case_id"].nunique()
    assert set(table["n"]) == {fewer}
    assert set(table["only_a"]) == {more - fewer}
    assert set(table["only_b"]) == {0}
    assert f"without a partner: {more - fewer} and 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere is no run folder"),
        (["one", "one"], "is given twice"),
        (["one", "--methods", "centre"], "did you mean 'center'"),
        (["one", "--metrics", "pointing"], "pointing_game"),
        (["one", "--by", "colour"], "--by"),
        (["one", "--methods", "noise"], "nothing to compare"),
        ([], "RUNS"),
        (["one", "limit=3"], "limit=3"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture) -> None:
    known = [str(folder / word) if word in ("one", "two") else word for word in words]
    assert main(["compare", *known]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1
