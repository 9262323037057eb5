"""The page of a run: one HTML file that needs nothing else, and the plots beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from gradcam_bench.analysis.accuracy import classifiers
from gradcam_bench.files import write_text
from gradcam_bench.report import (
    confusion,
    draw,
    facts,
    failures,
    kinds,
    plots,
    seeds,
    stages,
    style,
    table,
    templates,
    thresholds,
)
from gradcam_bench.report.inputs import Inputs
from gradcam_bench.report.latex import as_latex
from gradcam_bench.report.mean_ranks import mean_ranks
from gradcam_bench.report.style import Look
from gradcam_bench.report.thumbnails import Group, groups

SIZES = ("small", "medium", "large")
PLOT_KINDS = {
    "values": "Values",
    "ranks": "Mean ranks",
    "cost": "Quality against cost",
    "accuracy": "Accuracy over threshold",
    "iou": "Distribution of IoU",
    "stages": "Sanity checks",
    "answers": "Answers as pixels go",
    "seeds": "Seeds over the background's level",
}


@dataclass(frozen=True)
class Drawn:
    """A plot as the page shows it: one SVG element a panel, and the files that hold the whole."""

    plot: plots.Plot
    panels: tuple[Markup, ...]
    files: tuple[str, ...]


def write(inputs: Inputs) -> Path:
    """Writes plots/ and report.html into the run's folder, each file whole or not at all; returns the page's path.

    Plots of an earlier report that this one does not have are removed.
    """
    looks = style.looks(inputs.methods, inputs.controls)
    drawn: list[Drawn] = []
    kept: set[str] = set()
    for number, plot in enumerate([*plots.all_plots(inputs), *mean_ranks(inputs), *stages.over_stages(inputs)]):
        files = _write_plot(inputs.folder, plot, looks)
        kept.update(files)
        drawn.append(_drawn(number, plot, looks, files))
    for path in (inputs.folder / "plots").glob("*"):
        if path.suffix in (".svg", ".pdf", ".png") and f"plots/{path.name}" not in kept:
            path.unlink()
    path = inputs.folder / "report.html"
    write_text(path, render(inputs, drawn, looks))
    return path


def render(inputs: Inputs, drawn: list[Drawn], looks: Mapping[str, Look]) -> str:
    """The page's HTML. Every name in it is escaped by the template; only our own script may run."""
    environment = templates.environment()
    environment.filters["breakable"] = breakable
    source = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    shown, left_out = groups(inputs.gallery, inputs.methods)
    return environment.get_template("page.html.j2").render(
        **_numbers(inputs),
        **{name: getattr(inputs, name) for name in ("title", "run", "config", "about", "controls", "methods")},
        style=templates.stylesheet(),
        script=Markup(source),
        policy=_policy(source),
        plots={heading: [d for d in drawn if d.plot.kind == kind] for kind, heading in PLOT_KINDS.items()},
        looks=looks,
        gallery=shown,
        gallery_methods=_gallery_methods(shown, inputs.methods),
        left_out=left_out,
        filters=_filters(shown),
        masked=any(thumbnail.true_mask for group in shown for thumbnail in group.thumbnails),
        failures=failures.section(environment, inputs.failures, inputs.controls),
    )


def _numbers(inputs: Inputs) -> dict[str, Any]:
    """What the template prints besides pictures."""
    boards = table.boards(inputs.boarded, inputs.controls, inputs.units, inputs.ties)
    directions = {column.metric: column.higher_is_better for board in boards for column in board.columns}
    return {
        "boards": [(board, as_latex(board)) for board in boards],
        "thresholds": []
        if inputs.thresholds is None
        else thresholds.boards(inputs.thresholds, directions, _best_first(boards)),
        "confusions": [] if inputs.confusion is None else confusion.tables(inputs.confusion, _best_first(boards)),
        "kinds": confusion.HEADS,
        "by_kind": [] if inputs.kinds is None else kinds.boards(inputs.kinds),
        "tiles": facts.tiles(inputs),
        "byline": facts.byline(inputs),
        "classifiers": facts.seen(inputs.run, classifiers(inputs.cases)),
        "cards": facts.cards(inputs.run.get("protocols", {}), inputs.about.get("preset", {})),
        "degenerate": facts.degenerate(inputs.run.get("degenerate", {})),
        "unscored": facts.unscored(inputs.rows.frame),
        "seeds": list(seeds.classes(inputs.rows, inputs.run.get("protocols", {}), inputs.cases, inputs.methods)),
        "costs": facts.costs(inputs.run),
        "provenance": facts.provenance(inputs.run),
        "downloads": [name for name in facts.DOWNLOADS if (inputs.folder / name).is_file()],
    }


def _best_first(boards: list[table.Board]) -> list[str]:
    return list(dict.fromkeys(method for board in boards for method in board.methods))


def breakable(name: str) -> Markup:
    """A name that may break after its underscores and hyphens, escaped."""
    return Markup(str(escape(name)).replace("_", "_<wbr>").replace("-", "-<wbr>"))


def _gallery_methods(shown: list[Group], methods: list[str]) -> list[str]:
    """The methods with a map in the gallery, in the order of the run, those without a number last."""
    named = {layer.method for group in shown for thumbnail in group.thumbnails for layer in thumbnail.layers}
    return [m for m in methods if m in named] + sorted(named.difference(methods))


def _filters(shown: list[Group]) -> list[tuple[str, str, list[str]]]:
    """(attribute of a case, words, values) of each filter that parts the gallery's cases."""
    cases = [thumbnail for group in shown for thumbnail in group.thumbnails]
    found = [
        ("name", "Class", sorted({case.class_name for case in cases})),
        ("size", "Size", [size for size in SIZES if any(case.size == size for case in cases)]),
        ("answer", "Classifier", [word for word in ("right", "wrong") if any(case.answer == word for case in cases)]),
    ]
    return [one for one in found if len(one[2]) > 1]


def _policy(source: str) -> str:
    """A content security policy: no network at all, no script but the page's own."""
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _write_plot(folder: Path, plot: plots.Plot, looks: Mapping[str, Look]) -> tuple[str, ...]:
    sheet = draw.figure(plot.panels, looks)
    return tuple(f"plots/{name}" for name in draw.save(sheet, folder / "plots", plot.name))


def _drawn(number: int, plot: plots.Plot, looks: Mapping[str, Look], files: tuple[str, ...]) -> Drawn:
    panels = []
    for i, panel in enumerate(plot.panels):
        alt = str(escape(f"{PLOT_KINDS[plot.kind]}: {', '.join(panel.title.splitlines())}"))
        panels.append(Markup(draw.inline(panel, looks, f"plot{number}-{i}", alt)))
    return Drawn(plot, tuple(panels), files)
