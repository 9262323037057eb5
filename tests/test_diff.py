"""diff: on runs of controls. What it names, that it adds up, and that each end is the run's own number."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradcam_bench.cli import main

CONTROLS = ["model=none", "method=[center,noise]", "workers=0"]
METRICS = "metric=[pointing_game,localization_error_gt_known,max_box_acc]"
MAPS = ["preset=[default,grad_cam_2017,wsol_2020_v1]", METRICS, "store=all"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one`; `seed`, whose noise is drawn anew; `strict`, of another tolerance; `fewer`, of fewer images; `val`, of
    another split."""
    results = tmp_path_factory.mktemp("results")
    for name, more in (
        ("one", ["limit=12"]),
        ("seed", ["limit=12", "seed=1"]),
        ("strict", ["limit=12", "protocol.tolerance=0"]),
        ("fewer", ["limit=8"]),
        ("val", ["limit=8", "dataset.split=val"]),
    ):
        assert main(["run", *CONTROLS, *MAPS, f"results={results}", f"name={name}", *more]) == 0
    return results / "run"


def told(folder: Path, out: Path, names: list[str], *flags: str) -> pd.DataFrame:
    assert main(["diff", *(str(folder / name) for name in names), "--out", str(out), *flags]) == 0
    assert {path.name for path in out.iterdir()} == {
        f"diff.{end}" for end in ("csv", "md", "html", "svg", "pdf", "png")
    }
    table = pd.read_csv(out / "diff.csv", keep_default_na=False)
    for _, gap in table.groupby("method"):
        ends = gap.set_index("choice")["value"]
        assert gap["value"].iloc[1:-1].sum() == pytest.approx(ends["to"] - ends["from"], abs=1e-9)  # adds up exactly
    return table.set_index(["method", "choice"])


def number(folder: Path, run: str, metric: str, protocol: str, method: str) -> float:
    summary = pd.read_csv(folder / run / "summary.csv").set_index(["metric", "protocol", "method"])
    return summary.loc[(metric, protocol, method), "value"]


def test_two_protocols_of_the_same_heatmaps(folder: Path, tmp_path: Path) -> None:
    flags = ("--from", "localization_error_gt_known@grad_cam_2017", "--to", "max_box_acc@wsol_2020_v1")
    table = told(folder, tmp_path, ["one"], *flags)
    for method in ("center", "noise"):
        error = number(folder, "one", "localization_error_gt_known", "grad_cam_2017", method)
        assert table.loc[(method, "from"), "value"] == pytest.approx(1 - error)  # an accuracy, as the other is
        assert table.loc[(method, "to"), "value"] == pytest.approx(
            number(folder, "one", "max_box_acc", "wsol_2020_v1", method)
        )
    choices = set(table.loc["center"].index)
    assert {"metric", "rule", "iou"} <= choices
    assert "heatmaps" not in choices
    assert table.loc[("center", "metric"), "value"] >= 0  # the best threshold is no worse than a fixed one


def test_one_axis_explains_all_of_its_own_gap(folder: Path, tmp_path: Path) -> None:
    strict = next(one for one in pd.read_csv(folder / "strict" / "summary.csv")["protocol"] if one.startswith("custom"))
    flags = ("--from", "pointing_game@default", "--to", f"pointing_game@{strict}", "--methods", "center")
    table = told(folder, tmp_path, ["one", "strict"], *flags)
    assert table.loc[("center", "tolerance"), ["before", "after"]].tolist() == ["15.0", "0.0"]
    # the heatmaps are the same in both, so they explain nothing
    assert table.loc[("center", "heatmaps"), "value"] == 0
    gap = table.loc[("center", "to"), "value"] - table.loc[("center", "from"), "value"]
    assert table.loc[("center", "tolerance"), "value"] == pytest.approx(gap)


def test_other_heatmaps_are_one_choice_named_by_what_lies_behind(folder: Path, tmp_path: Path) -> None:
    table = told(folder, tmp_path, ["one", "seed"], "--from", "max_box_acc@wsol_2020_v1")
    assert table.loc[("noise", "heatmaps"), ["before", "after"]].tolist() == ["view.seed 0", "view.seed 1"]
    for run, end in (("one", "from"), ("seed", "to")):
        assert table.loc[("noise", end), "value"] == pytest.approx(
            number(folder, run, "max_box_acc", "wsol_2020_v1", "noise")
        )
    assert table.loc[("center", "heatmaps"), "value"] == 0


