"""Panels -> SVG and PNG, by matplotlib, byte for byte the same for the same numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradcam_bench.files import atomically, write_text
from gradcam_bench.report.panels import Dots, Line, Lines, Panel, Points, Steps
from gradcam_bench.report.style import GRID, INK, MUTED, VARIABLES, Look

PANEL = (3.7, 2.75)  # inches
COLUMNS = 3
STEPS, NAMED = 3.9, 16  # height in inches of a panel of stages, and how many of their names it has room for
LEGEND_ROWS = 18  # a panel's height of them
MARKED = 9  # marks along a curve, about
RC: dict[str, Any] = {
    "svg.hashsalt": "gradcam-bench",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # fonts that printers and editors take
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


def figure(panels: Sequence[Panel], looks: Mapping[str, Look], legend: bool = True) -> Figure:
    """All panels on one sheet, at most COLUMNS across, with a legend to their right where there are curves."""
    with mpl.rc_context(RC):
        across = min(COLUMNS, len(panels))
        down = -(-len(panels) // across)
        curved = [panel for panel in panels if isinstance(panel, Lines)]
        dotted = [panel for panel in panels if isinstance(panel, Points)]
        named = -(-max((len(panel.methods) for panel in dotted), default=0) // LEGEND_ROWS)  # columns of a long legend
        staged = [panel for panel in panels if isinstance(panel, Steps)]
        extra = 1.6 * max(bool(curved or staged), named) if legend else 0.0
        sheet = Figure(figsize=(across * PANEL[0] + extra, down * _height(panels)), layout="constrained")
        grid = list(sheet.subplots(down, across, squeeze=False).flat)
        for axes, panel in zip(grid, panels, strict=False):
            _draw(axes, panel, looks)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        if legend and (curved or staged):
            lines = _ranked(curved[0].lines) if curved else [line for panel in staged for line in panel.lines]
            handles = [_handle(method, looks[method]) for method in dict.fromkeys(line.method for line in lines)]
            sheet.legend(handles=handles, loc="outside right upper", handlelength=3.2)
        if legend and dotted:
            handles, labels = grid[0].get_legend_handles_labels()
            sheet.legend(handles, labels, loc="outside right upper", fontsize=7, ncols=named)
        sheet.draw_without_rendering()
        sheet.set_layout_engine("none")  # it is laid out once, not for each kind of file
    return sheet


def _height(panels: Sequence[Panel]) -> float:
    """The height in inches of a row of panels: one line a method where methods stand on the axis."""
    if any(isinstance(panel, Steps) for panel in panels):
        return STEPS
    most = max((len(panel.methods) for panel in panels if isinstance(panel, Dots)), default=0)
    return 0.95 + 0.23 * most if most else PANEL[1]


def _ranked(lines: Sequence[Line]) -> list[Line]:
    """Curves by their highest point, so that the legend reads as the plot does, controls where they fall."""
    return sorted(lines, key=lambda line: -float(line.y.max() if line.peak is not None else line.y.mean()))


def _draw(axes: Any, panel: Panel, looks: Mapping[str, Look]) -> None:
    axes.set_title(panel.title, linespacing=1.4, pad=14 if isinstance(panel, Lines) and panel.guides else 6)
    axes.set_xlabel(panel.xlabel)
    if isinstance(panel, Lines):
        _draw_lines(axes, panel, looks)
    elif isinstance(panel, Points):
        _draw_points(axes, panel, looks)
    elif isinstance(panel, Steps):
        _draw_steps(axes, panel, looks)
    else:
        _draw_dots(axes, panel, looks)


def _draw_points(axes: Any, panel: Points, looks: Mapping[str, Look]) -> None:
    at = {method: (x, y) for method, x, y in zip(panel.methods, panel.x, panel.y, strict=True)}
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_ylabel(panel.ylabel)
    axes.plot(*zip(*(at[m] for m in panel.front), strict=True), color=MUTED, linewidth=0.9, zorder=1)
    for method, (x, y) in at.items():
        look = looks[method]
        mark = look.mark or "o"
        face = "none" if look.control else look.colour
        axes.plot(x, y, mark, color=look.colour, markerfacecolor=face, markersize=5, zorder=3, label=method)
    axes.margins(x=0.12, y=0.12)
    axes.autoscale_view()  # now, as the names' places depend on it
    named: list[tuple[float, float]] = []
    for method in panel.front:
        x, y = axes.transAxes.inverted().transform(axes.transData.transform(at[method]))
        if all(abs(x - a) > 0.4 or abs(y - b) > 0.09 for a, b in named):  # of names that would overlap the first
            left = x > 0.55  # of its point, where the panel ends on the right
            place = {"ha": "right" if left else "left", "xytext": (-5 if left else 5, 4)}
            axes.annotate(method, at[method], textcoords="offset points", fontsize=7, color=INK, **place)
            named.append((x, y))


def _draw_lines(axes: Any, panel: Lines, looks: Mapping[str, Look]) -> None:
    for x, text in panel.guides:
        axes.axvline(x, color=MUTED, linewidth=0.7, zorder=1)
        where = axes.get_xaxis_transform()
        axes.text(x, 1.015, text, transform=where, color=MUTED, fontsize=7.5, ha="center", va="bottom")
    for number, line in enumerate(panel.lines):
        look = looks[line.method]
        marks = _marks(look, len(line.x), number, len(panel.lines))
        axes.plot(line.x, line.y, zorder=2 if look.control else 3, label=line.method, **_stroke(look), **marks)
        if line.peak is not None:
            top = {"color": look.colour, "markersize": 7, "markeredgecolor": "white", "markeredgewidth": 0.8}
            axes.plot(line.x[line.peak], line.y[line.peak], look.mark or "o", zorder=4, **top)
    axes.set(ylabel=panel.ylabel, xlim=(0, panel.right), ylim=(0, min(102.0, 1.12 * panel.top) or 1))


def _draw_steps(axes: Any, panel: Steps, looks: Mapping[str, Look]) -> None:
    for line in panel.lines:
        look = looks[line.method]
        if not look.control:
            axes.fill_between(line.x, line.low, line.high, color=look.colour, alpha=0.12, linewidth=0, zorder=1)
        marks = {"marker": look.mark, "markersize": 4, "markevery": max(len(line.x) // MARKED, 1)}
        axes.plot(line.x, line.y, zorder=2 if look.control else 3, label=line.method, **_stroke(look), **marks)
    last = len(panel.names) - 1
    shown = range(0, last + 1, max(-(-last // NAMED), 1))
    axes.set_xticks(list(shown), [panel.names[n] for n in shown], rotation=90, fontsize=7)
    axes.set(ylabel=panel.ylabel, xlim=(0, max(last, 1)))
    axes.set_ylim(min(-0.12, axes.get_ylim()[0]), 1.03)


def _draw_dots(axes: Any, panel: Dots, looks: Mapping[str, Look]) -> None:
    for y, method in enumerate(reversed(panel.methods)):
        at = len(panel.methods) - 1 - y
        look, value, interval = looks[method], panel.values[at], panel.intervals[at]
        face = "none" if look.control else look.colour
        if interval is not None:
            axes.plot(interval, (y, y), color=look.colour, linewidth=1.6, solid_capstyle="round", zorder=2)
        axes.plot(
            value,
            y,
            look.mark or "o",
            color=look.colour,
            markerfacecolor=face,
            markersize=6,
            markeredgewidth=1.4,
            zorder=3,
        )
    axes.set_yticks(range(len(panel.methods)), list(reversed(panel.methods)))
    axes.set_ylim(-0.6, len(panel.methods) - 0.4)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.08)
    low, high = axes.get_xlim()
    rim = 0.03 * (high - low)  # room for a dot at the end of the scale
    axes.set_xlim(max(low, panel.limits[0] - rim), min(high, panel.limits[1] + rim))


def _stroke(look: Look) -> dict[str, Any]:
    style: Any = (0, tuple(float(part) for part in look.dash.split())) if look.dash else "solid"
    return {"color": look.colour, "linestyle": style, "linewidth": 1.3 if look.control else 1.8}


def _marks(look: Look, points: int, number: int, of: int) -> dict[str, Any]:
    """Marks along a curve, those of several curves beside each other."""
    apart = max(points // MARKED, 1)
    return {"marker": look.mark, "markersize": 3.5, "markevery": (number * apart // max(of, 1), apart)}


def _handle(method: str, look: Look) -> Line2D:
    return Line2D([], [], label=method, marker=look.mark, markersize=4.5, **_stroke(look))


def svg(sheet: Figure) -> str:
    """The sheet as a standalone SVG, without a date."""
    file = io.StringIO()
    with mpl.rc_context(RC):
        sheet.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def png(sheet: Figure) -> bytes:
    """The sheet as PNG, 200 dots an inch, on white."""
    file = io.BytesIO()
    with mpl.rc_context(RC):
        sheet.savefig(file, format="png", dpi=200, metadata={"Software": None})
    return file.getvalue()


def pdf(sheet: Figure) -> bytes:
    """The sheet as PDF, without a date."""
    file = io.BytesIO()
    with mpl.rc_context(RC):
        sheet.savefig(file, format="pdf", metadata={"CreationDate": None})
    return file.getvalue()


def save(sheet: Figure, folder: Path, stem: str) -> list[str]:
    """The sheet as SVG, PDF and PNG in a folder; returns the files' names."""
    picture = png(sheet)
    write_text(folder / f"{stem}.svg", svg(sheet))
    atomically(folder / f"{stem}.pdf", lambda path: path.write_bytes(pdf(sheet)))
    atomically(folder / f"{stem}.png", lambda path: path.write_bytes(picture))
    return [f"{stem}.svg", f"{stem}.pdf", f"{stem}.png"]


def inline(panel: Panel, looks: Mapping[str, Look], prefix: str, alt: str) -> str:
    """One panel as an SVG element for a page: no background, the page's colours, ids of its own, no address in it."""
    text = svg(figure([panel], looks, legend=False))
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r'\s*<g id="patch_1">.*?</g>\s*', "\n", text, count=1, flags=re.S)  # the sheet's white
    text = re.sub(r"fill: #ffffff", "fill: none", text)  # the axes' white
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(xlink:)?href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    head, body = text.split(">", 1)
    text = re.sub(r' (xmlns(:\w+)?|version|width|height)="[^"]*"', "", head) + ">" + body
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var({name}, {colour})")
    return text.replace("<svg", f'<svg role="img" aria-label="{alt}"', 1)
