"""multiverse: does the ranking of methods survive another protocol? All protocols of a grid, on a run's heatmaps.

A paper fixes a dozen choices that another paper fixes otherwise. The grid (`conf/grid/`) lists values of the axes
that a metric reads; every combination that makes sense scores the stored heatmaps of the same cases, and the methods'
ranks under all of them are compared. Box metrics rest on one curve a map, so thresholds and IoUs cost nothing more.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from gradcam_bench import catalogue
from gradcam_bench.analysis.policies import cross_fitted
from gradcam_bench.analysis.reductions import Cell, number
from gradcam_bench.analysis.stability import Stability, ranks_of, stability
from gradcam_bench.choices import Protocol
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.files import atomically, write_text
from gradcam_bench.finished import Finished, open_runs
from gradcam_bench.heatmaps import level
from gradcam_bench.plan import refuse_mixture, view_id
from gradcam_bench.record import load_config
from gradcam_bench.report import outcome, ranking
from gradcam_bench.rescore import Scorer, cell, rescore
from gradcam_bench.runs import finished
from gradcam_bench.terminal import progress

ORACLE, CROSS_FITTED = "oracle", "cross_fitted"  # thresholds that the data choose; see `analysis.policies`
READ_OFF = ("iou_threshold", "threshold")  # a curve


def multiverse(folder: str, grid: str = "boxes", methods: Sequence[str] = (), out: str | None = None) -> int:
    """Writes multiverse.csv (a line a protocol: its choices, each method's number), .md and a plot, into `out` or the
    run's folder, and prints how stable the ranking is."""
    (run,) = open_runs([folder])
    metric, axes = grid_of(grid)
    protocols, scorers = _protocols(metric, axes)
    refused = int(np.prod([len(values) for values in axes.values()])) - len(protocols)
    names, values, n = _values(run, scorers, protocols, tuple(methods))
    signed = values if metric.higher_is_better else -values
    found = stability(signed, names, protocols)
    home = Path(out) if out else run.folder / "multiverse"
    table = pd.concat([pd.DataFrame(protocols), pd.DataFrame(values, columns=names)], axis=1)
    atomically(home / f"{grid}.csv", lambda path: table.to_csv(path, index=False))
    text = as_markdown(metric.label, len(protocols), refused, n, found)
    write_text(home / f"{grid}.md", text)
    files = ranking.write(home, grid, f"{metric.label}, {len(protocols)} protocols", names, ranks_of(signed))
    page = outcome.write(
        home / f"{grid}.html",
        f"{metric.label} under {len(protocols)} protocols",
        f"{run.name}, the same {n} cases. Kendall's tau of two protocols: mean {found.tau:.3f}, smallest "
        f"{found.smallest:.3f}",
        _sections(found),
        home / f"{grid}.svg",
        "How often each method takes each place, in % of the protocols",
        [f"{grid}.csv", f"{grid}.md", *files],
    )
    print(text)
    print(f"table and plot: {home} ({grid}.csv, {grid}.md, {', '.join(files)})\npage: {home / page}")
    return 0


def grid_of(name: str) -> tuple[catalogue.Metric, dict[str, list[Any]]]:
    """The metric and the values of its axes in conf/grid/<name>.yaml."""
    path = catalogue.CONF / "grid" / f"{name}.yaml"
    if not path.is_file():
        raise unknown("grid of protocols", name, catalogue.names("grid"))
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    return catalogue.metric(spec["metric"], catalogue.spec("metric", spec["metric"])), spec["axes"]


def _protocols(
    metric: catalogue.Metric, axes: Mapping[str, Sequence[Any]]
) -> tuple[list[dict[str, Any]], list[Scorer]]:
    """Every combination that makes sense, and the scorer whose units (or curves) its numbers are made of."""
    protocols, scorers = [], []
    for chosen in itertools.product(*axes.values()):
        choices = dict(zip(axes, chosen, strict=True))
        given = {name: value for name, value in choices.items() if name not in READ_OFF}
        protocol = Protocol(given).only(metric.reads)
        try:
            refuse_mixture(protocol, metric)
        except UserError:
            continue
        protocols.append(choices)
        scorers.append(Scorer(metric, protocol))
    return protocols, scorers


def _values(
    run: Finished, scorers: Sequence[Scorer], protocols: Sequence[Mapping[str, Any]], methods: tuple[str, ...]
) -> tuple[list[str], Any, int]:
    """The methods, their numbers [P,k], and on how many cases that all of them have."""
    job = finished(run.folder, load_config(run.folder), run.facts)
    known = [method.label for method in job.plan.methods]
    for name in methods:
        if name not in known:
            raise unknown("method of this run", name, known)
    kept = tuple(method for method in job.plan.methods if not methods or method.label in methods)
    view = next(iter(job.plan.views))
    cases = run.cases
    with progress() as bar:
        mine = cases[cases["view"].astype(str) == view_id(view)]
        task = bar.add_task("score by every protocol", total=mine["image_id"].nunique())
        job = replace(job, plan=replace(job.plan, methods=kept))
        found = rescore(job, view, cases, scorers, advance=lambda: bar.advance(task))
    cells = {key: {label: cell(units, _of(scorers, key)) for label, units in one.items()} for key, one in found.items()}
    names = [label for label in (method.label for method in kept) if all(label in one for one in cells.values())]
    if len(names) < 2:
        raise UserError(f"{run.name} holds heatmaps of {len(names)} method: a ranking takes two (store=all keeps more)")
    both = set.intersection(*({*_cases(one[label])} for one in cells.values() for label in names))
    if not both:
        raise UserError(f"{run.name}: no case can be scored under every protocol of the grid")
    kept_of = {key: {label: _among(one[label], both) for label in names} for key, one in cells.items()}
    values = np.array(
        [
            [_number(kept_of[scorer.key][label], scorer, choices) for label in names]
            for choices, scorer in zip(protocols, scorers, strict=True)
        ]
    )
    return names, values, len(both)


def _of(scorers: Sequence[Scorer], key: tuple[Any, ...]) -> Scorer:
    return next(scorer for scorer in scorers if scorer.key == key)


def _cases(one: Cell) -> Iterator[str]:
    return (f"{image}#{label}" for image, label in zip(one.images, one.classes, strict=True))


def _among(one: Cell, kept: set[str]) -> Cell:
    rows = [n for n, case in enumerate(_cases(one)) if case in kept]
    curves = None if one.curves is None else one.curves[rows]
    return Cell(one.values[rows], curves, one.classes[rows], one.images[rows], one.axes)


def _number(one: Cell, scorer: Scorer, choices: Mapping[str, Any]) -> float:
    """The number under a protocol: by the metric's own reduction, or read off the curves of best IoU at a threshold."""
    if "threshold" not in choices or one.curves is None:
        return number(one, scorer.metric.reduce)
    hits = one.curves >= np.float32(choices["iou_threshold"])
    if choices["threshold"] == ORACLE:
        return float(hits.mean(0).max())
    if choices["threshold"] == CROSS_FITTED:
        images = np.unique(one.images, return_inverse=True)[1]
        return cross_fitted(hits.astype(np.float64), one.classes, images, scorer.metric.reduce)[1]
    return float(hits[:, level(choices["threshold"], scorer.protocol.quantize)].mean())


def _sections(found: Stability) -> list[outcome.Section]:
    methods = [
        (str(name), f"{median:g}", f"{best:g}", f"{worst:g}", f"{100 * first:.1f}")
        for name, median, best, worst, first in found.methods.to_numpy().tolist()
    ]
    choices = [
        (str(name), f"{tau:.3f}", f"{smallest:.3f}", str(pairs))
        for name, tau, smallest, pairs in found.choices.to_numpy().tolist()
    ]
    note = "Kendall's tau of two protocols that differ in this choice alone: the lowest matters most."
    return [
        outcome.Section("Methods", ("method", "median rank", "best", "worst", "first in %"), methods, (1, 2, 3, 4)),
        outcome.Section("Choices", ("choice", "mean tau", "smallest", "pairs"), choices, (1, 2, 3), note),
    ]


def as_markdown(metric: str, protocols: int, refused: int, n: int, found: Stability) -> str:
    """Which method is first how often, and which choice matters. refused: combinations that no program can make."""
    left = f" ({refused} combinations of choices that do not go together are left out)" if refused else ""
    methods, choices = "", ""
    for name, median, best, worst, first in found.methods.to_numpy().tolist():
        methods += f"| {name} | {median:g} | {best:g} | {worst:g} | {100 * first:.1f} |\n"
    for name, tau, smallest, pairs in found.choices.to_numpy().tolist():
        choices += f"| {name} | {tau:.3f} | {smallest:.3f} | {pairs} |\n"
    return (
        f"{metric}, {protocols} protocols{left} on the same {n} cases. Kendall's tau of two protocols: "
        f"mean {found.tau:.3f}, smallest {found.smallest:.3f}.\n\n"
        f"| method | median rank | best | worst | first in % |\n|---|---:|---:|---:|---:|\n{methods}\n"
        f"| choice | mean tau when it alone differs | smallest | pairs |\n|---|---:|---:|---:|\n{choices}"
    )