def test_cases_of_one_run_alone_are_a_choice(folder: Path, tmp_path: Path) -> None:
    table = told(folder, tmp_path, ["one", "fewer"], "--from", "max_box_acc@wsol_2020_v1", "--methods", "center")
    cases = [str(pd.read_parquet(folder / name / "cases.parquet")["case_id"].nunique()) for name in ("one", "fewer")]
    assert table.loc[("center", "cases"), ["before", "after"]].tolist() == cases
    gap = table.loc[("center", "to"), "value"] - table.loc[("center", "from"), "value"]
    assert table.loc[("center", "cases"), "value"] == pytest.approx(gap)  # the same heatmaps: all of it


def test_another_split_is_named_and_paired_with_nothing(folder: Path, tmp_path: Path) -> None:
    """Scenes are numbered from 0 in every split, so cases of one name are other pictures there."""
    table = told(folder, tmp_path, ["fewer", "val"], "--from", "max_box_acc@wsol_2020_v1", "--methods", "center")
    before, after = table.loc[("center", "heatmaps"), ["before", "after"]].tolist()
    assert "dataset.split test" in before
    assert "fingerprint" in before
    assert "dataset.split val" in after
    assert set(table.loc["center"].index) == {"from", "heatmaps", "to"}
    for run, end in (("fewer", "from"), ("val", "to")):
        assert table.loc[("center", end), "value"] == pytest.approx(
            number(folder, run, "max_box_acc", "wsol_2020_v1", "center")
        )


def test_what_lies_behind_heatmaps_is_named_or_said_to_be_unknown(folder: Path, tmp_path: Path) -> None:
    flags = ("--from", "max_box_acc@wsol_2020_v1", "--methods", "center")
    shutil.copytree(folder / "fewer", tmp_path / "old")
    inputs = json.loads((tmp_path / "old/inputs.json").read_text())
    inputs["methods"]["center"][-1] = 0
    inputs["methods"]["other"] = ["other", {}, 1]
    (tmp_path / "old/inputs.json").write_text(json.dumps(inputs))
    words = ["diff", str(folder / "fewer"), str(tmp_path / "old"), *flags, "--out", str(tmp_path / "a")]
    assert main(words) == 0
    old = pd.read_csv(tmp_path / "a/diff.csv").set_index("choice").loc["heatmaps", ["before", "after"]].tolist()
    assert old == ["method center {}, 1", "method center {}, 0"]
    fewer = told(folder, tmp_path / "b", ["one", "fewer"], *flags).loc[("center", "heatmaps"), ["before", "after"]]
    assert fewer.tolist() == ["of one", "of fewer (nothing recorded differs)"]


def without_a_case_of(folder: Path, run: str, other: str, made: Path) -> Path:
    """A copy of `run` that holds none of the cases of `other`."""
    shutil.copytree(folder / run, made)
    taken = set(pd.read_parquet(folder / other / "cases.parquet")["image_id"])
    for name in ("cases.parquet", "rows.parquet"):
        table = pq.read_table(made / name)
        kept = [str(image) not in taken for image in table["image_id"].to_pylist()]
        pq.write_table(table.filter(pa.array(kept)), made / name)
    return made


def test_no_case_in_common_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rest = without_a_case_of(folder, "one", "fewer", tmp_path / "rest")
    words = ["--from", "max_box_acc@wsol_2020_v1", "--out", str(tmp_path / "out")]
    assert main(["diff", str(folder / "fewer"), str(rest), *words]) == 2
    assert "fewer and rest have no case in common on which to explain their gap" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_preset_under_whose_view_there_are_heatmaps(folder: Path, tmp_path: Path) -> None:
    flags = ("--from", "max_box_acc@wsol_2020_v1", "--to", "max_box_acc@wsol_2020_v2", "--methods", "center")
    table = told(folder, tmp_path, ["one"], *flags)
    assert table.loc[("center", "iou_threshold"), ["before", "after"]].tolist() == ["0.5", "0.3, 0.5, 0.7"]


def test_the_same_number_twice_has_nothing_to_explain(folder: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--from", "pointing_game@default", "--methods", "center", "--out", str(folder / "same")]
    assert main(["diff", str(folder / "one"), *words]) == 0
    assert "the two are made alike" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["one"], "say which, as --from"),
        (["one", "--from", "pointing_game@defautl"], "pointing_game@default"),
        (["one", "--from", "pointing_game@default", "--to", "pointing_game@voc_pointing_2016"], "no heatmaps under"),
        (["one", "--from", "pointing_game@default", "--to", "pointing_game@grad_cam_2017"], "defines"),
        (["one", "--from", "pointing_game@default", "--methods", "centre"], "did you mean 'center'"),
        (["one", "seed", "fewer"], "one run or two, not 3"),
        (["nowhere"], "is no run folder"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture) -> None:
    known = [str(folder / word) if word in ("one", "seed", "fewer") else word for word in words]
    assert main(["diff", *known]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len([line for line in error.splitlines() if line.startswith("gradcam-bench")]) == 1
