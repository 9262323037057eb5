"""From one number to another, choice by choice, as a waterfall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from gradcam_bench.report.draw import RC, save
from gradcam_bench.report.style import HUES, INK, MUTED


@dataclass(frozen=True)
class Panel:
    """One method: the names of the two numbers, the numbers, and each choice's points in the order to draw."""

    title: str
    ends: Sequence[str]
    values: tuple[float, float]
    steps: Mapping[str, float]


def figure(panels: Sequence[Panel]) -> Figure:
    with mpl.rc_context(RC):
        most = max(len(panel.steps) for panel in panels) + 2
        sheet = Figure(figsize=(7.2, len(panels) * (0.8 + 0.27 * most)), layout="constrained")
        for axes, panel in zip(sheet.subplots(len(panels), 1, squeeze=False).flat, panels, strict=True):
            _draw(axes, panel)
    return sheet


def _draw(axes: Any, panel: Panel) -> None:
    steps = sorted(panel.steps.items(), key=lambda step: -abs(step[1]))
    names, at = [panel.ends[0], *(name for name, _ in steps), panel.ends[1]], panel.values[0]
    axes.plot(at, 0, "o", color=INK, markersize=6)
    _label(axes, f"{at:.4f}", at, 0)
    for row, (_, points) in enumerate(steps, 1):
        colour = HUES[2] if points >= 0 else HUES[1]
        axes.barh(row, points, left=at, height=0.55, color=colour, zorder=2)
        axes.plot((at, at), (row - 1, row + 0.3), color=MUTED, linewidth=0.7, zorder=1)
        _label(axes, f"{points:+.4f}", max(at, at + points), row)
        at += points
    axes.plot((at, at), (len(steps), len(steps) + 1), color=MUTED, linewidth=0.7, zorder=1)
    axes.plot(panel.values[1], len(steps) + 1, "o", color=INK, markersize=6)
    _label(axes, f"{panel.values[1]:.4f}", panel.values[1], len(steps) + 1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.use_sticky_edges = False
    axes.margins(x=0.15)
    axes.grid(visible=False, axis="y")
    axes.set_title(panel.title)
    axes.set_xlabel("value")


def _label(axes: Any, text: str, x: float, y: float) -> None:
    axes.annotate(text, (x, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=7.5)


def write(folder: Path, panels: Sequence[Panel]) -> list[str]:
    """diff.svg, diff.pdf, diff.png; returns their names."""
    return save(figure(panels), folder, "diff")
