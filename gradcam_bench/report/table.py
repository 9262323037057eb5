"""The leaderboard: methods down, (metric, protocol) across; two protocols never share a column."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pandas as pd

from gradcam_bench.analysis.contest import ALPHA
from gradcam_bench.report.curves import Setting
from gradcam_bench.report.inputs import CONTROLS

ARROWS = {True: "↑", False: "↓", None: ""}
DIRECTIONS = {True: "higher is better", False: "lower is better", None: "not ranked"}
MISSING = "–"


@dataclass(frozen=True)
class Column:
    """One metric under one protocol. unit: `%` for shares, else the metric's own. n: fewest and most units scored."""

    metric: str
    protocol: str
    higher_is_better: bool | None
    unit: str
    decimals: int
    n: tuple[int, int]

    @property
    def key(self) -> tuple[str, str]:
        return self.metric, self.protocol

    @property
    def arrow(self) -> str:
        return ARROWS[self.higher_is_better]

    @property
    def direction(self) -> str:
        return DIRECTIONS[self.higher_is_better]

    @property
    def measure(self) -> str:
        """Unit and direction, as in `% ↑`."""
        return f"{self.unit} {self.arrow}".strip()

    @property
    def count(self) -> str:
        low, high = self.n
        return f"n = {low:,}" if low == high else f"n = {low:,}–{high:,}"

    def number(self, value: float) -> str:
        """The value as printed, in the column's unit."""
        if pd.isna(value):
            return MISSING
        return f"{100 * value if self.unit == '%' else value:.{self.decimals}f}"


class Tie(NamedTuple):
    """group: letters; methods that share one cannot be told apart. p: that the method is the best one's equal, tied:
    whether it cannot be told apart from it. least: the smallest p that so few images can give."""

    group: str
    best: str
    p: float
    tied: bool
    least: float = 0.0


@dataclass(frozen=True)
class Board:
    """The table of one setting. values, low, high: methods x (metric, protocol), float, NaN where there is none.

    methods: in the order of the table, best of the first ranked column first. ties: of (method, metric, protocol).
    """

    setting: Setting
    columns: tuple[Column, ...]
    methods: tuple[str, ...]
    controls: frozenset[str]
    values: pd.DataFrame
    low: pd.DataFrame
    high: pd.DataFrame
    ties: Mapping[tuple[str, str, str], Tie] = field(default_factory=dict)

    def tie(self, method: str, column: Column) -> Tie | None:
        return self.ties.get((method, *column.key))

    @property
    def blunt(self) -> list[str]:
        """The metrics that so few images scored that no two methods could be told apart, whatever their numbers."""
        return list(dict.fromkeys(key[1] for key, tie in self.ties.items() if tie.least > ALPHA))

    @property
    def sorted_by(self) -> Column | None:
        """The first column with a direction."""
        return next((column for column in self.columns if column.higher_is_better is not None), None)

    def value(self, method: str, column: Column) -> float:
        return float(self.values.loc[method, column.key])  # type: ignore[arg-type]

    def cell(self, method: str, column: Column) -> str:
        return column.number(self.value(method, column))

    def interval(self, method: str, column: Column) -> str:
        """`low–high` as printed, empty where the run has no interval."""
        ends = [float(frame.loc[method, column.key]) for frame in (self.low, self.high)]  # type: ignore[arg-type]
        return "" if any(pd.isna(end) for end in ends) else "–".join(column.number(end) for end in ends)

    def best(self, method: str, column: Column) -> bool:
        """Whether no other method prints a better number, and some a worse one; controls compete too."""
        numbers = self.values[column.key].dropna()
        if column.higher_is_better is None or len({column.number(number) for number in numbers}) < 2:
            return False
        top = numbers.max() if column.higher_is_better else numbers.min()
        return self.cell(method, column) == column.number(top)


def boards(
    summary: pd.DataFrame,
    controls: Collection[str] = CONTROLS,
    units: Mapping[str, str] | None = None,
    ties: pd.DataFrame | None = None,
) -> list[Board]:
    """One board for each (dataset, model, stage) of a summary, in its order. ties: the table of `analysis.ties`."""
    tied: dict[Setting, dict[tuple[str, str, str], Tie]] = {}
    for row in [] if ties is None else ties.to_dict("records"):
        mine = tied.setdefault(Setting(row["dataset"], row["model"], row["stage"]), {})
        told = Tie(row["group"], row["best"], float(row["p_best"]), bool(row["tied"]), float(row["p_least"]))
        mine[row["method"], row["metric"], row["protocol"]] = told
    names = ["dataset", "model", "stage", "method", "metric", "protocol"]
    plain = summary.assign(**{name: summary[name].astype("string").fillna("").astype(str) for name in names})
    parts = plain.groupby(names[:3], sort=False)
    settings = [(Setting(*map(str, key)), part) for key, part in parts]
    return [
        replace(_board(setting, part, frozenset(controls), units or {}), ties=tied.get(setting, {}))
        for setting, part in settings
    ]


