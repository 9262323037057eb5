"""Runs with metrics that question the network: from the command line to the page, and what is refused in a sentence."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from gradcam_bench import catalogue
from gradcam_bench.api import annotate, score
from gradcam_bench.cli import main

QUICK = ["batch_size=2", "workers=0", "protocol.perturb_steps=4", "protocol.perturb_shares=[50]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment on two scenes."""
    results = tmp_path_factory.mktemp("results")
    words = ["experiment=faithfulness", "limit=2", f"results={results}", "name=a", *QUICK, "method=[grad_cam,center]"]
    assert main(["run", *words]) == 0
    return results / "faithfulness" / "a"


def test_the_experiment_ends_in_rows_plots_and_a_page(run: Path) -> None:
    rows = pd.read_parquet(run / "rows.parquet")
    asked = yaml.safe_load((Path(catalogue.CONF) / "experiment" / "faithfulness.yaml").read_text())["defaults"]
    metrics = next(set(entry["override /metric"]) for entry in asked if "override /metric" in entry)
    assert set(rows["metric"].astype(str)) == metrics
    assert len(set(rows["metric"].value_counts())) == 1
    scored = rows[rows["problem"].isna()]
    assert len(scored) > 0.9 * len(rows)
    lengths = scored[scored["metric"] == "deletion"]["curve"].map(len)
    assert set(lengths) == {5}
    summary = pd.read_csv(run / "summary.csv").set_index(["metric", "method"])["value"]
    assert summary.notna().all()
    assert summary["deletion", "grad_cam"] < summary["deletion", "center"]
    page = (run / "report.html").read_text()
    assert "Answers as pixels go" in page
    assert len(list((run / "plots").glob("answers-deletion*"))) >= 1


def test_stored_heatmaps_alone_cannot_answer(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(run), "metric=[pointing_game,deletion]"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "deletion: this questions the network" in said
    assert "gradcam-bench run metric=[deletion]" in said


def test_what_heatmaps_suffice_for_is_scored_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(run, tmp_path / "copy")
    before = pd.read_parquet(run / "rows.parquet")
    assert main(["score", str(run), "protocol.tolerance=3"]) == 0
    assert "not scored again" in capsys.readouterr().err
    after = pd.read_parquet(run / "rows.parquet")
    new = after[~after["protocol"].astype(str).isin(set(before["protocol"].astype(str)))]
    assert set(new["metric"].astype(str)) == {"pointing_game"}
    assert len(after) == len(before) + len(new)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=none", "method=[center]", "metric=[deletion]"], "deletion questions the network, and there is none"),
        (["metric=[deletion]", "view.augment=flip", "preset=[default]"], "does not go with view.augment=flip"),
        (["metric=[average_drop]", "protocol.normalize=none"], "a mask lies in [0, 1]"),
        (["metric=[deletion]", "protocol.perturb_steps=2.5"], "perturb_steps takes a whole number"),
        (["metric=[deletion]", "protocol.perturb_steps=1"], "perturb_steps must lie in [2"),
        (["metric=[road_morf]", "protocol.perturb_shares=[100]"], "perturb_shares must lie in [0, 99]"),
        (["metric=[deletion]", "protocol.answer=softmax"], "answer"),
    ],
)
def test_what_cannot_work_is_one_sentence_before_any_work(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", f"results={tmp_path}", "limit=1", *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]
    assert not list(tmp_path.rglob("rows.parquet"))


def test_in_python_too() -> None:
    import torch

    truth = annotate(boxes=[torch.tensor([[0.0, 0, 4, 4]])], sizes=[(8, 8)])
    with pytest.raises(ValueError, match="metric deletion questions the network"):
        score({"grad_cam": torch.rand(1, 4, 4)}, truth, metrics=["deletion"])
    rows = score({"grad_cam": torch.tensor([[[0.0, 1.0], [0.5, 0.5]]])}, truth, metrics=["complexity"])
    assert rows["value"].tolist() == pytest.approx([0.5])
