"""gate: on runs of controls, which take no network and a second, and on copies whose rows are changed."""

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from defusedxml import ElementTree
from drawn_curves import curves

from gradcam_bench import baseline
from gradcam_bench.analysis.noninferiority import PASS, REGRESSION, UNDECIDED, Check, Judged, Judgement, Loss
from gradcam_bench.analysis.reductions import REDUCTIONS, Cell, number
from gradcam_bench.cli import main
from gradcam_bench.errors import UserError
from gradcam_bench.files import write_json
from gradcam_bench.finished import open_runs
from gradcam_bench.gate import judgement
from gradcam_bench.report import verdicts
from gradcam_bench.schemas import ROWS
from gradcam_bench.terms import Terms, terms

pytest_plugins = ["pytester"]

CHOICES = ["model=none", "method=[center,noise]", "workers=0", "limit=40", "stages=[explain,score]"]
PLUGIN = ["-p", "gradcam_bench.pytest_gate", "-p", "no:cacheprovider"]
METRICS = ["metric=[pointing_game,energy_pointing_game,max_box_acc]", "preset=[default,wsol_2020_v2]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `one`; `seed`, with other noise; `other`, in a choice of one protocol; `part`, of half of the scenes; and
    the first one's baseline."""
    results = tmp_path_factory.mktemp("results")
    more = {"one": [], "seed": ["seed=1"], "other": ["protocol.tolerance=0"], "part": ["limit=20"]}
    for name, words in more.items():
        assert main(["run", *CHOICES, *METRICS, f"results={results}", f"name={name}", *words]) == 0
    assert main(["gate", str(results / "run/one"), "--baseline", str(results / "run/base.parquet"), "--update"]) == 0
    return results / "run"


def gated(folder: Path, run: Path | str, *flags: str) -> int:
    return main(["gate", str(folder / run), "--baseline", str(folder / "base.parquet"), *flags])


def changed(folder: Path, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame | None]) -> Path:
    """A copy of run `one` whose rows are changed, or replaced by those that `change` returns."""
    copy = tmp_path / "changed"
    shutil.copytree(folder / "one", copy)
    table = pq.read_table(copy / "rows.parquet")
    frame = table.to_pandas().astype(dict.fromkeys(("metric", "method", "problem"), object))
    left = change(frame)
    frame = frame if left is None else left
    pq.write_table(pa.Table.from_pandas(frame, ROWS, preserve_index=False), copy / "rows.parquet")
    return copy


def energy(frame: pd.DataFrame, method: str = "center") -> pd.Series:
    return (frame["metric"] == "energy_pointing_game") & (frame["method"] == method)


