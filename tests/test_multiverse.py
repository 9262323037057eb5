"""The multiverse on a run of controls: every number is the one that the protocol alone gives."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradcam_bench import catalogue
from gradcam_bench.axes import AXES, check_axis
from gradcam_bench.cli import main
from gradcam_bench.multiverse import CROSS_FITTED, ORACLE, READ_OFF, _protocols, grid_of

RUN = [
    "model=none",
    "method=[center,noise,constant]",
    "metric=[max_box_acc]",
    "preset=[default]",
    "workers=0",
    "limit=8",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    assert main(["run", *RUN, f"results={results}", "name=one"]) == 0
    return results / "run" / "one"


@pytest.mark.parametrize("name", catalogue.names("grid"))
def test_every_grid_is_of_axes_that_its_metric_reads(name: str) -> None:
    metric, axes = grid_of(name)
    for axis, values in axes.items():
        for value in values:
            if value not in (ORACLE, CROSS_FITTED):
                assert check_axis(axis, value) is not None
        assert axis in metric.reads or axis in READ_OFF
        assert len(values) == len(set(map(str, values)))
    assert set(axes) <= set(AXES)
    protocols, scorers = _protocols(metric, axes)
    assert len(protocols) == len(scorers)
    every = [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*axes.values())]
    for choices in every:  # all but what is 8-connected by definition
        assert (choices in protocols) == (choices.get("rule") != "wsol_v2" or choices["connectivity"] == 8)
    assert len(every) - len(protocols) == {"boxes": 240, "points": 0}[name]


def test_boxes_are_more_than_five_hundred_protocols_of_every_choice() -> None:
    protocols = _protocols(*grid_of("boxes"))[0]
    assert len(protocols) >= 500
    choices = {"normalize", "resize", "frame", "threshold", "rule", "connectivity", "iou_threshold", "matching"}
    for name in choices:
        assert len({str(one[name]) for one in protocols}) > 1


def test_a_number_is_that_of_its_protocol_alone(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["multiverse", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "1200 protocols (240 combinations of choices that do not go together are left out) on" in said
    assert "| connectivity |" in said
    table = pd.read_csv(folder / "multiverse" / "boxes.csv")
    assert len(table) == 1200
    assert {path.suffix for path in (folder / "multiverse").iterdir()} == {
        ".csv",
        ".md",
        ".svg",
        ".pdf",
        ".png",
        ".html",
    }
    rng = np.random.default_rng(0)
    for number in (rng.choice(table.index[table["threshold"] == kind]) for kind in (ORACLE, CROSS_FITTED, "0.2")):
        row = table.iloc[number]
        fixed = row["threshold"] not in (ORACLE, CROSS_FITTED)
        axes = [name for name in grid_of("boxes")[1] if name in table and (fixed or name != "threshold")]
        axes = [f"protocol.{name}={row[name]}" for name in axes]
        metric = "localization_error_gt_known" if fixed else "max_box_acc"
        words = [*RUN[:2], f"metric=[{metric}]", *RUN[3:], *axes, f"results={folder.parent.parent}", f"name=n{number}"]
        assert main(["run", *words]) == 0
        summary = pd.read_csv(folder.parent / f"n{number}" / "summary.csv").set_index("method")["value"]
        if row["threshold"] == CROSS_FITTED:
            chosen = pd.read_csv(folder.parent / f"n{number}" / "thresholds.csv").set_index("policy").loc[CROSS_FITTED]
            summary = chosen.set_index("method")["value"]
        for method in ("center", "noise"):
            assert row[method] == pytest.approx(1 - summary[method] if fixed else summary[method])


def test_a_grid_without_curves(folder: Path, tmp_path: Path) -> None:
    assert (
        main(["multiverse", str(folder), "--grid", "points", "--methods", "center,noise", "--out", str(tmp_path)]) == 0
    )
    table = pd.read_csv(tmp_path / "points.csv")
    assert len(table) == 96
    assert table[["center", "noise"]].notna().all(axis=None)
    # a pixel more of tolerance never makes a point miss
    keys = [name for name in grid_of("points")[1] if name != "tolerance"]
    wide = table.pivot_table(index=keys, columns="tolerance", values="center")
    assert (wide[15] >= wide[0]).all()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--grid", "boxs"], "did you mean 'boxes'"),
        (["--methods", "centre"], "did you mean 'center'"),
        (["--methods", "center"], "a ranking takes two"),
        (["limit=3"], "unexpected 'limit=3'"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["multiverse", str(folder), *words]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("asked", ["experiment=multiverse", "multiverse=boxes"])
def test_a_run_ends_with_it(asked: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["method=[grad_cam,eigen_cam]", "metric=[max_box_acc]", "limit=2", "workers=0", f"results={tmp_path}"]
    assert main(["run", asked, *words]) == 0
    assert "1200 protocols" in capsys.readouterr().out


def test_a_wrong_grid_is_said_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "multiverse=boxs", f"results={tmp_path}"]) == 2
    assert "did you mean 'boxes'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
