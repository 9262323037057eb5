"""The numbers of a run for each kind of case (of word, of answer), as tables: kinds down, methods across."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from gradcam_bench.report.table import ARROWS, DIRECTIONS, MISSING


@dataclass(frozen=True)
class Kinds:
    """One metric under one protocol in one setting. lines: a kind, how many cases were scored (fewest and most), and
    each method's number, as printed; shares in percent."""

    title: str
    direction: str
    methods: tuple[str, ...]
    lines: tuple[tuple[str, str, tuple[str, ...]], ...]


def boards(table: pd.DataFrame) -> list[Kinds]:
    """A table for each setting, metric and protocol of `analysis.strata.strata`'s column `kind`."""
    names = ["dataset", "model", "metric", "protocol"]
    return [_board(tuple(map(str, key)), part) for key, part in table.groupby(names, sort=False, observed=True)]


def _board(key: tuple[str, ...], part: pd.DataFrame) -> Kinds:
    dataset, model, metric, protocol = key
    share = bool(part["value"].dropna().between(0, 1).all())
    methods = tuple(dict.fromkeys(part["method"].astype(str)))
    lines = []
    for kind, mine in part.groupby("kind", sort=True):
        values = mine.set_index(mine["method"].astype(str))["value"].reindex(methods)
        low, high = int(mine["n"].min()), int(mine["n"].max())
        printed = tuple(MISSING if pd.isna(v) else f"{100 * v:.1f}" if share else f"{v:.2f}" for v in values)
        lines.append((str(kind), f"{low}" if low == high else f"{low}–{high}", printed))
    given = part["higher_is_better"].iloc[0]
    rising = None if pd.isna(given) else bool(given)
    title = f"{metric} {'% ' if share else ''}{ARROWS[rising]}".strip()
    return Kinds(f"{title}, {protocol} ({dataset} · {model})", DIRECTIONS[rising], methods, tuple(lines))


def as_text(board: Kinds) -> str:
    """The table in plain monospaced text."""
    rows = [["kind", "n", *board.methods], *([kind, n, *cells] for kind, n, cells in board.lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([board.title, lines[0], "  ".join("─" * width for width in widths), *lines[1:]])