def test_the_same_run_passes_even_without_a_margin(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert gated(folder, "one", "--margin", "0") == 0
    said = capsys.readouterr().out
    assert "every score as it was: 6 of 6 checks" in said
    assert "as good as the baseline (6 pass)" in said


def test_a_loss_is_a_regression(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def halve(frame: pd.DataFrame) -> None:
        frame.loc[energy(frame), "value"] *= 0.5

    assert gated(folder, changed(folder, tmp_path, halve)) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("energy")]
    before = pd.read_parquet(folder / "one/rows.parquet")
    mean = before.loc[energy(before), "value"].mean()
    assert [float(word) for word in line.split()[3:6]] == pytest.approx([mean, mean / 2, mean / 2], abs=1e-4)
    assert line.endswith("regression")


def test_a_gain_passes(folder: Path, tmp_path: Path) -> None:
    def gain(frame: pd.DataFrame) -> None:
        frame.loc[energy(frame), "value"] *= 1.5

    assert gated(folder, changed(folder, tmp_path, gain)) == 0


def test_a_tolerated_loss_passes_and_an_untolerated_one_does_not(folder: Path, tmp_path: Path) -> None:
    def shift(frame: pd.DataFrame) -> None:
        frame.loc[energy(frame), "value"] -= 0.01 + 0.001 * (np.arange(energy(frame).sum()) % 2)

    run = changed(folder, tmp_path, shift)
    assert gated(folder, run, "--margin", "0.02") == 0
    assert gated(folder, run, "--margin", "0.01") == 1
    assert gated(folder, run, "--margin", "0.005", "--margin", "energy_pointing_game=0.02") == 0
    assert gated(folder, run, "--margin", "0.005", "--metrics", "pointing_game") == 0
    assert gated(folder, run, "--margin", "0.005", "--methods", "noise") == 0
    assert gated(folder, run, "--margin", "0.005", "--metrics", "energy_pointing_game", "--methods", "center") == 1


def test_what_is_not_known_says_how_many_images_would_do(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def shake(frame: pd.DataFrame) -> None:
        mine = energy(frame)
        frame.loc[mine, "value"] += np.where(pd.factorize(frame.loc[mine, "image_id"])[0] % 2, 0.4, -0.4)

    assert gated(folder, changed(folder, tmp_path, shake)) == 2
    assert "images would decide" in capsys.readouterr().out


def test_cases_that_lost_their_score_are_no_pass(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def lose(frame: pd.DataFrame) -> None:
        first = frame.index[energy(frame)][:2]
        frame.loc[first, "value"] = None
        frame.loc[first, "problem"] = "heatmap not finite"

    run = changed(folder, tmp_path, lose)
    assert gated(folder, run) == 2
    assert "2 of" in (said := capsys.readouterr().out)
    assert "have no score (heatmap not finite)" in said
    assert gated(folder, run, "--methods", "noise") == 0


def test_another_protocol_cannot_be_judged(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert gated(folder, "other") == 2
    said = capsys.readouterr().out
    assert "tolerance (15.0 / 0.0)" in said
    assert "4 pass, 2 undecided" in said
    assert gated(folder, "other", "--metrics", "max_box_acc,energy_pointing_game") == 0


def test_a_method_or_metric_that_is_gone_cannot_be_judged(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def drop(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[(frame["method"] != "noise") & (frame["metric"] != "max_box_acc")]

    assert gated(folder, changed(folder, tmp_path, drop)) == 2
    said = capsys.readouterr().out
    assert "the run has no score of noise" in said
    assert "the run has no score of max_box_acc" in said


def test_a_run_that_lacks_cases_is_no_pass(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert gated(folder, "part", "--margin", "0.1") == 2
    assert "cases of the baseline have no score (not in the run; of fewer images on purpose: --partial)" in (
        capsys.readouterr().out
    )

    def drop(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[frame["image_id"] != frame["image_id"].iloc[0]]

    run = changed(folder, tmp_path, drop)
    assert gated(folder, run, "--margin", "1") == 2
    assert "not in the run" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [(), ("--partial",), ("--unpaired",)])
def test_a_picture_that_could_not_be_read_is_no_pass(
    folder: Path, tmp_path: Path, flags: tuple[str, ...], capsys: pytest.CaptureFixture
) -> None:
    lost = pd.read_parquet(folder / "one/rows.parquet")["image_id"].iloc[0]
    run = changed(folder, tmp_path, lambda frame: frame[frame["image_id"] != lost])
    facts = json.loads((run / "run.json").read_text())
    write_json(run / "run.json", facts | {"skipped": [{"image_id": lost, "reason": "truncated"}]})
    assert gated(folder, run, "--margin", "1", *flags) == 2
    assert "have no score (picture skipped)" in capsys.readouterr().out


def test_a_part_of_the_cases_is_compared_with_itself(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert gated(folder, "part", "--margin", "0.1", "--partial") == 0
    said = capsys.readouterr().out
    assert "every score as it was" not in said  # the cases that are gone might be the others
    assert "cases without a partner" in said


def test_no_case_in_common_is_judged_only_as_two_samples(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def rename(frame: pd.DataFrame) -> None:
        for name in ("image_id", "case_id"):
            frame[name] = "new" + frame[name].astype(str)

    run = changed(folder, tmp_path, rename)
    assert gated(folder, run) == 2
    assert "no case in common" in capsys.readouterr().out
    assert gated(folder, run, "--unpaired", "--margin", "0.5") == 0
    capsys.readouterr()
    assert gated(folder, run, "--unpaired", "--margin", "0.001") == 2
    assert "images would decide" in capsys.readouterr().out


def test_another_data_set_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = changed(folder, tmp_path, lambda frame: None)
    facts = json.loads((run / "run.json").read_text())
    write_json(run / "run.json", facts | {"dataset_fingerprint": "0" * 16})
    assert gated(folder, run) == 2
    assert "is not what it was when the baseline was made" in capsys.readouterr().err
    assert gated(folder, run, "--unpaired", "--margin", "0.5") == 0
    write_json(run / "run.json", facts | {"dataset": "voc"})
    assert gated(folder, run, "--unpaired") == 2
    assert "another data set" in capsys.readouterr().err


def test_what_changed_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = changed(folder, tmp_path, lambda frame: None)
    facts = json.loads((run / "run.json").read_text())
    write_json(run / "run.json", facts | {"weights": "other", "versions": facts["versions"] | {"torch": "9.9"}})
    assert gated(folder, run) == 0
    said = capsys.readouterr().out
    assert f"versions.torch {facts['versions']['torch']} -> 9.9" in said
    assert "weights None -> other" in said
    gated(folder, "seed")
    assert "seed 0 -> 1" in capsys.readouterr().out


def test_the_stored_heatmaps_are_hashed_by_their_values(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["run", *CHOICES, "metric=[energy_pointing_game]", f"results={tmp_path}", "store=all", "limit=4"]
    assert main([*words, "name=a"]) == 0
    assert main([*words, "name=b", "seed=1"]) == 0
    a, b = (baseline.maps_hashes(tmp_path / "run" / name) for name in "ab")
    assert set(a) == {"center", "noise"}
    assert a["noise"] != b["noise"]
    assert main(["gate", str(tmp_path / "run/a"), "--baseline", str(tmp_path / "base"), "--update"]) == 0
    main(["gate", str(tmp_path / "run/b"), "--baseline", str(tmp_path / "base")])
    assert "other heatmaps: noise" in capsys.readouterr().out
    assert main([*words, "name=c", "limit=2"]) == 0  # the same heatmaps, of fewer cases
    assert main(["gate", str(tmp_path / "run/c"), "--baseline", str(tmp_path / "base"), "--partial"]) == 2
    said = capsys.readouterr().out
    assert "cases without a partner" in said
    assert "heatmaps" not in said


# The baseline's file


def test_a_baseline_is_read_as_it_was_written(folder: Path) -> None:
    (run,) = open_runs([str(folder / "one")])
    made, back = baseline.baseline_of(run, hashed=True), baseline.read(folder / "base.parquet")
    assert back.facts == json.loads(json.dumps(made.facts, default=str))
    assert list(back.cells) == list(made.cells)
    for protocol, cells in made.cells.items():
        for method, cell in cells.items():
            again = back.cells[protocol][method]
            for name in ("values", "curves", "classes", "images"):
                one, other = getattr(cell, name), getattr(again, name)
                assert (one is None and other is None) or np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), (
                    name
                )
    summary = {method: number(cell, "mean_of_max") for method, cell in run.cells("max_box_acc", "wsol_2020_v2").items()}
    for method, value in summary.items():
        assert number(back.cells["max_box_acc", "wsol_2020_v2"][method], "mean_of_max") == value


def test_provenance_is_kept(folder: Path) -> None:
    facts = baseline.read(folder / "base.parquet").facts
    stored = json.loads((folder / "one/run.json").read_text())
    for name in ("config_hash", "versions", "dataset_fingerprint", "weights", "git_commit"):
        assert facts[name] == stored[name]
    assert facts["protocols"]["max_box_acc"]["wsol_2020_v2"]["axes"]["iou_threshold"] == [0.3, 0.5, 0.7]


@pytest.mark.parametrize("reduce", sorted(REDUCTIONS))
def test_what_is_kept_gives_the_same_number(reduce: str) -> None:
    rng = np.random.default_rng(0)
    drawn = curves(reduce, rng, 300, 2)
    if reduce in ("mean_of_max", "max_over_curve"):
        drawn[:, 7] = np.float32(0.7)  # exactly the IoU demanded
    axes = {"iou_threshold": (0.7, 0.3), "rejection": 3.0}
    cell = Cell(rng.random(300), drawn, rng.choice(["1", "2"], 300), np.arange(300), axes)
    assert number(baseline.kept(cell, reduce), reduce) == pytest.approx(
        number(cell, reduce), abs={"mean_of_max": 0, "max_over_curve": 5e-4}.get(reduce, 1e-7)
    )


def test_a_thousand_cases_of_ten_methods_and_six_metrics_stay_below_a_megabyte(tmp_path: Path) -> None:
    """Values and curves with nothing in common between methods. Curves as boxes have them: once the map is cut at
    the right level, the box grips the object, below and above it does not."""
    rng = np.random.default_rng(0)
    ids, classes = np.array([f"scene_{n:06d}" for n in range(1000)]), rng.integers(0, 10, 1000).astype(str)
    levels = np.arange(256)

    def cell(curve: bool) -> Cell:
        peak, width, best = rng.integers(20, 150, (1000, 1)), rng.integers(10, 90, (1000, 1)), rng.random((1000, 1))
        curves = best * np.exp(-(((levels - peak) / width) ** 2)) + rng.normal(0, 0.003, (1000, 256))
        axes = {"iou_threshold": (0.3, 0.5, 0.7)}
        return Cell(rng.random(1000), curves.astype(np.float32) if curve else None, classes, ids, axes)

    reduces = ["mean"] * 4 + ["class_mean", "mean_of_max"]
    cards = {
        f"metric{n}": {"p": {"reduce": r, "higher_is_better": True, "axes": {"iou_threshold": [0.3, 0.5, 0.7]}}}
        for n, r in enumerate(reduces)
    }
    cells = {
        (f"metric{n}", "p"): {f"method{m}": baseline.kept(cell(r == "mean_of_max"), r) for m in range(10)}
        for n, r in enumerate(reduces)
    }
    baseline.write(tmp_path / "base.parquet", baseline.Baseline({"format": 1, "protocols": cards, "maps": {}}, cells))
    assert (tmp_path / "base.parquet").stat().st_size < 1e6
    assert len(baseline.read(tmp_path / "base.parquet").cells) == 6


def test_an_update_that_fails_leaves_the_old_baseline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "base.parquet").read_bytes()

    def torn(table: pa.Table, path: Path, **settings: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(baseline.pq, "write_table", torn)
    assert gated(folder, "seed", "--update") == 2
    assert (folder / "base.parquet").read_bytes() == before
    assert not list(folder.glob(".*tmp"))


def test_the_committed_baseline_can_be_read() -> None:
    path = Path(__file__).parent.parent / "results/baselines/scenes.parquet"
    assert path.stat().st_size < 1e6
    assert baseline.read(path).facts["dataset"] == "scenes"


# Outputs


def awkward() -> Judgement:
    """A judgement of each verdict, with names that no format likes."""
    loss = Loss(0.6, 0.5, 0.1, 0.01, 99, 100)
    return Judgement(
        (
            Check('a|b<c>&"', "p:1,2", "good", 0.02, Loss(0.6, 0.6, 0, 0, 99, 100, identical=True), Judged(PASS, 0, 0)),
            Check("m%\n::error", "p", "bad]]>", 0.02, loss, Judged(REGRESSION, 0.08, 0.12)),
            Check("m", "p", "\x00open", 0.02, loss, Judged(UNDECIDED, -0.01, 0.12, 400)),
            Check("m", "p", "gone", 0.02, None, Judged(UNDECIDED, np.nan, np.nan), "the run has no score of gone"),
        ),
        ("changed: <x> -> @y",),
    )


def test_junit_says_what_the_checks_say() -> None:
    suite = ElementTree.fromstring(verdicts.as_junit(awkward()).encode()).find("testsuite")
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "4",
        "failures": "1",
        "errors": "2",
    }
    cases = suite.findall("testcase")
    assert [[child.tag for child in case] for case in cases] == [[], ["failure"], ["error"], ["error"]]
    assert cases[0].get("classname") == 'a|b<c>&".p:1,2'
    assert [case.get("name") for case in cases] == ["good", "bad]]>", "?open", "gone"]
    assert "a loss of +0.1000 (at least +0.0800, at most +0.1200; 0.02 is tolerated)" in cases[1][0].get("message")
    assert "400 images would decide" in cases[2][0].get("message")
    assert "-> @y" in suite.find("system-out").text


def test_markdown_is_one_table_with_what_failed_first() -> None:
    made = verdicts.as_markdown(awkward())
    lines = [line for line in made.splitlines() if line.startswith("|")]
    columns = [len(line.replace("\\|", "").split("|")) for line in lines]
    assert len(set(columns)) == 1
    assert len(lines) == 2 + 3  # what is as it was is counted below
    assert "worse than the baseline (1 pass, 1 regression, 2 undecided)" in made
    assert "\\<x\\> -\\> \\@y" in made


def test_annotations_are_one_line_each() -> None:
    lines = verdicts.as_annotations(awkward()).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("::error title=regression%3A m%25%0A%3A%3Aerror (p) of bad]]>::m%25%0A::error (p) of")
    assert verdicts.as_annotations(Judgement(awkward().checks[:1])) == "::notice::as good as the baseline (1 pass)"


def test_files_and_annotations_are_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    flags = ["--junit", str(tmp_path / "deep/junit.xml"), "--markdown", str(tmp_path / "gate.md")]
    assert gated(folder, "other", *flags) == 2
    assert "::error" not in capsys.readouterr().out
    suites = ElementTree.parse(tmp_path / "deep/junit.xml").getroot()
    assert (suites.get("tests"), suites.get("errors")) == ("6", "2")
    assert "cannot be judged" in (tmp_path / "gate.md").read_text()
    assert gated(folder, "other", "--github") == 2
    assert capsys.readouterr().out.count("::error") == 2
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert gated(folder, "one") == 0
    assert "::notice::as good as the baseline" in capsys.readouterr().out


def test_pytest_has_a_test_a_check(folder: Path, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_own(): pass")
    flags = [*PLUGIN, "--gradcam-gate", str(folder / "other"), "--gradcam-baseline", str(folder / "base.parquet")]
    done = pytester.runpytest_inprocess(*flags)
    done.assert_outcomes(passed=5, failed=2)
    said = done.stdout.str()
    assert "collected 7 items" in said
    assert "gradcam-gate[pointing_game-default-center]" in said
    assert "tolerance (15.0 / 0.0)" in said
    assert "Traceback" not in said
    pytester.runpytest_inprocess(*flags, "-k", "gradcam-gate and max_box_acc").assert_outcomes(passed=2, deselected=5)


def test_pytest_takes_the_margin(folder: Path, tmp_path: Path, pytester: pytest.Pytester) -> None:
    def halve(frame: pd.DataFrame) -> None:
        frame.loc[energy(frame), "value"] *= 0.5

    run = changed(folder, tmp_path, halve)
    flags = [*PLUGIN, "--gradcam-gate", str(run), "--gradcam-baseline", str(folder / "base.parquet")]
    pytester.runpytest_inprocess(*flags).assert_outcomes(passed=5, failed=1)
    pytester.runpytest_inprocess(*flags, "--gradcam-margin", "energy_pointing_game=0.5").assert_outcomes(passed=6)


@pytest.mark.parametrize(
    ("run", "more", "sentence"),
    [
        ("one", [], "--gradcam-gate RUN and --gradcam-baseline FILE go together"),
        ("nowhere", ["--gradcam-baseline", "base.parquet"], "nowhere is no run folder"),
        ("one", ["--gradcam-baseline", "base.parquet", "--gradcam-alpha", "2"], "--alpha must lie between"),
    ],
)
def test_pytest_says_what_is_wrong(
    folder: Path, run: str, more: list[str], sentence: str, pytester: pytest.Pytester
) -> None:
    known = [str(folder / word) if word == "base.parquet" else word for word in more]
    done = pytester.runpytest_inprocess(*PLUGIN, "--gradcam-gate", str(folder / run), *known)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert sentence in done.stderr.str()


def test_the_plugin_is_announced_to_pytest() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {PLUGIN[1]: PLUGIN[1]}  # one name: given twice, it is loaded once


# What is wrong is said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere is no run folder"),
        (["one", "--margin", "few"], "--margin: a number from 0 is needed, got 'few'"),
        (["one", "--margin=-1"], "--margin: a number from 0 is needed"),
        (["one", "--margin", "nan"], "--margin: a number from 0 is needed"),
        (
            ["one", "--margin", "pointing=0.1"],
            "unknown metric of the baseline 'pointing': did you mean 'pointing_game'",
        ),
        (["one", "--metrics", "max_box"], "did you mean 'max_box_acc'"),
        (["one", "--methods", "centre"], "did you mean 'center'"),
        (["one", "--alpha", "0.5"], "--alpha must lie between 0 and 0.5, got 0.5"),
        (["one", "--alpha", "0"], "--alpha must lie between 0 and 0.5"),
        (["one", "--config", "nowhere.yaml"], "nowhere.yaml is not there"),
        (["one", "limit=3"], "unexpected 'limit=3'"),
        (["one", "--junit", "/dev/null/x"], "cannot write"),
        ([], "RUN"),
    ],
)
def test_wrong_words_are_one_sentence(
    folder: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    known = [str(folder / word) if word == "one" else word for word in words]
    assert main(["gate", *known, "--baseline", str(folder / "base.parquet")]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_a_baseline_is_needed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["gate", str(folder / "one")]) == 2
    assert "--baseline" in capsys.readouterr().err
    assert main(["gate", str(folder / "one"), "--baseline", str(tmp_path / "none.parquet")]) == 2
    assert "none.parquet is not there: gradcam-bench gate RUN --baseline" in capsys.readouterr().err


def without_metadata(path: Path) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)


def of_another_format(path: Path) -> None:
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[baseline.META]) | {"format": 3}
    pq.write_table(table.replace_schema_metadata({baseline.META: json.dumps(facts).encode()}), path)


def with_ragged_curves(path: Path) -> None:
    table = pq.read_table(path)
    curves = [curve and curve[: 256 - n % 2] for n, curve in enumerate(table["curve"].to_pylist())]
    pq.write_table(table.set_column(5, "curve", pa.array(curves, pa.binary())), path)


def of_an_unknown_level(path: Path) -> None:
    table = pq.read_table(path)
    curves = [curve and b"\x09" * len(curve) for curve in table["curve"].to_pylist()]
    pq.write_table(table.set_column(5, "curve", pa.array(curves, pa.binary())), path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "is no baseline, or damaged"),
        (lambda path: path.write_bytes(b""), "is no baseline, or damaged"),
        (lambda path: path.write_bytes(b"\x80\x04\x95"), "is no baseline, or damaged"),  # a pickle's first bytes
        (without_metadata, "is no baseline, or damaged"),
        (of_another_format, "is a baseline of format 3, this version reads 2"),
        (with_ragged_curves, "is no baseline, or damaged"),
        (of_an_unknown_level, "is no baseline, or damaged"),
    ],
)
def test_a_damaged_baseline_is_refused(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "base.parquet"
    shutil.copy(folder / "base.parquet", path)
    damage(path)
    assert main(["gate", str(folder / "one"), "--baseline", str(path)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_terms_come_from_a_file_and_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text("margin: {default: 0.01, max_box_acc: 0.03}\nalpha: 0.1\nmethods: [center]\nunpaired: true\n")
    assert terms(config=str(path)) == Terms(0.01, {"max_box_acc": 0.03}, 0.1, ("center",), (), True)
    assert terms(config=str(path), partial=True).partial
    over = terms(["0.05", "pointing_game=0"], "0.01", ["noise"], config=str(path))
    assert over == Terms(0.05, {"max_box_acc": 0.03, "pointing_game": 0}, 0.01, ("noise",), (), True)
    path.write_text("margin: 0.04")
    assert terms(config=str(path)) == Terms(0.04)
    assert terms() == Terms(0.02, {}, 0.05)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1]", "must be a mapping"),
        ("", "must be a mapping"),
        ("{", "is no YAML file"),
        ("margins: 1", "did you mean 'margin'"),
        ("margin: [1]", "a number from 0 is needed"),
        ("margin: true", "a number from 0 is needed"),
        ("margin: {max_box_acc: -1}", "a number from 0 is needed"),
        ("alpha: 1", "must lie between 0 and 0.5"),
        ("methods: center", "is a list of names"),
        ("metrics: [1]", "is a list of names"),
        ("unpaired: 1", "is true or false"),
        ("partial: 1", "is true or false"),
    ],
)
def test_a_wrong_file_of_terms_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        terms(config=str(path))


def test_nothing_that_ranks_is_nothing_to_gate(folder: Path, tmp_path: Path) -> None:
    run = changed(folder, tmp_path, lambda frame: None)
    facts = json.loads((run / "run.json").read_text())
    for cards in facts["protocols"].values():
        for card in cards.values():
            card["higher_is_better"] = None
    write_json(run / "run.json", facts)
    (opened,) = open_runs([str(run)])
    with pytest.raises(UserError, match="nothing to gate"):
        baseline.baseline_of(opened)


def test_a_preset_that_changed_its_choices_is_another(folder: Path, tmp_path: Path) -> None:
    run = changed(folder, tmp_path, lambda frame: None)
    facts = json.loads((run / "run.json").read_text())
    facts["protocols"]["pointing_game"]["default"]["axes"]["tolerance"] = 5.0
    write_json(run / "run.json", facts)
    (opened,) = open_runs([str(run)])
    found = judgement(opened, baseline.read(folder / "base.parquet"), Terms())
    reasons = {check.metric: check.reason for check in found.checks}
    assert reasons["pointing_game"] == "default is not what it was: they differ in tolerance"
    assert found.code == 2
