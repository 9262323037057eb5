"""Published numbers beside ours: the right cell of the right run, and a verdict that claims nothing it cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from gradcam_bench import catalogue, cli, reproduce
from gradcam_bench.analysis.summary import COLUMNS
from gradcam_bench.errors import UserError
from gradcam_bench.reproduce import Quantity, compare, experiment, verdict
from tests.conftest import SHARED

METADATA = SHARED / "wsol_metadata"
ONE = Quantity("accuracy", "cub", "center", "max_box_acc", "wsol_2020_v1", 59.7, 0.05, "table 2", "verified", 10)
WHOLE = {"images": 10, "available": 10, "skipped": []}


@pytest.mark.parametrize(
    ("change", "facts", "ours", "expected"),
    [
        ({}, {}, 59.74, "agrees"),
        ({}, {}, 59.66, "agrees"),
        ({}, {}, 59.76, "differs"),
        ({"n": 11}, {}, 59.7, "cannot be judged: a part of the data, 10 of 11 cases"),
        ({}, {"skipped": [{}, {}]}, 59.7, "cannot be judged: 2 images could not be used"),
        ({"confidence": "remembered"}, {}, 59.7, "cannot be judged: the published number is from memory"),
        ({}, {}, float("nan"), "cannot be judged: nothing was scored"),
    ],
)
def test_a_verdict_claims_nothing_that_it_cannot(change, facts, ours, expected) -> None:
    assert verdict(replace(ONE, **change), ours, WHOLE | facts, 10).startswith(expected)


def write_run(folder: Path, cells: list[tuple[str, str, str, float]]) -> Path:
    """A finished run's files. cells: (method, metric, protocol id, value); an id `p-x` comes from preset `p`."""
    folder.mkdir()
    table = pd.DataFrame([dict(zip(("method", "metric", "protocol", "value"), cell, strict=True)) for cell in cells])
    table.assign(n=10).reindex(columns=COLUMNS).to_csv(folder / "summary.csv", index=False)
    ids: dict[str, dict[str, dict[str, str]]] = {}
    for _, metric, protocol, _ in cells:
        ids.setdefault(metric, {})[protocol] = {"preset": protocol.partition("-")[0]}
    (folder / "run.json").write_text(json.dumps(WHOLE | {"protocols": ids}))
    return folder


def test_each_quantity_is_read_from_its_own_cell(tmp_path: Path) -> None:
    cells = [("center", "m", "v1-x", 0.5), ("center", "m", "v2-y", 0.25), ("noise", "m", "v1-x", 0.125)]
    folders = {"a": write_run(tmp_path / "a", cells), "b": write_run(tmp_path / "b", [("center", "m", "v1-z", 0.75)])}
    asked = [("a", "center", "v1", 50.0), ("a", "center", "v2", 20.0), ("a", "noise", "v1", 12.5)]
    asked += [("b", "center", "v1", 75.04), ("b", "center", "v2", 1.0)]
    table = compare(
        [
            Quantity("q", run, method, "m", preset, value, 0.05, "s", "verified", 10)
            for run, method, preset, value in asked
        ],
        folders,
    )
    assert list(table.columns)[:8] == reproduce.COLUMNS
    assert table["ours"].tolist()[:4] == [50, 25, 12.5, 75]
    assert table["protocol"].tolist()[:4] == ["v1-x", "v2-y", "v1-x", "v1-z"]
    assert table["verdict"].tolist()[:4] == ["agrees", "differs", "agrees", "agrees"]
    assert table["verdict"][4].startswith("cannot be judged")
    assert table["difference"].round(9).tolist()[:4] == [0, 5, 0, -0.04]


@pytest.mark.parametrize("name", reproduce.names())
def test_every_experiment_composes_and_names_metrics_that_its_presets_define(name: str) -> None:
    found = experiment(name)
    assert found.about
    assert found.needs
    configs = {
        key: cli.configuration([word.replace("{root}", "ROOT") for word in overrides])
        for key, overrides in found.runs.items()
    }
    for one in found.quantities:
        config = configs[one.run]
        assert one.method in config["method"]
        assert one.metric in config["metric"]
        assert one.metric in catalogue.preset(one.preset, config["preset"][one.preset]).metrics
        assert one.source


def test_wrong_input_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, sentence in (
        (["wsol_centre"], "wsol_center"),
        (["wsol_center"], "dataset.root=DIR is missing"),
        (["wsol_center", "dataset.root=x", "--only", "cup"], "cub"),
        (["wsol_center", f"dataset.root={tmp_path}", "--only", "cub"], str(tmp_path)),
        (["wsol_center", "dataset.root=x", "batchsize=3"], "batch_size"),
    ):
        assert cli.main(["reproduce", *words]) == 2
        assert sentence in capsys.readouterr().err
    with pytest.raises(UserError, match="wsol_center"):
        experiment("wsol_centre")
    assert experiment("paper/wsol_center") == experiment("wsol_center")


@pytest.mark.skipif(not METADATA.is_dir(), reason="the annotation files of wsolevaluation are not here")
@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (["--only", "cub"], 2),
        pytest.param([], 6, marks=pytest.mark.slow),
    ],
)
def test_the_centre_baseline_is_exact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], expected: int
) -> None:
    words = ["reproduce", "wsol_center", f"dataset.root={METADATA}", f"results={tmp_path}", *extra]
    assert cli.main(words) == 0
    table = pd.read_csv(tmp_path / "wsol_center" / "reproduction.csv")
    assert len(table) == expected
    assert (table["difference"].abs() <= 0.05).all()
    assert (table["verdict"] == "agrees").all()
    assert set(table["n"]) <= {5794, 50000}
    assert cli.main(words) == 0  # once more: everything is there already
    capsys.readouterr()


def test_a_limited_run_is_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not METADATA.is_dir():
        pytest.skip("the annotation files of wsolevaluation are not here")
    words = [f"dataset.root={METADATA}", f"results={tmp_path}", "--only", "cub", "--limit", "30"]
    assert cli.main(["reproduce", "wsol_center", *words]) == 0
    table = pd.read_csv(tmp_path / "wsol_center" / "reproduction.csv")
    assert table["verdict"].str.startswith("cannot be judged: a part").all()
    assert set(table["n"]) == {30}
    capsys.readouterr()