def _board(setting: Setting, part: pd.DataFrame, controls: frozenset[str], units: Mapping[str, str]) -> Board:
    columns = tuple(
        _column(str(key[0]), str(key[1]), mine, units) for key, mine in part.groupby(["metric", "protocol"], sort=False)
    )
    order = pd.MultiIndex.from_tuples([column.key for column in columns])
    frames = [
        part.set_index(["method", "metric", "protocol"])[name].astype(float).unstack([1, 2]).reindex(columns=order)  # noqa: PD010
        for name in ("value", "ci_low", "ci_high")
    ]
    methods = list(dict.fromkeys(part["method"]))
    for column in columns:
        if column.higher_is_better is not None:
            ranked = frames[0][column.key].reindex(methods)
            methods = list(ranked.sort_values(ascending=not column.higher_is_better, kind="stable").index)
            break
    values, low, high = (frame.reindex(methods) for frame in frames)
    return Board(setting, columns, tuple(methods), controls & set(methods), values, low, high)


def _column(metric: str, protocol: str, part: pd.DataFrame, units: Mapping[str, str]) -> Column:
    """Shares get one decimal, two from 1000 units on (where a unit weighs 0.1 % or less); other numbers three."""
    numbers = part[["value", "ci_low", "ci_high"]].to_numpy(dtype=float, na_value=float("nan"))
    share = bool(((numbers >= 0) & (numbers <= 1) | pd.isna(numbers)).all())
    unit = units.get(metric, "%" if share else "")
    counts = part["n"].fillna(0).astype(int)
    n = (int(counts.min()), int(counts.max()))
    given = part["higher_is_better"].iloc[0]
    direction = None if pd.isna(given) else bool(given)
    decimals = (2 if n[0] >= 1000 else 1) if unit == "%" else 3
    return Column(metric, protocol, direction, unit, decimals, n)


def _body(board: Board, best: str = "{}", other: str = "{}") -> list[list[str]]:
    """The cells of each line, as printed; the best of a column within the pattern `best`."""
    return [
        [method, *((best if board.best(method, c) else other).format(board.cell(method, c)) for c in board.columns)]
        for method in board.methods
    ]


def as_text(board: Board) -> str:
    """The board in plain monospaced text; the best of a column bears a `*`, a control stands in brackets."""
    body = _body(board, "{}*", "{} ")
    for row in body:
        row[0] = f"({row[0]})" if row[0] in board.controls else row[0]
    stacks = [[*_wrapped(c.metric), *_wrapped(c.protocol), c.measure] for c in board.columns]
    deep = max(map(len, stacks), default=1)
    padded = [[""] * (deep - len(lines)) + [line + " " for line in lines] for lines in stacks]
    heads = [["method" if i == deep - 1 else "", *(lines[i] for lines in padded)] for i in range(deep)]
    widths = [max(len(row[i]) for row in heads + body) for i in range(len(board.columns) + 1)]
    rule = ["─" * width for width in widths]
    return "\n".join(_justified(row, widths) for row in [*heads, rule, *body]) + "\n"


def _wrapped(name: str, width: int = 14) -> list[str]:
    """A name in lines of at most `width` where its underscores and hyphens allow."""
    lines = [""]
    for piece in re.split(r"(?<=[_-])", name):
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return lines


def _justified(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(row, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]).rstrip()


def as_markdown(board: Board) -> str:
    """The board as a Markdown table; the best of a column is bold, tie groups are superscripts."""
    head = ["method", *(f"{c.metric} {c.measure}".strip() + f"<br>{c.protocol}" for c in board.columns)]
    body = _body(board, "**{}**")
    for line in body:
        ties = [board.tie(line[0], column) for column in board.columns]
        line[1:] = [f"{cell}<sup>{tie.group}</sup>" if tie else cell for cell, tie in zip(line[1:], ties, strict=True)]
    lines = [head, ["---", *["---:"] * len(board.columns)], *body]
    return "".join(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in line)} |\n" for line in lines)


def as_csv(board: Board) -> str:
    """The printed numbers as CSV; the column names join metric and protocol with `@`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", *(f"{c.metric}@{c.protocol}" for c in board.columns)])
    writer.writerows(_body(board))
    return file.getvalue()
