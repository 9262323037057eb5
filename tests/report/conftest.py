"""A run of six cases, small enough to work out by hand.

`max_box_acc` under `wsol_2020_v2` counts in percent: a curve has one IoU below threshold 0.5 and another from there on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gradcam_bench.cells import Rows
from gradcam_bench.report import gallery, page
from gradcam_bench.report.inputs import Chooser, Inputs, Item, Overlay

EVIL = "<script>alert(1)</script>&\"'"
BOX = ("max_box_acc", "wsol_2020_v2")
ERROR = ("localization_error_gt_known", "custom-1a2b3c4d")
POINT = ("pointing_game", "excitation_bp_2016")
CASES = [f"i{k}#{k % 2}" for k in range(6)]
IOUS = {  # (below threshold 0.5, from 0.5 on) of each case
    "grad_cam": [(0.2, 0.9), (0.4, 0.8), (0.6, 0.7), (0.6, 0.45), (0.3, 0.2), (0.1, 0.0)],
    "layer_cam": [(0.7, 0.1), (0.6, 0.1), (0.8, 0.1), (0.5, 0.1), (0.2, 0.1), (0.4, 0.1)],
    "center": [(0.0, 0.3), (0.0, 0.5), (0.0, 0.2), (0.0, 0.1), (0.0, 0.1), (0.0, 0.0)],
}
WRONG = {"grad_cam": [0, 0, 0, 1, 1, 1], "layer_cam": [0, 0, 1, 0, 1, 0], "center": [1, 1, 1, 1, 1, 1]}
HIT = {"grad_cam": [1, 1, 1, 1, 1, None], "layer_cam": [1, 1, 1, 1, 0, 0], "center": [0, 0, 1, 0, 0, 1]}
VALUES = {  # MaxBoxAcc: the mean of the best accuracies at IoU 0.3 and 0.5
    "grad_cam": {BOX: (4 / 6 + 3 / 6) / 2, ERROR: 3 / 6, POINT: 5 / 5},
    "layer_cam": {BOX: (5 / 6 + 4 / 6) / 2, ERROR: 2 / 6, POINT: 4 / 6},
    "center": {BOX: (2 / 6 + 1 / 6) / 2, ERROR: 6 / 6, POINT: 2 / 6},
}


def curve(low: float, high: float) -> np.ndarray:
    """256 float32: levels 0..49, levels 50..99, and what a grid of percents leaves unused."""
    return np.array([low] * 50 + [high] * 50 + [0.0] * 156, dtype=np.float32)


def make_rows() -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for method, ious in IOUS.items():
        for k, case in enumerate(CASES):
            hit = HIT[method][k]
            named = {"image_id": f"i{k}", "case_id": case, "dataset": "toy", "model": "net", "target": "gt"}
            named |= {"stage": "trained", "draw": 0, "method": method, "layer": "layer4", "unit": "case"}
            for (metric, protocol), value, line, problem in (
                (BOX, None, curve(*ious[k]), None),
                (ERROR, float(WRONG[method][k]), None, None),
                (POINT, None if hit is None else float(hit), None, None if hit is not None else "difficult"),
            ):
                rows.append(
                    named | {"metric": metric, "protocol": protocol, "value": value, "curve": line, "problem": problem}
                )
    return pd.DataFrame(rows).astype(dict.fromkeys(("method", "metric", "protocol", "dataset"), "category"))


def whole(rows: Rows) -> pd.DataFrame:
    """The table in memory, curves included."""
    return rows.with_curves(rows.frame)


def make_summary() -> pd.DataFrame:
    named = {"dataset": "toy", "model": "net", "stage": "trained"}
    rows = []
    for method, values in VALUES.items():
        for (metric, protocol), value in values.items():
            ends = (value - 0.05, value + 0.05) if (metric, protocol) == BOX else (np.nan, np.nan)
            n = 5 if (method, metric) == ("grad_cam", "pointing_game") else 6
            row = named | {"method": method, "metric": metric, "protocol": protocol, "n": n, "value": value}
            up = metric != "localization_error_gt_known"
            rows.append(row | {"ci_low": ends[0], "ci_high": ends[1], "higher_is_better": up})
    return pd.DataFrame(rows)


def make_cases() -> pd.DataFrame:
    """Image i4 has two cases, one of them right at top-1."""
    frame = pd.DataFrame({"case_id": [*CASES, "i4#7"], "image_id": [*(f"i{k}" for k in range(6)), "i4"]})
    frame["dataset"], frame["model"], frame["view"] = "toy", "net", "v"
    frame["class_name"] = [EVIL, "dog", "cat", "dog", "cat", "dog", "fox"]
    frame["correct_top1"] = [True, True, False, True, False, False, True]
    frame["correct_top5"] = [True, True, True, True, False, True, True]
    return frame


def make_gallery(rows: Rows) -> list[Item]:
    x = np.tile(np.arange(40), (30, 1))
    items = []
    for case, group, _ in gallery.choose(rows, "grad_cam", *BOX):
        k = CASES.index(case)
        image = np.full((30, 40, 3), 40 * k, dtype=np.uint8)
        overlays = {
            method: Overlay((x + k) / 50, np.array([[m, 2, 20, 15]], dtype=float), IOUS[method][k][1], "IoU at 0.50")
            for m, method in enumerate(IOUS)
        }
        name = EVIL if k == 0 else "dog"
        mask = np.zeros((30, 40), bool)
        mask[8:18, 8:22] = True
        size, right = ("small", "large")[k % 2], (True, False, None)[k % 3]
        truth = np.array([[5.0, 5, 25, 20]])
        chooser = Chooser("grad_cam", *BOX)
        items.append(Item(case, f"i{k}", name, image, truth, overlays, group, chooser, mask, size, right))
    apart = [replace(item, group="disagreed", chooser=Chooser("", *BOX)) for item in items[:1]]
    return items + apart


def make_ties() -> pd.DataFrame:
    """layer_cam and grad_cam cannot be told apart under BOX; the control is worse."""
    named = {"dataset": "toy", "model": "net", "stage": "trained", "metric": BOX[0], "protocol": BOX[1]}
    groups = {"grad_cam": ("a", 0.4, True), "layer_cam": ("a", 1.0, True), "center": ("b", 0.01, False)}
    return pd.DataFrame(
        [
            named | {"method": method, "group": group, "best": "layer_cam", "p_best": p, "tied": tied, "p_least": 0.01}
            for method, (group, p, tied) in groups.items()
        ]
    )


def make_confusion() -> pd.DataFrame:
    """Of six cases, per method."""
    named = {"dataset": "toy", "model": "net", "stage": "trained", "metric": ERROR[0], "protocol": ERROR[1]}
    counts = {"grad_cam": (2, 1, 1, 2), "layer_cam": (3, 0, 1, 2), "center": (0, 3, 0, 3)}
    names = ("both", "class_alone", "place_alone", "neither")
    return pd.DataFrame(
        [
            named | {"method": method, "rule": "a box of IoU 0.5 or more"} | dict(zip(names, found, strict=True))
            for method, found in counts.items()
        ]
    )


PROTOCOLS = {
    "max_box_acc": {
        "wsol_2020_v2": {
            "preset": "wsol_2020_v2",
            "view": {"resize": "warp", "size": 224},
            "axes": {"iou_threshold": [0.3, 0.5], "quantize": "percent", "rule": "wsol_v2"},
        }
    },
    "localization_error_gt_known": {
        "custom-1a2b3c4d": {"preset": "grad_cam_2017", "view": {}, "axes": {"iou_threshold": [0.5], "threshold": 0.3}}
    },
    "pointing_game": {"excitation_bp_2016": {"preset": "excitation_bp_2016", "view": {}, "axes": {"tolerance": 15}}},
}


def make_inputs(folder: Path) -> Inputs:
    rows = make_rows()
    run = {
        "versions": {"torch": "2.15.0"},
        "git": {"commit": "0123abcd"},
        "device": "cpu",
        "finished": "2026-01-02T03:04:05+00:00",
        "protocols": PROTOCOLS,
        "degenerate": {"grad_cam": {"nowhere positive": 2}},
        "skipped": [{"image_id": EVIL, "reason": "the file is cut short"}],
        "refused": {"ablation_cam": "this model has no head"},
    }
    about = {
        "method": {"grad_cam": "Selvaraju et al."},
        "preset": {"wsol_2020_v2": {"about": "MaxBoxAccV2", "source": "https://arxiv.org/abs/2007.04178"}},
    }
    return Inputs(
        f"toy {EVIL}",
        folder,
        make_summary(),
        Rows.of(rows),
        make_cases(),
        run,
        f"dataset: {EVIL!r}\n",
        about,
        make_gallery(Rows.of(rows)),
        ties=make_ties(),
        confusion=make_confusion(),
    )


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return make_inputs(tmp_path)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the run above, with a summary.csv beside it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "summary.csv").write_text("dataset\n")
    return page.write(make_inputs(folder))
