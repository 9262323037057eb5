"""The loops: explain (model -> heatmaps), score (heatmaps -> rows), run (both, streaming). Nothing else."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from gradcam_bench.answers import Case
from gradcam_bench.attack import attacked
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.explain import explain_batch
from gradcam_bench.ledger import Cost
from gradcam_bench.loading import load
from gradcam_bench.plan import Job, Run, view_id
from gradcam_bench.probe import Probe
from gradcam_bench.rows import case_rows
from gradcam_bench.samples import Batch, Samples, Skipped
from gradcam_bench.scoring import question_image, score_image, threads
from gradcam_bench.staging import Seen, Staging
from gradcam_bench.store import GRID_LIMIT, Part, map_key

FIRST_PART_SECONDS, PART_SECONDS = 1.0, 20.0  # how much work a kill may cost: parts double in length up to that
PART_BYTES = 64 * 2**20
AHEAD = {"cpu": 0, "gpu": 2}  # batches explained and not yet scored


@dataclass(frozen=True)
class Explained:
    """A batch whose heatmaps are there and whose images are being scored: a future (rows, notes) an image. asked: rows
    for which the network was questioned, which is done at once. staged: the rows of its stages (and their heatmaps, in
    `stages`, where they are kept)."""

    batch: Batch
    cases: list[Case]
    maps: dict[str, Tensor]
    costs: dict[str, Cost]
    seconds: float
    scored: list[Future[tuple[list[dict[str, Any]], dict[str, Any]]]]
    asked: list[dict[str, Any]] = field(default_factory=list)
    staged: list[dict[str, Any]] = field(default_factory=list)
    stages: list[Seen] = field(default_factory=list)


def run(job: Run, advance: Callable[[int], None] = lambda n: None) -> None:
    """Explains and scores what no part of the store has yet, and writes parts as it goes.

    advance(n): called as n more samples of one view are done. Raises UserError on the first broken sample when
    on_error is `raise`. Whatever ends it early, what is done by then is written. While a GPU explains, the batches
    before are scored; a CPU finishes one before it begins the next, as both would want all of its cores.
    """
    with threads() as pool:
        for view, jobs in job.plan.views.items():
            _run_view(job, view, jobs, pool, advance)


def _run_view(
    job: Run, view: View, jobs: Sequence[Job], pool: ThreadPoolExecutor, advance: Callable[[int], None]
) -> None:
    prefix = f"{view_id(view)}-"
    done = {index for part in job.store.finished(prefix).values() for index in part["done"]}
    todo = [index for index in job.indices if index not in done]
    advance(len(job.indices) - len(todo))
    probe = None
    if job.network is not None:
        probe = Probe(job.network.module, [view.layer or job.network.layer], view.score)
    on_gpu = job.network is not None and next(job.network.module.parameters()).is_cuda
    looked_at = job.plan.pictures or any("images" in method.takes for method in job.plan.methods)
    unseen = job.network is None and not looked_at
    samples = Samples(job.dataset, job.preprocessing, view, todo, job.plan.masks, unseen, job.plan.pictures)
    alone = job.preprocessing.varies(view) and not unseen
    full = 1 if alone else job.batch_size
    staging, jobs = _staging(job, view, jobs, probe, full)
    part, started, size, patience = Part(), time.monotonic(), 0, FIRST_PART_SECONDS
    waiting: deque[Explained] = deque()
    try:
        for batches, skipped in load(samples, job.batch_size, job.workers, on_gpu, alone) if todo else ():
            _note_skipped(part, skipped, job.on_error)
            for batch in batches:
                _note_problems(part, batch, job.on_error)
                waiting.append(_explain(job, view, jobs, probe, batch, pool, full, staging))
            while len(waiting) > (AHEAD["gpu"] if on_gpu else AHEAD["cpu"]):
                size += _settle(job, view, waiting.popleft(), part, advance)
            advance(len(skipped))
            if time.monotonic() - started > patience or size > PART_BYTES:
                size += sum(_settle(job, view, waiting.popleft(), part, advance) for _ in range(len(waiting)))
                _write(job, prefix, part)
                part, started, size, patience = Part(), time.monotonic(), 0, min(2 * patience, PART_SECONDS)
        for explained in waiting:
            _settle(job, view, explained, part, advance)
    finally:
        if part.done:
            _write(job, prefix, part)


def _write(job: Run, prefix: str, part: Part) -> None:
    job.store.add(f"{prefix}{min(part.done):08d}-{job.rank:03d}", part)


def _explain(
    job: Run,
    view: View,
    jobs: Sequence[Job],
    probe: Probe | None,
    batch: Batch,
    pool: ThreadPoolExecutor,
    full: int,
    staging: Staging | None = None,
) -> Explained:
    """One batch's heatmaps, handed image by image to the threads that score; what asks the network is scored here, as
    are those of its stages."""
    start = time.perf_counter()
    if view.attack != "none" and job.network is not None and probe is not None:
        batch = attacked(batch, job.network, probe, full)
    cases, maps, costs = explain_batch(batch, job.network, probe, job.plan.methods, view, full, job.budget)
    seconds = (time.perf_counter() - start) / max(len(cases), 1)
    scored, asked = [], []
    on_maps, on_model = ([one for one in jobs if one.metric.needs == needs] for needs in ("maps", "model"))
    for sample in batch.samples:
        mine = [q for q, case in enumerate(cases) if case.sample is sample]
        if mine:
            units = {label: [grids[q] for q in mine] for label, grids in maps.items()}
            scored.append(pool.submit(score_image, job, view, on_maps, [cases[q] for q in mine], units))
            if probe is not None and job.score:
                asked.extend(question_image(job, view, on_model, [cases[q] for q in mine], units, probe))
    stages: list[Seen] = []
    staged = staging.rows(batch, cases, maps, pool, stages if job.randomize.keep else None) if staging else []
    return Explained(batch, cases, maps, costs, seconds, scored, asked, staged, stages)


def _staging(
    job: Run, view: View, jobs: Sequence[Job], probe: Probe | None, full: int
) -> tuple[Staging | None, Sequence[Job]]:
    """What scores the jobs that need stages, None if there are none, and the other jobs."""
    needing = [one for one in jobs if one.metric.needs == "stages"]
    others = [one for one in jobs if one.metric.needs != "stages"]
    wanted = needing and probe is not None and job.score
    return (Staging(job, view, needing, probe, full) if wanted and probe else None), others


def _settle(job: Run, view: View, explained: Explained, part: Part, advance: Callable[[int], None]) -> int:
    """Waits until a batch is scored and adds it to the part when it is whole: rows, cases, heatmaps; returns about how
    many bytes that is."""
    made = Part(done=[sample.index for sample in explained.batch.samples])
    for future in explained.scored:
        rows, notes = future.result()
        made.extend(Part(rows=rows, notes=notes))
    made.rows.extend([*explained.asked, *explained.staged])
    made.cases.extend(case_rows(job, view, explained.cases, explained.seconds))
    made.notes["costs"] = {
        label: {view_id(view): {"cases": len(explained.cases), **asdict(cost)}}
        for label, cost in explained.costs.items()
    }
    for sample in explained.batch.samples:
        if not any(case.sample is sample for case in explained.cases):
            _note_skipped(made, [Skipped(sample.index, sample.annotation.image_id, "no class is annotated")], "skip")
    kept = _keep(job, view, explained, made)
    part.extend(made)
    advance(len(explained.batch.samples))
    return kept + sum(1000 if row["curve"] is None else 1000 + row["curve"].nbytes for row in made.rows)


def _keep(job: Run, view: View, explained: Explained, part: Part) -> int:
    """Puts into the part what `store=` keeps: `grid` maps up to 32x32 in float32, `all` larger ones in float16 too."""
    kept = _keep_stage(job, view, explained, part, explained.maps)
    for seen in explained.stages:
        if seen.compares != "smoothed":
            kept += _keep_stage(job, view, explained, part, seen.maps, seen.stage, seen.draw)
    return kept


def _keep_stage(
    job: Run,
    view: View,
    explained: Explained,
    part: Part,
    maps: dict[str, Tensor],
    stage: str = "trained",
    draw: int = 0,
) -> int:
    kept, choices, model, cases = 0, view.facts, _model_key(job), explained.cases
    named = "" if stage == "trained" else f"{stage}/{draw}/{job.randomize}"
    for method in job.plan.methods if job.keep != "none" else ():
        grids = maps.get(method.label)
        if grids is None or (max(grids.shape[-2:]) > GRID_LIMIT and job.keep != "all"):
            continue
        large = max(grids.shape[-2:]) > GRID_LIMIT
        cost = asdict(explained.costs[method.label].per(len(cases)))
        for case, grid in zip(cases, _halved(grids) if large else grids, strict=True):
            entry = {
                "key": map_key(case.sample.digest, model, choices, method.key(), case.target, named),
                "image_id": case.sample.annotation.image_id,
                "case_id": case.id,
                "model": job.model,
                "view": view_id(view),
                "stage": stage,
                "draw": draw,
                "method": method.label,
                "layer": method.at or job.layer_of(view),
                "problem": None,
                **cost,
            }
            part.maps.append((entry, grid.clone()))
            kept += grid.nbytes
    return kept


def _halved(maps: Tensor) -> Tensor:
    """Maps [Q,H,W] as float16, or as they are where that would cost more than a thousandth of a map's range."""
    halved = maps.half()
    lost = (halved.float() - maps).abs().amax((1, 2))
    return halved if bool((lost <= 1e-3 * maps.abs().amax((1, 2))).all()) else maps


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
