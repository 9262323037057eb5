"""The loops: explain (model -> heatmaps), score (heatmaps -> rows), run (both, streaming). Nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from torch import Tensor

from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.explain import Case, explain_batch
from gradcam_bench.plan import Job, Run, view_id
from gradcam_bench.probe import Probe
from gradcam_bench.rows import case_rows
from gradcam_bench.samples import Batch, Samples, Skipped, load
from gradcam_bench.scoring import make_trial, score_trial
from gradcam_bench.store import GRID_LIMIT, Part, map_key

FIRST_PART_SECONDS, PART_SECONDS = 1.0, 20.0  # how much work a kill may cost: parts double in length up to that
PART_BYTES = 64 * 2**20


def run(job: Run, advance: Callable[[int], None] = lambda n: None) -> None:
    """Explains and scores what no part of the store has yet, and writes parts as it goes.

    advance(n): called as n more samples of one view are done. Raises UserError on the first broken sample when
    on_error is `raise`. Whatever ends it early, what is done by then is written.
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
        try:
            for batches, skipped in load(samples, job.batch_size, job.workers) if todo else ():
                made = Part()  # joins the others when it is whole
                _note_skipped(made, skipped, job.on_error)
                for batch in batches:
                    _note_problems(made, batch, job.on_error)
                    size += _process(job, view, jobs, probe, batch, made)
                part.extend(made)
                advance(sum(len(batch.samples) for batch in batches) + len(skipped))
                if time.monotonic() - started > patience or size > PART_BYTES:
                    _write(job, prefix, part)
                    part, started, size, patience = Part(), time.monotonic(), 0, min(2 * patience, PART_SECONDS)
        finally:
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
