"""Whole runs on words: rows, the summary by kind, the page; and what a run refuses."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from gradcam_bench import cli


def little(capsys: pytest.CaptureFixture[str], results: Path, *words: str) -> tuple[int, str, str]:
    code = cli.main(["run", *words, "name=w", f"results={results}", "workers=0", "device=cpu"])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(("experiment", "kind"), [("captions", "shape"), ("answers", "colour")])
def test_an_experiment_on_two_scenes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, experiment: str, kind: str
) -> None:
    words = [
        f"experiment={experiment}",
        "dataset.count=3",
        "limit=2",
        "method=[grad_cam,counterfactual_grad_cam,center]",
    ]
    code, out, err = little(capsys, tmp_path, *words)
    assert code == 0, err
    home = tmp_path / experiment / "w"
    cases = pd.read_parquet(home / "cases.parquet")
    assert cases["probability"].between(0, 1).all()
    assert cases["rank"].isna().all()
    assert kind in set(cases["kind"])
    table = pd.read_csv(home / "summary_by_kind.csv")
    assert set(table["kind"]) == set(cases["kind"])
    mine = table[(table["kind"] == kind) & (table["metric"] == "pointing_game") & (table["method"] == "center")]
    rows = pd.read_parquet(home / "rows.parquet").merge(cases[["case_id", "kind"]], on="case_id")
    chosen = rows[(rows["kind"] == kind) & (rows["metric"] == "pointing_game") & (rows["method"] == "center")]
    assert float(mine["value"].iloc[0]) == pytest.approx(chosen["value"].mean())
    assert int(mine["n"].iloc[0]) == len(chosen)
    assert "By kind" in (home / "report.html").read_text()
    assert "classifier (" not in out
    assert f"({experiment} · " in out


def test_outputs_that_do_not_compare_have_no_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["experiment=captions", "dataset.count=2", "view.target=predicted", "method=[grad_cam]"]
    code, _, err = little(capsys, tmp_path, *words)
    assert code == 2
    assert "view.target=predicted: outputs of captioner answer questions of their own" in err


def test_more_words_than_outputs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = little(capsys, tmp_path, "experiment=captions", "dataset.count=3", "model.count=2")
    assert code == 2
    assert "model captioner only" in err
