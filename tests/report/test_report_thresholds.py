"""Tables of thresholds as they are printed."""

import numpy as np
import pandas as pd

from gradcam_bench.report.thresholds import as_text, boards


def line(method, policy, threshold, value, metric="localization_error_gt_known", iou=0.5):
    named = {"dataset": "voc", "model": "net", "stage": "trained", "method": method, "metric": metric, "protocol": "p"}
    return named | {"iou": iou, "policy": policy, "threshold": threshold, "value": value, "n": 9, "leak": False}


LINES = [
    line("cam", "fixed", 0.15, 0.5),
    line("cam", "cross_fitted", 0.2, 0.4),
    line("cam", "oracle", 0.21, 0.375),
    line("cam", "image_oracle", np.nan, 0.1),
    line("center", "fixed", 0.15, 0.9),
    line("center", "cross_fitted", 0.5, 0.8),
    line("center", "oracle", 0.5, 0.8),
    line("center", "image_oracle", np.nan, 0.8),
]


def test_an_error_by_hand() -> None:
    (board,) = boards(pd.DataFrame(LINES), {"localization_error_gt_known": False})
    assert as_text(board).splitlines() == [
        "localization_error_gt_known, p (voc · net), in %, lower is better, by how its threshold is chosen",
        "method        fixed  cross-fitted  oracle (leak)  image oracle (leak)  gap",
        "──────  ───────────  ────────────  ─────────────  ───────────────────  ───",
        "cam     50.0 (0.15)   40.0 (0.20)    37.5 (0.21)                 10.0  2.5",
        "center  90.0 (0.15)   80.0 (0.50)    80.0 (0.50)                 80.0  0.0",
    ]
    assert board.heads == ["fixed", "cross-fitted", "oracle (leak)", "image oracle (leak)", "gap"]
    assert board.cells("cam") == ["50.0 (0.15)", "40.0 (0.20)", "37.5 (0.21)", "10.0", "2.5"]
    assert board.cells("center")[-1] == "0.0"


def test_of_several_ious_the_mean_is_shown_and_without_folds_no_gap() -> None:
    lines = [line("cam", "oracle", 0.1, 0.8, "max_box_acc", 0.3), line("cam", "oracle", 0.2, 0.2, "max_box_acc", 0.7)]
    lines.append(line("cam", "oracle", np.nan, 0.5, "max_box_acc", np.nan))
    (board,) = boards(pd.DataFrame(lines), {"max_box_acc": True})
    assert board.heads == ["oracle (leak)"]
    assert board.cells("cam") == ["50.0"]
