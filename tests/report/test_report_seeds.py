"""Seeds on the page, from two methods' counts on three cases, worked out by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradcam_bench.cells import Rows
from gradcam_bench.report import page, plots, seeds
from gradcam_bench.report.inputs import Inputs

# Two levels; a case: TP, FP, FN of its class at each, then those of the background on the image's first case.
COUNTS = {
    "grad_cam": {
        "i0#7": [4, 2, 1, 0, 1, 3, 5, 9, 1, 2, 2, 0],
        "i0#12": [2, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        "i1#7": [0, 3, 0, 1, 4, 1, 6, 6, 3, 2, 0, 1],
    },
    "center": {
        "i0#7": [0, 0, 0, 0, 5, 5, 7, 7, 7, 7, 0, 0],
        "i0#12": [2, 0, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0],
        "i1#7": [4, 4, 0, 0, 0, 0, 6, 6, 0, 0, 0, 0],
    },
}
# pooled: background 11 15 / 4 4 / 2 1, class 7 4 5 / 1 1 / 5 4, class 12 2 2 / 2 1 / 0 0
GRAD_CAM = [(11 / 17 + 4 / 10 + 2 / 4) / 3, (15 / 20 + 5 / 10 + 2 / 3) / 3]
# background 13 13 / 7 7 / 0, class 7 4 4 / 0 0 / 5 5, class 12 2 0 / 1 0 / 0 2
CENTER = [(13 / 20 + 4 / 9 + 2 / 3) / 3, (13 / 20 + 4 / 9 + 0) / 3]
PROTOCOLS = {
    "seed_miou_best": {"irn_2019": {"axes": {"background_levels": [0.5, 0.0]}, "preset": "irn_2019"}},
    "seed_miou": {"irn_2019": {"axes": {"background": 0.5}, "preset": "irn_2019"}},
}


def rows() -> Rows:
    made = []
    for method, by_case in COUNTS.items():
        for case, counts in by_case.items():
            named = {"image_id": case[:2], "case_id": case, "dataset": "toy", "model": "net", "stage": "trained"}
            named |= {"method": method, "protocol": "irn_2019", "value": np.nan, "problem": None}
            curve = np.array(counts, np.float32)
            made.append(named | {"metric": "seed_miou_best", "curve": curve})
            made.append(named | {"metric": "seed_miou", "curve": curve[1::2]})
    return Rows.of(pd.DataFrame(made))


CASES = pd.DataFrame({"class_index": [7, 12, 7], "class_name": ["cat", "<b>", "cat"]})


def test_curves_by_hand() -> None:
    (found,) = seeds.sweeps(rows(), PROTOCOLS)
    assert found.levels.tolist() == [0.0, 0.5]
    assert found.methods["grad_cam"].tolist() == pytest.approx(GRAD_CAM)
    assert found.methods["center"].tolist() == pytest.approx(CENTER)


def test_classes_by_hand() -> None:
    (found,) = seeds.classes(rows(), PROTOCOLS, CASES, ["grad_cam", "center"])
    assert (found.protocol, found.methods) == ("irn_2019", ("grad_cam", "center"))
    assert found.lines == (
        ("background", (("75.0", True), ("65.0", False))),
        ("cat", (("50.0", True), ("44.4", False))),
        ("<b>", (("66.7", True), ("0.0", False))),
    )


def test_the_plot_marks_each_methods_best_level() -> None:
    (found,) = seeds.sweeps(rows(), PROTOCOLS)
    plot = plots.iou_over_background(found, {"grad_cam": 0, "center": 1})
    (panel,) = plot.panels
    assert [(line.method, line.peak) for line in panel.lines] == [("grad_cam", 1), ("center", 0)]
    assert panel.lines[0].y.tolist() == pytest.approx([100 * value for value in GRAD_CAM])
    assert (plot.kind, plot.name, panel.right) == ("seeds", "seeds-seed_miou_best-irn_2019", 0.5)


def test_a_page_of_seeds(tmp_path: Path) -> None:
    keys = ["dataset", "model", "stage", "method", "metric", "protocol"]
    summary = rows().frame[keys].drop_duplicates()
    summary = summary.assign(n=3, value=0.5, ci_low=np.nan, ci_high=np.nan, higher_is_better=True)
    named = {
        "image_id": ["i0", "i0", "i1"],
        "case_id": list(COUNTS["center"]),
        "dataset": "toy",
        "model": "net",
        "view": "v",
    }
    cases = CASES.assign(**named, correct_top1=None, correct_top5=None)
    inputs = Inputs("toy", tmp_path, summary, rows(), cases, {"protocols": PROTOCOLS})
    text = page.write(inputs).read_text(encoding="utf-8")
    assert "IoU of each class, in percent" in text
    assert "&lt;b&gt;" in text
    assert '<th scope="row"><b></th>' not in text
    assert (tmp_path / "plots" / "seeds-seed_miou_best-irn_2019.svg").is_file()
    assert "Seeds over the background" in text
