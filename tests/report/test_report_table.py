"""The leaderboard's numbers, order, emphasis and text forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradcam_bench.report.inputs import Inputs
from gradcam_bench.report.latex import TOLD, as_latex, escape
from gradcam_bench.report.table import Board, Tie, as_csv, as_markdown, as_text, boards

BOX, ERROR, POINT = 0, 1, 2


@pytest.fixture
def board(inputs: Inputs) -> Board:
    (made,) = boards(inputs.summary)
    return made


def test_a_column_for_each_metric_and_protocol(board: Board) -> None:
    assert [column.key for column in board.columns] == [
        ("max_box_acc", "wsol_2020_v2"),
        ("localization_error_gt_known", "custom-1a2b3c4d"),
        ("pointing_game", "excitation_bp_2016"),
    ]
    assert board.values.loc["layer_cam"].tolist() == pytest.approx([0.75, 2 / 6, 4 / 6])
    assert board.values.loc["grad_cam"].tolist() == pytest.approx([7 / 12, 0.5, 1.0])


def test_two_protocols_of_one_metric_are_two_columns(inputs: Inputs) -> None:
    import pandas as pd

    other = inputs.summary.assign(protocol="other", value=0.125)
    (made,) = boards(pd.concat([inputs.summary, other]))
    assert len(made.columns) == 6
    assert made.value("center", made.columns[3]) == 0.125


def test_settings_are_boards_of_their_own(inputs: Inputs) -> None:
    import pandas as pd

    other = inputs.summary.assign(stage="cascade_down/1:fc")
    assert [made.setting.stage for made in boards(pd.concat([inputs.summary, other]))] == [
        "trained",
        "cascade_down/1:fc",
    ]


def test_order_is_that_of_the_first_ranked_column(board: Board) -> None:
    assert board.methods == ("layer_cam", "grad_cam", "center")
    assert board.controls == {"center"}
    assert board.sorted_by is board.columns[BOX]


def test_best_follows_the_direction(board: Board) -> None:
    best = {(m, i) for m in board.methods for i, column in enumerate(board.columns) if board.best(m, column)}
    assert best == {("layer_cam", BOX), ("layer_cam", ERROR), ("grad_cam", POINT)}


def test_a_metric_without_direction_has_no_best(inputs: Inputs) -> None:
    (made,) = boards(inputs.summary.assign(higher_is_better=None))
    assert not any(made.best(m, column) for m in made.methods for column in made.columns)
    assert made.columns[0].arrow == ""
    assert made.sorted_by is None


def test_where_all_are_equal_none_is_best(inputs: Inputs) -> None:
    (made,) = boards(inputs.summary.assign(value=0.5))
    assert not any(made.best(m, column) for m in made.methods for column in made.columns)


def test_numbers_print_as_in_papers(board: Board) -> None:
    assert [board.cell("grad_cam", column) for column in board.columns] == ["58.3", "50.0", "100.0"]
    assert board.interval("grad_cam", board.columns[BOX]) == "53.3–63.3"
    assert board.interval("grad_cam", board.columns[POINT]) == ""
    assert [column.measure for column in board.columns] == ["% ↑", "% ↓", "% ↑"]
    assert [column.count for column in board.columns] == ["n = 6", "n = 6", "n = 5–6"]


def test_many_cases_get_a_second_decimal_and_other_units_none(inputs: Inputs) -> None:
    (made,) = boards(inputs.summary.assign(n=1000))
    assert made.cell("grad_cam", made.columns[BOX]) == "58.33"
    (made,) = boards(inputs.summary, units={"max_box_acc": "s"})
    assert made.cell("grad_cam", made.columns[BOX]) == "0.583"
    assert made.columns[BOX].measure == "s ↑"
    (made,) = boards(inputs.summary.assign(value=2.5))
    assert made.cell("grad_cam", made.columns[BOX]) == "2.500"


def test_a_missing_number_is_a_dash(inputs: Inputs) -> None:
    gone = inputs.summary.copy()
    gone.loc[(gone["method"] == "layer_cam") & (gone["metric"] == "max_box_acc"), "value"] = np.nan
    (made,) = boards(gone)
    assert made.methods == ("grad_cam", "center", "layer_cam")
    assert made.cell("layer_cam", made.columns[BOX]) == "–"
    assert made.best("grad_cam", made.columns[BOX])


def test_text_fits_and_marks(board: Board) -> None:
    lines = as_text(board).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-3].split() == ["layer_cam", "75.0*", "33.3*", "66.7"]
    assert lines[-1].split() == ["(center)", "25.0", "100.0", "33.3"]


def test_csv_and_markdown(board: Board) -> None:
    assert as_csv(board).splitlines()[1] == "layer_cam,75.0,33.3,66.7"
    assert as_csv(board).startswith("method,max_box_acc@wsol_2020_v2,")
    assert "| grad_cam | 58.3 | 50.0 | **100.0** |" in as_markdown(board)


def test_latex(board: Board) -> None:
    text = as_latex(board)
    assert r"layer\_cam & \textbf{75.0} & \textbf{33.3} & 66.7 \\" in text
    assert text.index(r"grad\_cam") < text.rindex(r"\midrule") < text.index(r"\textit{center}")
    assert r"max\_box\_acc $\uparrow$" in text
    assert escape(r"a_b%{\~^<") == r"a\_b\%\{\textbackslash{}\textasciitilde{}\textasciicircum{}\textless{}"


def test_tie_groups_are_superscripts(board: Board) -> None:
    column = board.columns[POINT]
    ties = {
        ("grad_cam", *column.key): Tie("a", "grad_cam", 1.0, True),
        ("center", *column.key): Tie("bc", "x", 0.1, False),
    }
    text = as_latex(replace(board, ties=ties))
    assert r"& \textbf{100.0}\textsuperscript{a} \\" in text
    assert r"\textit{center}" in text
    assert r"\textsuperscript{bc} \\" in text
    assert text.splitlines()[-2] == rf"\multicolumn{{4}}{{l}}{{\footnotesize {TOLD}}} \\"
    assert TOLD not in as_latex(board)
    assert "**100.0**<sup>a</sup> |" in as_markdown(replace(board, ties=ties))
