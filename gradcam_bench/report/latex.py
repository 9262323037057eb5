"""The leaderboard as a LaTeX table (booktabs), as a paper prints it."""

from __future__ import annotations

from gradcam_bench.report.table import MISSING, Board, Column

_ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
TOLD = r"Methods that share a letter cannot be told apart (paired permutation test, Holm's correction, 5\,\%)."
LATEX_ARROWS = {True: r" $\uparrow$", False: r" $\downarrow$", None: ""}


def escape(text: str) -> str:
    """Text with everything that LaTeX would read as a command made plain."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def marked(cell: str, letters: str) -> str:
    """A cell with the letters of its tie groups as a superscript, where it has any."""
    return rf"{cell}\textsuperscript{{{letters}}}" if letters else cell


def as_latex(board: Board) -> str:
    """A booktabs tabular: metric and protocol above each column, best in bold, tie groups as superscripts, controls
    below a rule of their own."""
    heads = [
        ["Method", *(escape(c.metric) + LATEX_ARROWS[c.higher_is_better] for c in board.columns)],
        ["", *(rf"\small {escape(c.protocol)}{_unit(c)}" for c in board.columns)],
    ]
    methods = [m for m in board.methods if m not in board.controls]
    controls = [m for m in board.methods if m in board.controls]
    lines = [rf"\begin{{tabular}}{{l{'r' * len(board.columns)}}}", r"\toprule"]
    lines += [_row(head) for head in heads] + [r"\midrule"]
    lines += [_body(board, method) for method in methods]
    if methods and controls:
        lines.append(r"\midrule")
    lines += [_body(board, method) for method in controls]
    lines.append(r"\bottomrule")
    if board.ties:
        lines.append(rf"\multicolumn{{{len(board.columns) + 1}}}{{l}}{{\footnotesize {TOLD}}} \\")
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _unit(column: Column) -> str:
    return f" ({escape(column.unit)})" if column.unit else ""


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _body(board: Board, method: str) -> str:
    cells = [board.cell(method, column).replace(MISSING, "--") for column in board.columns]
    best = [board.best(method, column) for column in board.columns]
    cells = [rf"\textbf{{{cell}}}" if top else cell for cell, top in zip(cells, best, strict=True)]
    ties = [board.tie(method, column) for column in board.columns]
    cells = [marked(cell, tie.group if tie else "") for cell, tie in zip(cells, ties, strict=True)]
    name = escape(method)
    return _row([rf"\textit{{{name}}}" if method in board.controls else name, *cells])
