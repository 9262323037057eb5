"""What the plots show, as numbers: accuracy over threshold, the distribution of IoU, and each metric's value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gradcam_bench.report import curves, seeds, table
from gradcam_bench.report.curves import Curves, Setting
from gradcam_bench.report.inputs import Inputs
from gradcam_bench.report.panels import Dots, Line, Lines, Plot, Points, slug

THRESHOLD = "threshold (fraction of the map's maximum)"


def all_plots(inputs: Inputs) -> list[Plot]:
    """Every plot of a run: values first, also against cost, then accuracy over threshold and the distribution of IoU
    for box curves, and the mean IoU of seeds."""
    boards = table.boards(inputs.boarded, inputs.controls, inputs.units)
    made = [*values(boards), *against_cost(boards, inputs.costs)]
    order = {name: i for i, name in enumerate(inputs.methods)}
    box = list(curves.box_curves(inputs.rows, inputs.run.get("protocols", {})))
    several = len({found.setting for found in box}) > 1
    for found in box:
        made.append(accuracy_over_threshold(found, order, several))
    for found in box:
        made.append(iou_distribution(found, order, several))
    answers = list(curves.answer_curves(inputs.rows, inputs.run.get("protocols", {})))
    several = len({found.setting for found in answers}) > 1
    made += [answers_over_share(found, order, several) for found in answers]
    swept = list(seeds.sweeps(inputs.rows, inputs.run.get("protocols", {})))
    return made + [iou_over_background(one, order, len({s.setting for s in swept}) > 1) for one in swept]


def answers_over_share(found: Curves, order: Mapping[str, int], several: bool = False) -> Plot:
    """One panel: each method's mean answer over the share of pixels that have gone, or come."""
    lines = []
    for method in _in_order(found, order):
        read = found.methods[method]()
        x = np.linspace(0, 1, read.shape[1])
        lines.append(Line(method, x, 100 * read.mean(0)))
    name, heading = _names("answers", found, several)
    what = {"probability": "mean probability of the class (%)", "top1": "cases whose class comes first (%)"}
    top = max(float(line.y.max()) for line in lines)
    panel = Lines(_title_lines(found), "share of the pixels", what[found.axes["answer"]], tuple(lines), top)
    caption = "The network's answer as pixels are taken from the image, or put into it, the map's largest values first."
    return Plot("answers", name, heading, caption, (panel,))


def iou_over_background(found: seeds.Sweep, order: Mapping[str, int], several: bool = False) -> Plot:
    """One panel: the mean IoU of label maps over the background's level; each method's best level is marked."""
    lines = tuple(
        Line(method, found.levels, 100 * quality, int(quality.argmax()))
        for method, quality in sorted(found.methods.items(), key=lambda pair: order.get(pair[0], len(order)))
    )
    top, right = (max(float(values.max()) for values in part) for part in ([one.y for one in lines], [found.levels]))
    title = f"{found.metric}\n{found.protocol}"
    panel = Lines(title, "level of the background", "mean IoU (%)", lines, top, right=right or 1.0)
    caption = (
        "Mean IoU, over classes and background, of the label maps that all classes' maps make together, at each level "
        "of the background. Large marks are each method's best level, which was chosen on these data."
    )
    stem = slug("seeds", found.metric, found.protocol, *(found.setting if several else ()))
    heading = f"{found.metric} · {found.protocol}" + (f" · {_title(found.setting)}" if several else "")
    return Plot("seeds", stem, heading, caption, (panel,))


def accuracy_over_threshold(found: Curves, order: Mapping[str, int], several: bool = False) -> Plot:
    """One panel for each IoU demanded, of one height; the best threshold of each method is marked."""
    fixed = found.axes.get("threshold")
    guides = () if fixed is None else ((float(fixed), f"threshold {float(fixed):g}"),)
    drawn: dict[float, list[Line]] = {demanded: [] for demanded in found.axes["iou_threshold"]}
    for method in _in_order(found, order):
        read = found.methods[method]()
        for demanded, lines in drawn.items():
            y = 100 * curves.accuracy(read, demanded)
            lines.append(Line(method, curves.thresholds(found.axes), y, int(y.argmax())))
    top = max(float(line.y.max()) for lines in drawn.values() for line in lines)
    name, heading = _names("accuracy", found, several)
    panels = tuple(
        Lines(
            f"{_title_lines(found)} · IoU ≥ {demanded:g}", THRESHOLD, "cases localized (%)", tuple(lines), top, guides
        )
        for demanded, lines in drawn.items()
    )
    caption = (
        "Share of cases whose best box reaches the IoU demanded, at each threshold of the map. "
        "Large marks are each method's maximum; a vertical line is the protocol's fixed threshold."
    )
    return Plot("accuracy", name, heading, caption, panels)


