"""The tables by kind, from hand-made numbers."""

from __future__ import annotations

import pandas as pd

from gradcam_bench.report import kinds

NAMES = ["dataset", "model", "stage", "method", "metric", "protocol", "kind", "n", "value", "higher_is_better"]
ROWS = [
    ("captions", "captioner", "trained", "grad_cam", "pointing_game", "default", "shape", 8, 0.875, True),
    ("captions", "captioner", "trained", "center", "pointing_game", "default", "shape", 8, 0.25, True),
    ("captions", "captioner", "trained", "grad_cam", "pointing_game", "default", "colour", 7, 0.5, True),
    ("captions", "captioner", "trained", "grad_cam", "inside_outside_ratio", "default", "shape", 6, 3.267, True),
    ("captions", "captioner", "trained", "center", "inside_outside_ratio", "default", "shape", 8, 1.0, True),
]


def test_kinds_down_methods_across() -> None:
    ratio, pointing = sorted(kinds.boards(pd.DataFrame(ROWS, columns=NAMES)), key=lambda board: board.title)
    assert pointing.title == "pointing_game % ↑, default (captions · captioner)"
    assert pointing.methods == ("grad_cam", "center")
    assert pointing.lines == (("colour", "7", ("50.0", "–")), ("shape", "8", ("87.5", "25.0")))
    assert ratio.lines == (("shape", "6–8", ("3.27", "1.00")),)  # no share: as it is
    assert kinds.as_text(pointing).splitlines() == [
        "pointing_game % ↑, default (captions · captioner)",
        "kind    n  grad_cam  center",
        "──────  ─  ────────  ──────",
        "colour  7      50.0       –",
        "shape   8      87.5    25.0",
    ]
