"""Differences with their intervals, as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from gradcam_bench.report.draw import RC, save
from gradcam_bench.report.style import HUES, INK, MUTED

MOST = 60  # pairs of a panel; a plot of more is not read
ACROSS = 2


@dataclass(frozen=True)
class Line:
    """One pair: a - b and its interval. apart: it is told apart after correction."""

    name: str
    value: float
    low: float
    high: float
    apart: bool


@dataclass(frozen=True)
class Panel:
    """The pairs of one metric under one protocol."""

    title: str
    lines: tuple[Line, ...]


def figure(panels: Sequence[Panel]) -> Figure:
    """All panels on one sheet; pairs that cannot be told apart are grey and hollow. Beyond MOST pairs the largest."""
    with mpl.rc_context(RC):
        across = min(ACROSS, len(panels))
        down = -(-len(panels) // across)
        most = max(min(len(panel.lines), MOST) for panel in panels)
        sheet = Figure(figsize=(6.2 * across, down * (0.9 + 0.2 * most)), layout="constrained")
        grid = list(sheet.subplots(down, across, squeeze=False).flat)
        for axes, panel in zip(grid, panels, strict=False):
            _draw(axes, panel)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
    return sheet


def _draw(axes: Any, panel: Panel) -> None:
    lines = sorted(panel.lines, key=lambda line: -abs(line.value))[:MOST]
    lines.sort(key=lambda line: line.value)
    for y, line in enumerate(lines):
        colour = HUES[0] if line.apart else MUTED
        axes.plot((line.low, line.high), (y, y), color=colour, linewidth=1.4, solid_capstyle="round", zorder=2)
        face = colour if line.apart else "white"
        axes.plot(line.value, y, "o", color=colour, markerfacecolor=face, markersize=4.5, zorder=3)
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(lines)), [line.name for line in lines], fontsize=7)
    axes.set_ylim(-0.6, len(lines) - 0.4)
    axes.grid(visible=False, axis="y")
    axes.set_title(panel.title, linespacing=1.4)
    axes.set_xlabel("a - b, with its 95 % interval")


def write(folder: Path, panels: Sequence[Panel]) -> list[str]:
    """compare.svg, compare.pdf and compare.png of the panels that hold a pair; returns their names."""
    drawn = [panel for panel in panels if panel.lines]
    if not drawn:
        return []
    return save(figure(drawn), folder, "compare")
