"""From heatmaps to rows: one image's heatmaps become a trial, and every job scores it.

Images are scored in threads beside the one that explains: the kernels release the interpreter's lock, and on maps this
small an image a thread is faster than several threads an image.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from gradcam_bench import heatmaps
from gradcam_bench.answers import Case
from gradcam_bench.catalogue import Method, Metric
from gradcam_bench.choices import Protocol, View
from gradcam_bench.errors import UserError, verdict
from gradcam_bench.plan import Job, Run
from gradcam_bench.probe import Probe
from gradcam_bench.rows import score_row
from gradcam_bench.trial import Trial
from gradcam_bench.witnesses import witness_of

T = TypeVar("T")
R = TypeVar("R")
Floats = NDArray[Any]
BROKEN = "heatmap not finite"  # the problem of a unit that no metric sees


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    """A thread a core (or as many as OMP_NUM_THREADS says), each computing on itself alone. What an error or an
    interrupt leaves waiting is dropped."""
    pool = ThreadPoolExecutor(_count(), "score", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int = 32) -> Iterator[R]:
    """work(item) of each item, in their order, computed in the pool while the next `ahead` items are being fetched."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _count() -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else len(os.sched_getaffinity(0))


def score_image(
    job: Run, view: View, jobs: Iterable[Job], cases: Sequence[Case], maps: Mapping[str, Sequence[Tensor]]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One image's rows, and its notes (what `make_trial` counts). maps: each method's heatmaps of the image's cases."""
    notes: dict[str, Any] = {}
    trial, where, broken = make_trial(job.plan.methods, cases, maps, notes)
    return score_trial(job, view, jobs, trial, where, broken) if job.score else [], notes


def question_image(
    job: Run, view: View, jobs: Sequence[Job], cases: Sequence[Case], maps: Mapping[str, Sequence[Tensor]], probe: Probe
) -> list[dict[str, Any]]:
    """One image's rows of metrics that question the network (`needs: model`); arguments as of `score_image`."""
    if not jobs or job.network is None:
        return []
    trial, where, broken = make_trial(job.plan.methods, cases, maps, {})
    if trial is not None:
        trial = replace(trial, witness=witness_of(job.network, probe, view, where, job.budget))
    return score_trial(job, view, jobs, trial, where, broken)


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
        reasons = heatmaps.degenerate(torch.stack(list(grids)), method.rectify)
        for case, grid, reason in zip(cases, grids, reasons, strict=True):
            if reason:
                counts = notes.setdefault("degenerate", {}).setdefault(method.label, {})
                counts[reason] = counts.get(reason, 0) + 1
            if reason == "not finite":
                broken.append((case, method, BROKEN))
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
        methods=[method.label for _, method, _ in units],
        picture=sample.picture,
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
            for (case, method), outcome in zip(where, outcomes(one.metric, seen), strict=True):
                rows.append(score_row(job, view, case, method, one, *outcome))
        rows.extend(score_row(job, view, case, method, one, None, None, why) for case, method, why in broken)
    return rows


def outcomes(metric: Metric, trial: Trial) -> list[tuple[float | None, Floats | None, str | None]]:
    """For each unit of a trial its value, its curve and, where it has neither, the reason why."""
    values, curves = _statistics(metric, trial)
    found = []
    for unit in range(len(trial)):
        value = None if values is None or values[unit].isnan() else float(values[unit])
        curve = None if curves is None or curves[unit].isnan().any() else curves[unit].numpy()
        scored = value is not None or curve is not None
        found.append((value, curve, None if scored else trial.notes.get(unit, "undefined")))
    return found


def _statistics(metric: Metric, trial: Trial) -> tuple[Tensor | None, Tensor | None]:
    """A metric's values [U] and curves [U,T] (either may be None); what its function gets wrong becomes a sentence."""
    try:
        made = metric.function(trial)
    except Exception as error:
        if verdict(error):
            raise
        raise UserError(f"metric {metric.label} failed: {type(error).__name__}: {error}") from error
    values, curves = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    for part, dimensions in ((values, 1), (curves, 2)):
        fits = isinstance(part, Tensor) and part.ndim == dimensions and len(part) == len(trial)
        if (part is not None and not fits) or (values is None and curves is None):
            shape = list(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise UserError(f"metric {metric.label} must return one statistic a unit, [{len(trial)}]; got {shape}")
    return values, curves
