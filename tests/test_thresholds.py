"""Thresholds chosen in several ways, from the command line on: tables, the page, a validation run."""

from pathlib import Path

import pandas as pd
import pytest

from gradcam_bench import cli


def test_a_runs_thresholds_and_those_of_a_validation_run(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path
) -> None:
    words = ["model=none", "method=[center,noise]", "metric=[max_box_acc,localization_error_gt_known,pixel_ap]"]
    words += ["preset=[wsol_2020_v2,grad_cam_2017,wsol_2020_pxap]", f"dataset.root={scenes_root}", "workers=0"]
    for name, limit in (("test", 8), ("val", 4)):
        assert cli.main(["run", *words, f"results={tmp_path}", f"name={name}", f"limit={limit}"]) == 0
    home = tmp_path / "run" / "test"
    table = pd.read_csv(home / "thresholds.csv")
    summary = pd.read_csv(home / "summary.csv").set_index(["method", "metric"])["value"]
    assert set(table["policy"]) == {"fixed", "cross_fitted", "oracle", "image_oracle"}
    assert set(table["metric"]) == {"max_box_acc", "localization_error_gt_known"}  # PxAP's counts are no such curve
    of = table.set_index(["method", "metric", "policy"]).sort_index()
    for method in ("center", "noise"):
        known = of.loc[(method, "localization_error_gt_known", "fixed")]
        assert known["value"].item() == pytest.approx(summary[method, "localization_error_gt_known"])
        assert known["threshold"].item() == 0.15
        best = of.loc[(method, "max_box_acc", "oracle")]
        assert best.loc[best["iou"].isna(), "value"].item() == pytest.approx(summary[method, "max_box_acc"])
    assert 0 < summary["center", "pixel_ap"] < 1
    assert {"summary_by_size.csv", "summary_by_class.csv"} <= {path.name for path in home.iterdir()}
    capsys.readouterr()
    assert cli.main(["report", str(home), "--validation", str(tmp_path / "run" / "val")]) == 0
    assert "validation" in capsys.readouterr().out
    again = pd.read_csv(home / "thresholds.csv")
    chosen = again[again["policy"] == "validation"]
    assert not chosen["leak"].any()
    theirs = pd.read_csv(tmp_path / "run" / "val" / "thresholds.csv").query("policy == 'oracle'")
    keys = ["method", "metric", "iou"]
    ours, theirs = (one.dropna(subset="iou").set_index(keys)["threshold"].to_dict() for one in (chosen, theirs))
    assert ours == pytest.approx(theirs)
    html = (home / "report.html").read_text()
    assert 'id="thresholds"' in html
    assert 'href="thresholds.csv"' in html
    assert cli.main(["report", str(home), "--validation", str(tmp_path / "nowhere")]) == 2
