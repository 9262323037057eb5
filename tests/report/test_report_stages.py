"""Sanity curves: means and quartiles over cases, stages in order, the trained network first, no leaderboard a stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CASES, whole

from gradcam_bench.cells import Rows
from gradcam_bench.report import draw, page, style
from gradcam_bench.report.inputs import Inputs
from gradcam_bench.report.panels import Steps
from gradcam_bench.report.stages import over_stages

STAGES = ("cascade_down/01:fc", "cascade_down/02:layer4", "independent/01:layer4", "labels_permuted")


@pytest.fixture
def checked(inputs: Inputs) -> Inputs:
    """The toy run with stages: a case's values over two draws average to its number / 10, less 0.1 a stage."""
    rows = whole(inputs.rows)
    usual = rows[(rows["metric"] == "pointing_game") & (rows["method"] != "layer_cam")]
    parts = [rows]
    for place, stage in enumerate(STAGES):
        for number, shift in ((0, -0.05), (1, 0.05)):
            value = usual["case_id"].map({case: k / 10 for k, case in enumerate(CASES)}).astype(float)
            named = {"stage": stage, "draw": number, "metric": "ssim", "value": value - place / 10 + shift}
            parts.append(usual.assign(**named, reference="trained", problem=None))
    table = pd.concat(parts, ignore_index=True)
    summary = [inputs.summary]
    for stage in STAGES:
        mine = inputs.summary[(inputs.summary["metric"] == "pointing_game") & (inputs.summary["method"] != "layer_cam")]
        summary.append(mine.assign(stage=stage, metric="ssim", higher_is_better=None))
    return replace(inputs, rows=Rows.of(table), summary=pd.concat(summary, ignore_index=True))


def test_a_curve_is_the_mean_over_cases_of_the_mean_over_draws(checked: Inputs) -> None:
    down, alone = over_stages(checked)
    assert (down.name, alone.name) == ("stages-cascade_down", "stages-independent")
    (panel,) = down.panels
    assert isinstance(panel, Steps)
    assert panel.names == ("trained", "fc", "layer4")
    assert [line.method for line in panel.lines] == ["grad_cam", "center"]
    line = panel.lines[0]
    cases = np.arange(6) / 10
    assert line.x.tolist() == [0, 1, 2]
    assert np.allclose(line.y, [1, cases.mean(), cases.mean() - 0.1])
    assert np.allclose(line.low, [1, *(np.quantile(cases, 0.25) - [0, 0.1])])
    assert np.allclose(line.high, [1, *(np.quantile(cases, 0.75) - [0, 0.1])])


def test_stages_of_an_order_are_no_leaderboards(checked: Inputs) -> None:
    assert set(checked.boarded["stage"]) == {"trained", "labels_permuted"}


def test_a_run_without_stages_has_no_curves(inputs: Inputs) -> None:
    assert list(over_stages(inputs)) == []


def test_the_page_shows_them_and_controls_are_dashed(checked: Inputs, tmp_path: Path) -> None:
    written = page.write(replace(checked, folder=tmp_path)).read_text(encoding="utf-8")
    assert "Sanity checks" in written
    assert (tmp_path / "plots" / "stages-cascade_down.svg").is_file()
    plot = next(over_stages(checked))
    picture = draw.svg(draw.figure(plot.panels, style.looks(checked.methods, checked.controls)))
    assert "stroke-dasharray" in picture
    assert "layer4" in picture
    assert picture == draw.svg(draw.figure(plot.panels, style.looks(checked.methods, checked.controls)))


def test_a_page_of_stages_alone(checked: Inputs, tmp_path: Path) -> None:
    rows, summary = whole(checked.rows), checked.summary
    only = replace(
        checked,
        folder=tmp_path,
        rows=Rows.of(rows[rows["stage"] == STAGES[0]]),
        summary=summary[summary["stage"] == STAGES[0]],
        gallery=(),
    )
    assert "Sanity checks" in page.write(only).read_text(encoding="utf-8")
