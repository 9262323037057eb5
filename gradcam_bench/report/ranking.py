"""How often each method takes each place, as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from gradcam_bench.analysis.reductions import Floats
from gradcam_bench.report.draw import RC, save
from gradcam_bench.report.style import INK


def figure(title: str, methods: Sequence[str], ranks: Floats) -> Figure:
    """ranks [P,k]; a square's darkness is the share of protocols in which a method takes a place, ties rounded up."""
    order = np.argsort(np.median(ranks, axis=0), kind="stable")
    places = len(methods)
    shares = np.stack([[(np.ceil(ranks[:, m]) == place + 1).mean() for place in range(places)] for m in order])
    with mpl.rc_context(RC):
        sheet = Figure(figsize=(1.8 + 0.5 * places, 0.9 + 0.33 * places), layout="constrained")
        axes = sheet.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in zip(*np.nonzero(shares), strict=True):
            share = shares[row, column]
            colour = "white" if share > 0.6 else INK
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
        axes.set_yticks(range(places), [methods[m] for m in order])
        axes.set_xticks(range(places), [str(place + 1) for place in range(places)])
        axes.set_xlabel("rank (% of protocols)")
        axes.set_title(title)
        axes.grid(visible=False)
    return sheet


def write(folder: Path, name: str, title: str, methods: Sequence[str], ranks: Floats) -> list[str]:
    """<name>.svg, .pdf and .png; returns their names."""
    return save(figure(title, methods, ranks), folder, name)
