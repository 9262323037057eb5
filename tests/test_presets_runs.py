"""Runs under published presets from the command line: end to end, in any batches, scored again from stored heatmaps."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradcam_bench import cli

PRESETS = "preset=[cam_2016_code,layer_cam_2021,torchray_2019]"
METRICS = "metric=[localization_error_gt_known,localization_error_top1,pointing_game]"
METHODS = "method=[cam,grad_cam,layer_cam_code,center,noise]"


def ran(root: Path, results: Path, name: str, *words: str) -> Path:
    settings = [f"dataset.root={root}", f"results={results}", f"name={name}", "limit=6", "workers=0", "device=cpu"]
    assert cli.main(["run", PRESETS, METRICS, METHODS, *settings, *words]) == 0
    return results / "run" / name


@pytest.fixture(scope="module")
def stored(scenes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran(scenes_root, tmp_path_factory.mktemp("runs"), "stored", "store=all", "batch_size=4")


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "rows.parquet")


def test_three_recipes_end_to_end(stored: Path) -> None:
    rows, cases = rows_of(stored), pd.read_parquet(stored / "cases.parquet")
    per = rows.groupby(["protocol", "metric"], observed=True).size()
    count = cases["case_id"].nunique()
    assert per.to_dict() == {
        ("cam_2016_code", "localization_error_gt_known"): 5 * count,
        ("cam_2016_code", "localization_error_top1"): 5 * count,
        ("layer_cam_2021", "localization_error_gt_known"): 5 * count,
        ("layer_cam_2021", "localization_error_top1"): 5 * count,
        ("torchray_2019", "pointing_game"): 5 * count,
    }
    assert rows["value"].notna().all()
    assert sorted(set(cases.groupby("view", observed=True)["backwards"].max())) == [1, 10]
    assert (stored / "report.html").stat().st_size > 10_000
    summary = pd.read_csv(stored / "summary.csv").set_index(["method", "protocol", "metric"])["value"]
    looking, control = (summary[m, "torchray_2019", "pointing_game"] for m in ("cam", "noise"))
    assert looking > control
    both = [summary[m, "layer_cam_2021", "localization_error_gt_known"] for m in ("cam", "center")]
    assert both[0] < both[1]


def test_the_size_of_a_batch_changes_no_bit_of_ten_crops(stored: Path, scenes_root: Path, tmp_path: Path) -> None:
    rows, other = rows_of(stored), rows_of(ran(scenes_root, tmp_path, "one", "store=none", "batch_size=1"))
    for protocol in ("cam_2016_code", "layer_cam_2021"):
        one, two = (table[table["protocol"] == protocol] for table in (rows, other))
        for column in ("case_id", "method", "metric", "value"):
            assert list(one[column]) == list(two[column])
        curves = [np.stack(table["curve"].dropna().to_list()) for table in (one, two)]
        assert np.array_equal(*curves)


def test_stored_heatmaps_are_scored_again(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = shutil.copytree(stored, tmp_path / "copy")
    before = rows_of(stored)
    assert cli.main(["score", str(stored), PRESETS, METRICS]) == 0
    after = rows_of(stored)
    for column in ("case_id", "method", "metric", "protocol"):
        assert list(before[column].astype(str)) == list(after[column].astype(str))
    assert (before["value"] - after["value"]).abs().mean() < 0.02  # large maps were kept as float16
    looked = (before["protocol"] == "torchray_2019") & before["method"].isin(["cam", "grad_cam", "layer_cam_code"])
    assert (before["value"] == after["value"])[looked].all()
    boxes = "metric=[localization_error_gt_known,localization_error_top1]"
    assert cli.main(["score", str(stored), boxes, "preset=[cam_2016_code]", "protocol.iou_threshold=0.1"]) == 0
    rows = rows_of(stored)
    easier = rows[rows["protocol"].astype(str).str.startswith("custom-")]
    assert set(easier["metric"].astype(str)) >= {"localization_error_gt_known", "localization_error_top1"}
    assert easier["value"].notna().all()
    assert cli.main(["score", str(stored), boxes, "preset=[grad_cam_2017]"]) == 2
    assert "holds no heatmaps under this view: run it" in capsys.readouterr().err


def test_heatmaps_of_crops_that_were_not_stored_are_a_sentence(
    scenes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ran(scenes_root, tmp_path, "grids", "limit=2")
    capsys.readouterr()
    assert cli.main(["score", str(folder), "preset=[layer_cam_2021]", "metric=[localization_error_gt_known]"]) == 0
    assert "not scored: the heatmaps of cam were not stored (store=grid); run with store=all" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["preset=[torchray_2019]", "view.augment=ten_crop"], "view.augment=ten_crop needs view.crop, in pixels"),
        (["view.augment=ten_crop"], "view.augment=ten_crop needs view.crop, in pixels"),
        (["preset=[cam_2016_code]", METRICS, "view.crop=300"], "view.crop=300 is larger than view.size=256"),
        (["preset=[cam_2016_code]", METRICS, "protocol.quantize=percent"], "cam_2016_code has thresholds of 255"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(
    words: list[str], sentence: str, scenes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"dataset.root={scenes_root}", f"results={tmp_path}", "workers=0"]
    assert cli.main(["run", *words, *settings]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert sentence in told[-1]
    assert not list(tmp_path.iterdir()), "refused before any work"
