"""compare: on runs of controls, which take no network and a second."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradcam_bench.analysis.contest import Contest
from gradcam_bench.analysis.paired import all_pairs
from gradcam_bench.analysis.reductions import Cell
from gradcam_bench.cli import main
from gradcam_bench.finished import differing, open_runs
from gradcam_bench.report import pairs

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
        for test in ("mcnemar", "wilcoxon"):
            one, corrected = getattr(row, test), getattr(row, f"{test}_holm")
            assert corrected == one or (np.isnan(one) and np.isnan(corrected))
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


def test_another_split_is_refused_and_fewer_of_the_same_are_not(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Scenes are numbered from 0 in every split, so cases of one name are other pictures there."""
    words = ["run", *CHOICES, *METRICS, f"results={tmp_path}"]
    assert main([*words, "name=val", "dataset.split=val"]) == 0
    assert main([*words, "name=few", "limit=5"]) == 0
    capsys.readouterr()
    assert main(["compare", str(folder / "one"), str(tmp_path / "run/val"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "one and val are of other data, so no case is in both" in error
    assert "dataset.split test / val, fingerprint" in error
    assert not (tmp_path / "out").exists()
    assert main(["compare", str(folder / "one"), str(tmp_path / "run/few"), "--out", str(tmp_path / "out")]) == 0


def test_one_name_for_two_protocols_is_not_one_column(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As presets of one's own may be called whatever one likes."""
    shutil.copytree(folder / "two", tmp_path / "two")
    facts = json.loads((tmp_path / "two/run.json").read_text())
    facts["protocols"]["pointing_game"]["default"]["axes"]["tolerance"] = 5.0
    (tmp_path / "two/run.json").write_text(json.dumps(facts))
    words = ["compare", str(folder / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "pointing_game" not in set(pd.read_csv(tmp_path / "out/compare.csv")["metric"])
    said = capsys.readouterr().out
    assert "pointing_game under default is another protocol in two: they differ in tolerance (15.0 / 5.0)" in said
    assert main([*words, "--metrics", "pointing_game"]) == 2


def test_what_two_protocols_differ_in() -> None:
    kind = {"reduce": "mean", "higher_is_better": True}
    one = {"view": {"resize": "warp", "size": 224}, "axes": {"threshold": 0.15}} | kind
    other = {"view": {"resize": "warp", "size": 256}, "axes": {"threshold": 0.2}} | kind
    assert differing(one, other) == "threshold (0.15 / 0.2), view.size (224 / 256)"
    assert differing(one, one) == "their presets' names alone"
    for axes, said in (({"smooth": 0.0}, "their presets' names alone"), ({"smooth": 0.02}, "smooth (0.0 / 0.02)")):
        newer = one | {"axes": one["axes"] | axes, "view": one["view"] | {"attack": "none"}}
        assert differing(one, newer) == said  # a choice that there was not yet was at its default


def test_every_test_is_corrected_for_the_pairs_of_its_table() -> None:
    rng = np.random.default_rng(0)
    names = np.array([f"{n:03d}" for n in range(40)])
    cells = {
        name: Cell((rng.random(40) < share).astype(float), None, np.full(40, "0"), names, {})
        for name, share in (("a", 0.9), ("b", 0.6), ("c", 0.3))
    }
    contest = Contest("m", "p", "all", True, dict.fromkeys("abc", 0.0), all_pairs(cells, "mean", permutations=200))
    table = pairs.as_table([contest, contest])
    assert list(table["p_holm"][:3]) == [p for _, p in contest.pairs.values()]
    for test in ("p", "mcnemar", "wilcoxon"):
        for part in (table[:3], table[3:]):
            assert part[f"{test}_holm"].tolist() == pytest.approx(multiplied(part[test].tolist()))


def multiplied(ps: list[float]) -> list[float]:
    """Holm's correction of three, written out."""
    (i, x), (j, y), (k, z) = sorted(enumerate(ps), key=lambda pair: pair[1])
    first = min(3 * x, 1)
    second = max(first, min(2 * y, 1))
    return [{i: first, j: second, k: max(second, z)}[n] for n in range(3)]


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
