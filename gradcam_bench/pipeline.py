"""The loops: explain (model -> heatmaps), score (heatmaps -> rows), run (both, streaming). Nothing else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradcam_bench import heatmaps
from gradcam_bench.catalogue import Method
from gradcam_bench.choices import Protocol, View
from gradcam_bench.errors import UserError
from gradcam_bench.explain import Case, explain_batch
from gradcam_bench.geometry import area
from gradcam_bench.models.network import Network, Preprocessing
from gradcam_bench.plan import Job, Plan, view_id
from gradcam_bench.probe import Probe
from gradcam_bench.samples import Annotation, Batch, Dataset, Samples, Skipped, load
from gradcam_bench.store import GRID_LIMIT, Part, Store, map_key
from gradcam_bench.trial import Trial

FIRST_PART_SECONDS, PART_SECONDS = 1.0, 20.0  # how much work a kill may cost: parts double in length up to that
PART_BYTES = 64 * 2**20
SMALL, MEDIUM = 32**2, 96**2  # COCO's cuts, in source pixels: an object's area below is small, below is medium


@dataclass(frozen=True)
class Run:
    """Everything that the loop needs, decided. network None: only methods that need no model; label and layer
    then name the model that made the stored heatmaps."""

    dataset: Dataset
    network: Network | None
    plan: Plan
    store: Store
    preprocessing: Preprocessing
    batch_size: int = 8
    workers: int = 0
    keep: str = "grid"  # grid | all | none
    on_error: str = "skip"  # skip | raise
    score: bool = True
    indices: Sequence[int] = field(default_factory=tuple)
    rank: int = 0
    label: str = "none"
    layer: str | None = None

    @property
    def model(self) -> str:
        return self.network.name if self.network else self.label

    def layer_of(self, view: View) -> str | None:
        return view.layer or (self.network.layer if self.network else self.layer)


def run(job: Run, advance: Callable[[int], None] = lambda n: None) -> None:
    """Explains and scores what no part of the store has yet, and writes parts as it goes.

    advance(n): called as n more samples of one view are done. Raises UserError on the first broken sample when
    on_error is `raise`.
    """
    for view, jobs in job.plan.views.items():
        prefix = f"{view_id(view)}-"
        done = {index for part in job.store.finished(prefix).values() for index in part["done"]}
        todo = [index for index in job.indices if index not in done]
        advance(len(job.indices) - len(todo))
        samples = Samples(job.dataset, job.preprocessing, view, todo, job.plan.masks)
        probe = None
        if job.network is not None:
            probe = Probe(job.network.module, [view.layer or job.network.layer], view.score)
        part, started, size, patience = Part(), time.monotonic(), 0, FIRST_PART_SECONDS
        for batches, skipped in load(samples, job.batch_size, job.workers) if todo else ():
            _note_skipped(part, skipped, job.on_error)
            for batch in batches:
                _note_problems(part, batch, job.on_error)
                size += _process(job, view, jobs, probe, batch, part)
            advance(sum(len(batch.samples) for batch in batches) + len(skipped))
            if time.monotonic() - started > patience or size > PART_BYTES:
                _write(job, prefix, part)
                part, started, size, patience = Part(), time.monotonic(), 0, min(2 * patience, PART_SECONDS)
        if part.done:
            _write(job, prefix, part)


def _write(job: Run, prefix: str, part: Part) -> None:
    job.store.add(f"{prefix}{min(part.done):08d}-{job.rank:03d}", part)


def _process(job: Run, view: View, jobs: Sequence[Job], probe: Probe | None, batch: Batch, part: Part) -> int:
    """One batch: heatmaps, cases, rows, all added to the part; returns the bytes of heatmaps kept."""
    start = time.perf_counter()
    cases, maps = explain_batch(batch, job.network, probe, job.plan.methods, view, job.batch_size)
    seconds = (time.perf_counter() - start) / max(len(cases), 1)
    part.done.extend(sample.index for sample in batch.samples)
    part.cases.extend(case_rows(job, view, cases, seconds))
    kept = _keep(job, view, cases, maps, part)
    for image_id in dict.fromkeys(case.sample.annotation.image_id for case in cases):
        mine = [q for q, case in enumerate(cases) if case.sample.annotation.image_id == image_id]
        units = {label: [grids[q] for q in mine] for label, grids in maps.items()}
        trial, where, broken = make_trial(job.plan.methods, [cases[q] for q in mine], units, part.notes)
        if job.score:
            part.rows.extend(score_trial(job, view, jobs, trial, where, broken))
    for sample in batch.samples:
        if not any(case.sample is sample for case in cases):
            _note_skipped(part, [Skipped(sample.index, sample.annotation.image_id, "no class is annotated")], "skip")
    return kept


def make_trial(
    methods: Sequence[Method], cases: Sequence[Case], maps: Mapping[str, Sequence[Tensor]], notes: dict[str, Any]
) -> tuple[Trial | None, list[tuple[Case, Method]], list[tuple[Case, Method, str]]]:
    """All methods' heatmaps of one image's cases as one trial, the (case, method) of each unit, and those whose map is
    not finite, which no metric sees. Degenerate maps are counted in notes["degenerate"][method][reason]."""
    units: list[tuple[Case, Method, Tensor]] = []
    broken = []
    for method in methods:
        grids = maps.get(method.label, ())
        if not len(grids):
            continue
        reasons = heatmaps.degenerate(heatmaps.rectify(torch.stack(list(grids)), method.rectify))
        for case, grid, reason in zip(cases, grids, reasons, strict=True):
            if reason:
                counts = notes.setdefault("degenerate", {}).setdefault(method.label, {})
                counts[reason] = counts.get(reason, 0) + 1
            if reason == "not finite":
                broken.append((case, method, "heatmap not finite"))
            else:
                units.append((case, method, grid))
    if not units:
        return None, [], broken
    sample = cases[0].sample
    trial = Trial(
        [grid for _, _, grid in units],
        [method.rectify for _, method, _ in units],
        [case.target for case, _, _ in units],
        [case.rank for case, _, _ in units],
        sample.frame,
        sample.annotation,
        Protocol(),
    )
    return trial, [(case, method) for case, method, _ in units], broken


def score_trial(
    job: Run,
    view: View,
    jobs: Iterable[Job],
    trial: Trial | None,
    where: Sequence[tuple[Case, Method]],
    broken: Sequence[tuple[Case, Method, str]],
) -> list[dict[str, Any]]:
    """The rows of one image: every job's statistic for every unit, or the reason why there is none."""
    rows = []
    for one in jobs:
        if trial is not None:
            seen = trial.under(one.protocol)
            made = one.metric.function(seen)
            values, curves = made if isinstance(made, tuple) else (made, None)
            for unit, (case, method) in enumerate(where):
                value = None if values is None or values[unit].isnan() else float(values[unit])
                curve = None if curves is None or curves[unit].isnan().any() else curves[unit].tolist()
                problem = None if value is not None or curve is not None else seen.notes.get(unit, "undefined")
                rows.append(_row(job, view, case, method, one, value, curve, problem))
        rows.extend(_row(job, view, case, method, one, None, None, why) for case, method, why in broken)
    return rows


