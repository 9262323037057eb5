"""What the report of a run is made of. Nothing here knows where it came from: the pipeline fills it in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradcam_bench.cells import Rows

CONTROLS = ("center", "noise", "constant", "edges", "input_intensity")  # those in the catalogue

Picture = NDArray[np.uint8]  # [H,W,3]
Heat = NDArray[np.floating[Any]]  # [H,W] in [0, 1]
Boxes = NDArray[np.floating[Any]]  # [N,4] xyxy, half-open, source pixels


class Chooser(NamedTuple):
    """Whose score put a case into the gallery; method empty: the scores of all but controls."""

    method: str
    metric: str
    protocol: str


@dataclass(frozen=True)
class Overlay:
    """One method's answer for one case, in the source frame.

    heatmap [H,W] in [0, 1]. boxes [N,4]: predicted, half-open source pixels. score: what `caption` says it is (an IoU,
    a 0/1, ...), None where the case was not scored.
    """

    heatmap: Heat
    boxes: Boxes
    score: float | None
    caption: str


@dataclass(frozen=True)
class Item:
    """One case of the gallery. image uint8 [H,W,3], true_boxes [G,4] half-open source pixels, overlays by method.

    group: `best`, `median`, `worst` or `disagreed`, as `gallery` has it; chooser: by whose score. true_mask: bool
    [H,W], None where the data have none. size: small, medium or large, empty where unknown; correct: whether the class
    is the network's first answer, None without a classifier.
    """

    case_id: str
    image_id: str
    class_name: str
    image: Picture
    true_boxes: Boxes
    overlays: Mapping[str, Overlay]
    group: str
    chooser: Chooser
    true_mask: NDArray[np.bool_] | None = None
    size: str = ""
    correct: bool | None = None


@dataclass(frozen=True)
class Inputs:
    """A finished run, as the report sees it.

    summary: columns dataset, model, stage, method, metric, protocol, n, value, ci_low, ci_high, higher_is_better.
    rows, cases: the tables of schemas.ROWS and CASES. run: the contents of run.json. config: YAML text.
    about: {"method" | "metric": {label: one line}, "preset": {name: one line, or a mapping with `about`, `source`}}.
    units: what a metric's value is measured in; a metric not named is a share in [0, 1] and shown in percent.
    thresholds, ties, confusion: the tables of `analysis.policies`, `.ties`, `.confusion`, where there are any.
    kinds: that of `analysis.strata` by kind of case. failures: the study of misclassified images (`report.failures`).
    """

    title: str
    folder: Path
    summary: pd.DataFrame
    rows: Rows
    cases: pd.DataFrame
    run: Mapping[str, Any]
    config: str = ""
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gallery: Sequence[Item] = ()
    controls: Collection[str] = CONTROLS
    units: Mapping[str, str] = field(default_factory=dict)
    thresholds: pd.DataFrame | None = None
    ties: pd.DataFrame | None = None
    confusion: pd.DataFrame | None = None
    failures: Any = None
    kinds: pd.DataFrame | None = None

    @property
    def costs(self) -> dict[str, float]:
        """Seconds that one heatmap of each method took, where they were measured; of several views, all together."""
        found = {}
        for method, views in self.run.get("costs", {}).items():
            cases = sum(cost["cases"] for cost in views.values())
            found[method] = sum(cost["seconds"] for cost in views.values()) / max(cases, 1)
        return found

    @property
    def boarded(self) -> pd.DataFrame:
        """The summary without stages that are one of many, `<order>/<number>:<unit>`: those are curves."""
        return self.summary[~self.summary["stage"].astype(str).str.contains("/")]

    @property
    def methods(self) -> list[str]:
        """Every method with a number, in the summary's order, controls last."""
        named = list(dict.fromkeys(self.summary["method"].astype(str)))
        return sorted(named, key=lambda name: name in self.controls)
