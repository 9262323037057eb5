"""Writes docs/metrics.md from conf/metric, docstrings and the axes: python scripts/document_metrics.py"""

from __future__ import annotations

import inspect
from pathlib import Path

from gradcam_bench import catalogue
from gradcam_bench.axes import AXES
from gradcam_bench.catalogue import Metric

OUT = Path(__file__).parent.parent / "docs" / "metrics.md"
HEAD = """# Metrics

Each is one function and one file in `conf/metric/`; this page is made from them by `scripts/document_metrics.py`.
A metric gives one statistic (or curve) a unit; *reduced by* names what makes the number of them, and its interval is
taken over resampled images. It takes every choice from the protocol axes that it *reads* (the table at the end), so the
preset's name, or the hash in its place, says exactly what was computed. ↑: higher is better, ↓: lower is; a metric
without an arrow is never ranked and never gates.
"""
NEEDS = {
    "maps": "From heatmaps alone",
    "model": "Questions to the network",
    "stages": "Sanity checks",
}
ARROWS = {True: " ↑", False: " ↓", None: ""}


def plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def section(title: str, metrics: list[Metric]) -> str:
    lines = [f"\n## {title}\n", "| label | what | definition | reduced by | reads |", "|---|---|---|---|---|"]
    for metric in metrics:
        definition = plain("\n\n".join((inspect.getdoc(metric.function) or "").split("\n\n")[:2]))
        reads = ", ".join(f"`{axis}`" for axis in metric.reads)
        label = f"`{metric.label}`{ARROWS[metric.higher_is_better]}"
        lines.append(f"| {label} | {plain(metric.about)} | {definition} | {metric.reduce} | {reads} |")
    return "\n".join(lines) + "\n"


def axes() -> str:
    lines = ["\n## Protocol axes\n", "| axis | meaning | default | may be |", "|---|---|---|---|"]
    for name, axis in AXES.items():
        valid = ", ".join(map(str, axis.valid)) if axis.kind == "name" else f"{axis.valid[0]:g} to {axis.valid[1]:g}"
        default = ", ".join(map(str, axis.default)) if isinstance(axis.default, tuple) else str(axis.default)
        default = default if len(default) < 60 else f"{default[:40]} ..."
        lines.append(f"| `{name}` | {plain(axis.meaning)} | {default} | {valid} |")
    return "\n".join(lines) + "\n"


def document() -> str:
    """The whole page."""
    metrics = [catalogue.metric(label, catalogue.spec("metric", label)) for label in catalogue.names("metric")]
    parts = [section(title, [m for m in metrics if m.needs == needs]) for needs, title in NEEDS.items()]
    return HEAD + "".join(parts) + axes()


if __name__ == "__main__":
    OUT.write_text(document(), encoding="utf-8")
    print(OUT)