def _row(
    job: Run, view: View, case: Case, method: Method, one: Job, value: float | None, curve: Any, problem: str | None
) -> dict[str, Any]:
    return {
        "image_id": case.sample.annotation.image_id,
        "case_id": case.id,
        "dataset": job.dataset.name,
        "model": job.model,
        "target": view.target,
        "stage": "trained",
        "draw": 0,
        "method": method.label,
        "layer": job.layer_of(view) if "evidence" in method.takes else None,
        "metric": one.metric.label,
        "unit": one.metric.unit,
        "reference": None,
        "protocol": one.id,
        "value": value,
        "curve": curve,
        "problem": problem,
    }


def case_rows(job: Run, view: View, cases: Sequence[Case], seconds: float) -> list[dict[str, Any]]:
    """One row a case for cases.parquet. Costs are per case: an image's one forward is shared by its cases."""
    per_image = Counter(case.sample.annotation.image_id for case in cases)
    rows = []
    for case in cases:
        a = case.sample.annotation
        mine = a.labels == case.target
        fraction = _largest(a, case.target) / (a.size[0] * a.size[1])
        looked = float(job.network is not None)
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
                "correct_top1": None if case.rank is None else case.rank < 1,
                "correct_top5": None if case.rank is None else case.rank < 5,
                "forwards": looked / per_image[a.image_id],
                "head_forwards": 0.0,
                "backwards": looked,
                "seconds": seconds,
            }
        )
    return rows


def _largest(a: Annotation, target: int) -> float:
    """Area of the largest box of the class, in source pixels; 0 without one."""
    boxes = a.boxes[a.labels == target]
    return float(area(boxes).max()) if len(boxes) else 0.0


def _stratum(pixels: float) -> str:
    return "small" if pixels < SMALL else "medium" if pixels < MEDIUM else "large"


def _keep(job: Run, view: View, cases: Sequence[Case], maps: dict[str, Tensor], part: Part) -> int:
    """Puts into the part what `store=` keeps: `grid` maps up to 32x32 in float32, `all` larger ones in float16 too."""
    kept = 0
    for method in job.plan.methods if job.keep != "none" else ():
        grids = maps.get(method.label)
        if grids is None or (max(grids.shape[-2:]) > GRID_LIMIT and job.keep != "all"):
            continue
        large = max(grids.shape[-2:]) > GRID_LIMIT
        for case, grid in zip(cases, grids.half() if large else grids, strict=True):
            entry = {
                "key": map_key(case.sample.digest, _model_key(job), asdict(view), method.key(), case.target),
                "image_id": case.sample.annotation.image_id,
                "case_id": case.id,
                "model": job.model,
                "view": view_id(view),
                "stage": "trained",
                "draw": 0,
                "method": method.label,
                "layer": job.layer_of(view),
                "problem": None,
            }
            part.maps.append((entry, grid.clone()))
            kept += grid.nbytes
    return kept


def _model_key(job: Run) -> str:
    return f"{job.network.digest}/{job.network.layer}" if job.network else "none"


def _note_skipped(part: Part, skipped: Iterable[Skipped], on_error: str) -> None:
    for one in skipped:
        if on_error == "raise":
            raise UserError(one.reason)
        part.notes.setdefault("skipped", []).append({"image_id": one.image_id, "reason": one.reason})
        if one.index not in part.done:
            part.done.append(one.index)


def _note_problems(part: Part, batch: Batch, on_error: str) -> None:
    for problem in (p for sample in batch.samples for p in sample.annotation.problems):
        if on_error == "raise":
            raise UserError(problem)
        part.notes.setdefault("problems", []).append(problem)