def iou_distribution(found: Curves, order: Mapping[str, int], several: bool = False) -> Plot:
    """One panel: the share of cases with at least an IoU, at each method's own best threshold for IoU 0.5."""
    lines = []
    for method in _in_order(found, order):
        read = found.methods[method]()
        x, y = curves.exceedance(read[:, curves.oracle_level(read)])
        lines.append(Line(method, x, 100 * y))
    guides = tuple((float(demanded), f"{demanded:g}") for demanded in found.axes["iou_threshold"])
    name, heading = _names("iou", found, several)
    panel = Lines(
        _title_lines(found), "IoU of the best box", "cases with at least this IoU (%)", tuple(lines), guides=guides
    )
    caption = (
        "Share of cases that reach an IoU, each method at the one threshold that suits it best at IoU 0.5. "
        "Vertical lines are the IoUs that the protocol demands."
    )
    return Plot("iou", name, heading, caption, (panel,))


def values(boards: Sequence[table.Board]) -> Iterator[Plot]:
    """One plot for each setting, one panel for each column of its board."""
    for board in boards:
        panels = tuple(_dots(board, column, _apart(board, boards)) for column in board.columns)
        name = slug("values", *(board.setting if len(boards) > 1 else ()))
        heading = _title(board.setting) if len(boards) > 1 else "all metrics"
        caption = "Each metric's value, best on top."
        if board.low.notna().any(axis=None):
            caption += " Lines are the run's confidence intervals."
        yield Plot("values", name, heading, caption, panels)


def _apart(board: table.Board, boards: Sequence[table.Board]) -> str:
    """What tells a board's setting from the others', to be written behind a protocol."""
    parts = [part for n, part in enumerate(board.setting) if len({other.setting[n] for other in boards}) > 1]
    return "".join(f" · {part}" for part in parts)


def _dots(board: table.Board, column: table.Column, apart: str) -> Dots:
    numbers = board.values[column.key].dropna()
    ranked = numbers.sort_values(ascending=column.higher_is_better is False, kind="stable")
    methods = tuple(str(name) for name in ranked.index)
    scale = 100.0 if column.unit == "%" else 1.0
    low, high = board.low[column.key], board.high[column.key]
    intervals = tuple(
        (scale * float(low[m]), scale * float(high[m])) if low[m] == low[m] and high[m] == high[m] else None
        for m in methods
    )
    unit = f" ({column.unit})" if column.unit else ""
    arrow = f" {column.arrow}" if column.arrow else ""
    title = f"{column.metric}\n{column.protocol}" + apart
    points = tuple(scale * float(ranked[m]) for m in methods)
    limits = (0.0, 100.0) if column.unit == "%" else (-math.inf, math.inf)
    return Dots(title, f"{column.metric}{unit}{arrow}", methods, points, intervals, limits)


def against_cost(boards: Sequence[table.Board], costs: Mapping[str, float]) -> Iterator[Plot]:
    """One plot for each setting, one panel for each column that ranks: its value against the seconds a heatmap took."""
    for board in boards:
        ranked = [column for column in board.columns if column.higher_is_better is not None]
        panels = tuple(_points(board, column, costs, _apart(board, boards)) for column in ranked)
        panels = tuple(panel for panel in panels if len(panel.methods) > 1)
        if panels:
            name = slug("cost", *(board.setting if len(boards) > 1 else ()))
            heading = _title(board.setting) if len(boards) > 1 else "all metrics"
            caption = (
                "Each metric's value against what one heatmap took in this run. The line joins the methods that no "
                "other is both cheaper and better than; open points are controls."
            )
            yield Plot("cost", name, heading, caption, panels)


def _points(board: table.Board, column: table.Column, costs: Mapping[str, float], apart: str) -> Points:
    numbers = board.values[column.key].dropna()
    scale, up = 100.0 if column.unit == "%" else 1.0, column.higher_is_better is not False
    methods = sorted((str(m) for m in numbers.index if costs.get(str(m), 0.0) > 0), key=costs.__getitem__)
    front: list[str] = []
    for method in methods:
        value = float(numbers[method])
        if not front or (value > float(numbers[front[-1]]) if up else value < float(numbers[front[-1]])):
            front.append(method)
    unit, arrow = f" ({column.unit})" if column.unit else "", f" {column.arrow}" if column.arrow else ""
    x = tuple(1000 * costs[m] for m in methods)
    y = tuple(scale * float(numbers[m]) for m in methods)
    title = f"{column.metric}\n{column.protocol}" + apart
    ylabel = f"{column.metric}{unit}{arrow}"
    return Points(title, "milliseconds a heatmap", ylabel, tuple(methods), x, y, tuple(front))


def _in_order(found: Curves, order: Mapping[str, int]) -> list[str]:
    return sorted(found.methods, key=lambda method: order.get(method, len(order)))


def _names(kind: str, found: Curves, several: bool) -> tuple[str, str]:
    """(file stem, heading) of a plot of curves."""
    stem = slug(kind, found.metric, found.protocol, *(found.setting if several else ()))
    return stem, f"{found.metric} · {found.protocol}" + (f" · {_title(found.setting)}" if several else "")


def _title_lines(found: Curves) -> str:
    return f"{found.metric}\n{found.protocol}"


def _title(setting: Setting) -> str:
    return " · ".join(part for part in setting if part)
