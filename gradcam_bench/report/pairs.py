"""Contests as tables: data, plain text, Markdown, LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from gradcam_bench.analysis.contest import Contest
from gradcam_bench.analysis.paired import Difference, holm
from gradcam_bench.report.latex import LATEX_ARROWS, TOLD, escape, marked
from gradcam_bench.report.outcome import Section
from gradcam_bench.report.table import ARROWS

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
    if contest.letters:
        for name, letters in contest.letters.items():
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
    """The contestants with the letters of their groups, where all are compared with all; the pairs, folded then."""
    where = "" if contest.stratum == "all" else f", {contest.stratum}"
    title, made, letters = f"{contest.metric}, {contest.protocol}{where}", [], contest.letters
    if letters:
        lines = [(name, f"{contest.values[name]:.4f}", letters[name]) for name in letters]
        note = f"Who shares a letter cannot be told apart: {_paired(contest)}."
        value = f"value {ARROWS[contest.higher_is_better]}".strip()
        made.append(Section(title, ("", value, "group"), lines, (1,), note))
        title = f"{title}: {len(contest.pairs)} pairs"
    pairs = []
    for (a, b), (f, p) in contest.pairs.items():
        better = contest.better((a, b)).replace("=", "cannot be told apart")
        interval = f"{f.low:+.4f} to {f.high:+.4f}"
        pairs.append((f"{a} − {b}", f"{f.difference:+.4f}", interval, f"{p:.4f}", str(f.n), better))
    columns = ("pair", "difference", "95 % interval", "p (Holm)", "cases", "better")
    return [*made, Section(title, columns, pairs, (1, 2, 3, 4), folded=bool(letters))]


def as_markdown(contests: Sequence[Contest]) -> str:
    """One table a protocol, below the contestants with the letters of their groups where all are compared with all."""
    parts = []
    for contest in contests:
        where = "" if contest.stratum == "all" else f", {contest.stratum}"
        board = "".join(
            f"| {_escaped(name)} | {contest.values[name]:.4f}<sup>{letters}</sup> |\n"
            for name, letters in contest.letters.items()
        )
        if board:
            told = f"Methods that share a letter cannot be told apart: {_paired(contest)}."
            board = f"| method | value {ARROWS[contest.higher_is_better]} |\n|---|---:|\n{board}\n{told}\n\n"
        head = "| a | b | a - b | 95 % interval | p (Holm) | n | better |\n|---|---|---:|---|---:|---:|---|\n"
        lines = "".join(
            f"| {_escaped(a)} | {_escaped(b)} | {f.difference:+.4f} | {f.low:+.4f} to {f.high:+.4f} | {p:.4f} | "
            f"{f.n} | {_escaped(contest.better((a, b)))} |\n"
            for (a, b), (f, p) in contest.pairs.items()
        )
        parts.append(f"**{contest.metric}** under {contest.protocol}{where}\n\n{board}{head}{lines}")
    return "\n".join(parts)


def as_latex(contests: Sequence[Contest]) -> str:
    """booktabs tabulars: the contestants with the letters of their groups, where all are compared with all, one for
    each stratum of cases; then a longtable of the pairs, those that are told apart with their difference in bold."""
    strata = dict.fromkeys(contest.stratum for contest in contests if contest.letters)
    boards = [_latex_board([one for one in contests if one.letters and one.stratum == name]) for name in strata]
    return "\n".join([*boards, _latex_pairs(as_table(contests))])


def _latex_board(contests: Sequence[Contest]) -> str:
    names = list(dict.fromkeys(name for contest in contests for name in contest.ranked))
    stratum = contests[0].stratum
    heads = [
        ["" if stratum == "all" else escape(stratum)]
        + [escape(one.metric) + LATEX_ARROWS[one.higher_is_better] for one in contests],
        ["Method", *(rf"\small {escape(one.protocol)}" for one in contests)],
    ]
    body = [
        [escape(name)]
        + [marked(f"{one.values[name]:.4f}", one.letters[name]) if name in one.values else "--" for one in contests]
        for name in names
    ]
    lines = [rf"\begin{{tabular}}{{l{'r' * len(contests)}}}", r"\toprule"]
    lines += [" & ".join(cells) + r" \\" for cells in heads] + [r"\midrule"]
    lines += [" & ".join(cells) + r" \\" for cells in body]
    told = rf"\multicolumn{{{len(contests) + 1}}}{{l}}{{\footnotesize {TOLD}}} \\"
    return "\n".join([*lines, r"\bottomrule", told, r"\end{tabular}"]) + "\n"


def _latex_pairs(table: pd.DataFrame) -> str:
    lines = ["% with booktabs and longtable: pairs may fill pages", r"\begin{longtable}{lllrrrr}", r"\toprule"]
    lines += [r"Metric & $a$ & $b$ & $a - b$ & 95\,\% interval & $p$ (Holm) & $n$ \\", r"\midrule", r"\endhead"]
    for row in table.itertuples(index=False):
        number = f"{row.difference:+.4f}"
        shown = rf"\textbf{{{number}}}" if row.better not in ("=", "") else number
        metric = f"{row.metric} ({row.protocol})" + ("" if row.stratum == "all" else f", {row.stratum}")
        interval = f"[{row.low:+.4f}, {row.high:+.4f}]"
        cells = [escape(metric), escape(str(row.a)), escape(str(row.b)), shown]
        lines.append(" & ".join([*cells, interval, f"{row.p_holm:.4f}", f"{row.n}"]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{longtable}"]) + "\n"


def _paired(contest: Contest) -> str:
    counts = sorted({found.n for found, _ in contest.pairs.values()})
    pairs = f"{counts[0]} paired cases" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} paired cases"
    left = max(max(found.only_a, found.only_b) for found, _ in contest.pairs.values())
    return pairs + (f", up to {left} without a partner" if left else "")


def _left(found: Difference) -> str:
    return f"; without a partner: {found.only_a} and {found.only_b}" if found.only_a or found.only_b else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
