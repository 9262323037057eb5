"""The lines of the two tables: what was scored (rows.parquet) and what was asked (cases.parquet). See `schemas`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gradcam_bench.answers import Case
from gradcam_bench.augment import count
from gradcam_bench.catalogue import Method
from gradcam_bench.choices import View
from gradcam_bench.geometry import area
from gradcam_bench.plan import Job, Run, view_id
from gradcam_bench.samples import Annotation

SMALL, MEDIUM = 32**2, 96**2  # COCO's cuts, in source pixels: an object's area below is small, below is medium


def score_row(
    job: Run, view: View, case: Case, method: Method, one: Job, value: float | None, curve: Any, problem: str | None
) -> dict[str, Any]:
    """One line of rows.parquet: a metric's statistic for one method's heatmap of one case, or why there is none."""
    return {
        "image_id": case.sample.annotation.image_id,
        "case_id": case.id,
        "dataset": job.dataset.name,
        "model": job.model,
        "target": view.target,
        "stage": "trained",
        "draw": 0,
        "method": method.label,
        "layer": (method.at or job.layer_of(view)) if method.sees else None,
        "metric": one.metric.label,
        "unit": one.metric.unit,
        "reference": None,
        "protocol": one.id,
        "value": value,
        "curve": curve,
        "problem": problem,
        "view": view_id(view),
    }


def case_rows(job: Run, view: View, cases: Sequence[Case], seconds: float) -> list[dict[str, Any]]:
    """One row a case for cases.parquet. Costs are per case: an image's one forward is shared by its cases."""
    per_image = Counter(case.sample.annotation.image_id for case in cases)
    rows = []
    for case in cases:
        a = case.sample.annotation
        mine = a.labels == case.target
        fraction = _largest(a, case.target) / (a.size[0] * a.size[1])
        looked = float(job.network is not None) * count(view.augment)
        rows.append(
            {
                "image_id": a.image_id,
                "case_id": case.id,
                "dataset": job.dataset.name,
                "model": job.model,
                "target": view.target,
                "view": view_id(view),
                "class_index": case.target,
                "class_name": job.dataset.classes[case.target] if case.target < len(job.dataset.classes) else None,
                "width": a.size[1],
                "height": a.size[0],
                "n_instances": int(mine.sum()),
                "area_fraction": fraction if mine.any() else None,
                "size": _stratum(_largest(a, case.target)) if mine.any() else None,
                "difficult": bool(a.difficult[mine].all()) if mine.any() else None,
                "logit": case.logit,
                "probability": case.probability,
                "rank": case.rank,
                "predicted": case.predicted,
                "correct_top1": _among(case, 1),
                "correct_top5": _among(case, 5),
                "forwards": looked / per_image[a.image_id],
                "head_forwards": 0.0,
                "backwards": looked,
                "seconds": seconds,
                "kind": _kind(job, case.target),
            }
        )
    return rows


def _kind(job: Run, target: int) -> str | None:
    """Of which kind the class is, where the data set tells kinds apart."""
    kinds = getattr(job.dataset, "kinds", None)
    return kinds[target] if kinds is not None and target < len(kinds) else None


def _among(case: Case, count: int) -> bool | None:
    """Whether an annotated class is among the model's first `count` answers; None without a model."""
    return None if case.predicted is None else case.best is not None and case.best < count


def _largest(a: Annotation, target: int) -> float:
    """Area of the largest box of the class, in source pixels; 0 without one."""
    boxes = a.boxes[a.labels == target]
    return float(area(boxes).max()) if len(boxes) else 0.0


def _stratum(pixels: float) -> str:
    return "small" if pixels < SMALL else "medium" if pixels < MEDIUM else "large"
