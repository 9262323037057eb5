"""Gaps between two numbers, and what explains them, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from gradcam_bench.report.outcome import Section


@dataclass(frozen=True)
class Gap:
    """One method's two numbers and what explains their difference. steps: choice -> (there, here, points)."""

    method: str
    before: float
    after: float
    steps: Mapping[str, tuple[str, str, float]]


def as_table(gaps: Sequence[Gap]) -> pd.DataFrame:
    """method, choice, before, after, points; the first and the last line of a method are its two numbers."""
    lines = []
    for gap in gaps:
        lines.append((gap.method, "from", "", "", gap.before))
        lines += [(gap.method, choice, *step) for choice, step in gap.steps.items()]
        lines.append((gap.method, "to", "", "", gap.after))
    return pd.DataFrame(lines, columns=["method", "choice", "before", "after", "value"])


def as_text(gap: Gap, heads: Sequence[str]) -> str:
    lines = [
        f"{gap.method}: {gap.before:.4f} ({heads[0]}) to {gap.after:.4f} ({heads[1]}), {gap.after - gap.before:+.4f}"
    ]
    width = max(map(len, gap.steps), default=0)
    for choice, (before, after, points) in sorted(gap.steps.items(), key=lambda item: -abs(item[1][2])):
        lines.append(f"  {points:+.4f}  {choice:{width}}  {before} -> {after}")
    return "\n".join(lines if gap.steps else [*lines, "  the two are made alike"])


def as_section(gap: Gap, heads: Sequence[str]) -> Section:
    """The choices that explain most first."""
    lines = [
        (choice, before, after, f"{points:+.4f}")
        for choice, (before, after, points) in sorted(gap.steps.items(), key=lambda item: -abs(item[1][2]))
    ]
    about = f"{gap.before:.4f} ({heads[0]}) to {gap.after:.4f} ({heads[1]}), {gap.after - gap.before:+.4f}."
    note = about if gap.steps else f"{about} The two are made alike."
    return Section(gap.method, ("choice", "from", "to", "value"), lines, (3,), note)


def as_markdown(gaps: Sequence[Gap], heads: Sequence[str]) -> str:
    parts = []
    for gap in gaps:
        lines = "".join(
            f"| {choice} | {before} | {after} | {points:+.4f} |\n"
            for choice, (before, after, points) in gap.steps.items()
        )
        head = f"**{gap.method}**: {gap.before:.4f} ({heads[0]}) to {gap.after:.4f} ({heads[1]})\n\n"
        parts.append(head + "| choice | before | after | points |\n|---|---|---|---:|\n" + lines)
    return "\n".join(parts)
