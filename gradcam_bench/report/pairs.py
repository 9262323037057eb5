"""Contests as tables: data, plain text, Markdown, LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from gradcam_bench.analysis.contest import Contest
from gradcam_bench.analysis.paired import Difference, holm
from gradcam_bench.analysis.ties import letter
from gradcam_bench.report.latex import escape
from gradcam_bench.report.outcome import Section

TESTS = ("p", "mcnemar", "wilcoxon")  # each corrected for the pairs of a table
CORRECTED = [f"{test}_holm" for test in TESTS]
COLUMNS = ["metric", "protocol", "stratum", "a", "b", "better", *Difference.__dataclass_fields__, *CORRECTED]


def as_table(contests: Sequence[Contest]) -> pd.DataFrame:
    """One line a pair, COLUMNS; numbers in the metric's own unit."""
    lines = [
        {"metric": one.metric, "protocol": one.protocol, "stratum": one.stratum, "a_name": pair[0], "b_name": pair[1]}
        | {"better": one.better(pair), **asdict(found), **{name: ps[n] for name, ps in corrected.items()}}
        for one in contests
        for corrected in [_corrected(one)]
        for n, (pair, (found, _)) in enumerate(one.pairs.items())
    ]
    renamed = {"a": "value_a", "b": "value_b"}
    table = pd.DataFrame(lines).rename(columns=renamed).rename(columns={"a_name": "a", "b_name": "b"})
    return table[[renamed.get(name, name) if n > 4 else name for n, name in enumerate(COLUMNS)]]


def _corrected(contest: Contest) -> dict[str, list[float]]:
    """The p of each test after Holm's correction, pair by pair."""
    found = [one for one, _ in contest.pairs.values()]
    return {f"{test}_holm": holm([getattr(one, test) for one in found]) for test in TESTS}


def as_text(contest: Contest) -> str:
    """The contestants best first, with the letters of the groups that cannot be told apart; then the pairs, if few."""
    where = "" if contest.stratum == "all" else f", {contest.stratum}"
    lines = [f"{contest.metric}, {contest.protocol}{where}"]
    width = max(map(len, contest.values), default=0)
    if len(contest.pairs) == len(contest.values) * (len(contest.values) - 1) / 2:
        for name in contest.ranked:
            letters = "".join(letter(n) for n, group in enumerate(contest.groups) if name in group)
            lines.append(f"  {name:{width}}  {contest.values[name]:8.4f}  {letters}")
        lines.append(f"  (methods that share a letter cannot be told apart: {_paired(contest)})")
        return "\n".join(lines)
    for (a, b), (found, corrected) in contest.pairs.items():
        verdict = {"=": "cannot be told apart", "": ""}.get(
            contest.better((a, b)), f"{contest.better((a, b))} is better"
        )
        lines.append(
            f"  {a:{width}} - {b:{width}}  {found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]  "
            f"p {corrected:.4f}  n {found.n}  {verdict}{_left(found)}"
        )
    return "\n".join(lines)


def as_sections(contest: Contest) -> list[Section]:
    """The contestants with the letters of their groups, where all are compared with all; the pairs."""
    where = "" if contest.stratum == "all" else f", {contest.stratum}"
    title, made = f"{contest.metric}, {contest.protocol}{where}", []
    if len(contest.pairs) == len(contest.values) * (len(contest.values) - 1) / 2:
        letters = {
            name: "".join(letter(n) for n, group in enumerate(contest.groups) if name in group)
            for name in contest.ranked
        }
        lines = [(name, f"{contest.values[name]:.4f}", letters[name]) for name in contest.ranked]
        note = f"Who shares a letter cannot be told apart: {_paired(contest)}."
        made.append(Section(title, ("", "value", "group"), lines, (1,), note))
        title = f"{title}: pairs"
    pairs = []
    for (a, b), (f, p) in contest.pairs.items():
        better = contest.better((a, b)).replace("=", "cannot be told apart")
        interval = f"{f.low:+.4f} to {f.high:+.4f}"
        pairs.append((f"{a} − {b}", f"{f.difference:+.4f}", interval, f"{p:.4f}", str(f.n), better))
    columns = ("pair", "difference", "95 % interval", "p (Holm)", "cases", "better")
    return [*made, Section(title, columns, pairs, (1, 2, 3, 4))]


def as_markdown(contests: Sequence[Contest]) -> str:
    """One table a protocol."""
    parts = []
    for contest in contests:
        where = "" if contest.stratum == "all" else f", {contest.stratum}"
        head = "| a | b | a - b | 95 % interval | p (Holm) | n | better |\n|---|---|---:|---|---:|---:|---|\n"
        lines = "".join(
            f"| {_escaped(a)} | {_escaped(b)} | {f.difference:+.4f} | {f.low:+.4f} to {f.high:+.4f} | {p:.4f} | "
            f"{f.n} | {_escaped(contest.better((a, b)))} |\n"
            for (a, b), (f, p) in contest.pairs.items()
        )
        parts.append(f"**{contest.metric}** under {contest.protocol}{where}\n\n{head}{lines}")
    return "\n".join(parts)


def as_latex(table: pd.DataFrame) -> str:
    """The pairs as a booktabs tabular; a pair that is told apart has its difference in bold."""
    lines = [r"\begin{tabular}{lllrrrr}", r"\toprule"]
    lines += [r"Metric & $a$ & $b$ & $a - b$ & 95\,\% interval & $p$ (Holm) & $n$ \\", r"\midrule"]
    for row in table.itertuples(index=False):
        number = f"{row.difference:+.4f}"
        shown = rf"\textbf{{{number}}}" if row.better not in ("=", "") else number
        metric = f"{row.metric} ({row.protocol})" + ("" if row.stratum == "all" else f", {row.stratum}")
        interval = f"[{row.low:+.4f}, {row.high:+.4f}]"
        cells = [
            escape(metric),
            escape(str(row.a)),
            escape(str(row.b)),
            shown,
            interval,
            f"{row.p_holm:.4f}",
            f"{row.n}",
        ]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _paired(contest: Contest) -> str:
    counts = sorted({found.n for found, _ in contest.pairs.values()})
    pairs = f"{counts[0]} paired cases" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} paired cases"
    left = max(max(found.only_a, found.only_b) for found, _ in contest.pairs.values())
    return pairs + (f", up to {left} without a partner" if left else "")


def _left(found: Difference) -> str:
    return f"; without a partner: {found.only_a} and {found.only_b}" if found.only_a or found.only_b else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
