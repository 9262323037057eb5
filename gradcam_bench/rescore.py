"""A finished run's heatmaps under many protocols at once: what `diff` and the multiverse ask.

Each image becomes one trial, and all protocols see that trial, so what they share (resized maps, component trees,
curves of best IoU) is worked out once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradcam_bench.analysis.reductions import Cell, number
from gradcam_bench.catalogue import Metric
from gradcam_bench.choices import Protocol, View
from gradcam_bench.plan import Run
from gradcam_bench.replay import Played, replay
from gradcam_bench.scoring import in_order, make_trial, outcomes, threads


class Scorer(NamedTuple):
    """A metric under one protocol (restricted to what it reads)."""

    metric: Metric
    protocol: Protocol

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for scorers that give the same."""
        return (self.metric.label, *self.protocol.items())


class Scored(NamedTuple):
    """One method's units under one scorer, case by case; value and curve are None where it could not be scored."""

    cases: list[str]
    values: list[float | None]
    curves: list[Any]


def rescore(
    job: Run,
    view: View,
    cases: pd.DataFrame,
    scorers: Sequence[Scorer],
    images: Collection[str] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> dict[tuple[Any, ...], dict[str, Scored]]:
    """scorer key -> method -> units, of the images (None: all) of a run under one view. Needs no model: methods whose
    heatmaps were not stored are missing. advance: called after each image."""
    different = {scorer.key: scorer for scorer in scorers}
    found: dict[tuple[Any, ...], dict[str, Scored]] = {key: {} for key in different}

    def score(played: Played) -> list[tuple[tuple[Any, ...], str, str, Any, Any]]:
        trial, where, _ = make_trial(job.plan.methods, played.cases, played.maps, {})
        if trial is None:
            return []
        made = []
        for key, (metric, protocol) in different.items():
            for (case, method), outcome in zip(where, outcomes(metric, trial.under(protocol)), strict=True):
                made.append((key, method.label, case.id, *outcome[:2]))
        return made

    with threads() as pool:
        for rows in in_order(pool, score, replay(job, view, cases, images)):
            for key, method, case, value, curve in rows:
                units = found[key].setdefault(method, Scored([], [], []))
                units.cases.append(case)
                units.values.append(value)
                units.curves.append(curve)
            advance()
    return found


def cell(units: Scored, scorer: Scorer, among: Collection[str] | None = None) -> Cell:
    """The scored units as a cell; among: only these cases."""
    kept = [
        n
        for n, case in enumerate(units.cases)
        if (units.values[n] is not None or units.curves[n] is not None) and (among is None or case in among)
    ]
    curves = [units.curves[n] for n in kept]
    named = [units.cases[n].rpartition("#") for n in kept]
    return Cell(
        np.array([np.nan if units.values[n] is None else units.values[n] for n in kept], dtype=np.float64),
        np.stack(curves).astype(np.float32) if curves and all(curve is not None for curve in curves) else None,
        np.array([label for _, _, label in named], dtype=object),
        np.array([image for image, _, _ in named], dtype=object),
        scorer.protocol,
    )


def numbers(found: Mapping[str, Scored], scorer: Scorer, among: Collection[str] | None = None) -> dict[str, float]:
    """Each method's number."""
    return {label: number(cell(units, scorer, among), scorer.metric.reduce) for label, units in found.items()}
