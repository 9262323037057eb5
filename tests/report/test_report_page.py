"""The page's content, as text; how it behaves is in test_report_browser."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from gradcam_bench.analysis.accuracy import classifiers
from gradcam_bench.cells import Rows
from gradcam_bench.report import facts, page
from gradcam_bench.report.inputs import Inputs
from tests.report.conftest import EVIL, make_confusion, make_ties, whole


@pytest.fixture(scope="module")
def html(written: Path) -> str:
    return written.read_text(encoding="utf-8")


def test_files(written: Path) -> None:
    names = sorted(path.name for path in (written.parent / "plots").iterdir())
    stems = ("accuracy-max_box_acc-wsol_2020_v2", "iou-max_box_acc-wsol_2020_v2", "values")
    assert names == [f"{stem}.{end}" for stem in stems for end in ("pdf", "png", "svg")]
    assert sorted(path.name for path in written.parent.iterdir()) == ["plots", "report.html", "summary.csv"]


def test_names_are_escaped(html: str) -> None:
    assert "<script>alert" not in html
    assert html.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#34;&#39;" in html


def test_nothing_is_fetched(html: str) -> None:
    assert not re.findall(r"""(?:src|href|action|poster|data)\s*=\s*["']?(?:https?:)?//""", html)
    assert not re.findall(r"url\(\s*['\"]?(?!#)", html)
    assert "@import" not in html
    assert "default-src &#39;none&#39;; img-src data:;" in html
    without_source = html.replace("https://arxiv.org/abs/2007.04178", "")  # the preset's source, as text
    assert "http://" not in without_source
    assert "https://" not in without_source


def test_downloads_name_what_is_there(html: str) -> None:
    assert '<a href="summary.csv" download>' in html
    assert "rows.parquet" not in html
    for end in ("svg", "pdf", "png"):
        assert f'<a href="plots/values.{end}" download' in html


def test_leaderboard_and_exclusions(html: str) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<wbr>|<[^>]+>", " ", html))
    assert "75.0 a 70.0–80.0" in text
    assert "nowhere positive" in text
    assert "ablation_cam was refused: this model has no head" in text
    assert "the file is cut short" in text
    assert "difficult 1" in text
    assert "83.3 % " not in text
    assert "top-1 accuracy 66.7 %" in text
    assert "top-5 accuracy 100.0 %" in text


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<wbr>|<[^>]+>", " ", html))


def test_ties_are_marked_and_explained(html: str) -> None:
    board = re.search(r'<table class="board">.*?</table>', html, re.S).group()  # type: ignore[union-attr]
    tied = re.findall(r'<td class="number( best)? tied"[^>]*title="([^"]*)"', board)
    assert [title for _, title in tied] == [
        "the best; group a",
        "cannot be told apart from layer_cam, p 0.400; group a",
    ]
    assert "worse than layer_cam, p 0.010; group b" in board
    assert "cannot be told apart from the best of its column at this number of images" in html


def test_a_board_without_ties_does_not_speak_of_them(inputs: Inputs) -> None:
    assert "Tinted" not in page.write(replace(inputs, ties=None)).read_text()


def test_too_few_images_are_said_to_be(html: str, inputs: Inputs) -> None:
    assert "So few images" not in html
    shown = page.write(replace(inputs, ties=make_ties().assign(p_least=0.06))).read_text()
    assert "So few images tell no two methods apart</b>, whatever their numbers, by max_box_acc." in shown


def test_classifier_against_place(html: str, inputs: Inputs) -> None:
    section = re.search(r'<section id="confusion".*?</section>', html, re.S).group()  # type: ignore[union-attr]
    rows = [text_of(row) for row in re.findall(r"<tr>.*?</tr>", section, re.S)[1:]]
    assert "layer_ cam 3 50.0 % 0 0.0 % 1 16.7 % 2 33.3 % 100.0 33.3" in rows[0]  # in the board's order
    assert "6 cases" in section
    widths = re.findall(r"width:([\d.]+)%", section)
    assert [sum(map(float, widths[n : n + 4])) for n in (0, 4, 8)] == pytest.approx([100, 100, 100], abs=0.01)
    assert "% of class right" in section
    assert 'id="confusion"' not in page.write(replace(inputs, confusion=None)).read_text()


def test_hostile_names_of_methods_and_protocols_are_escaped(inputs: Inputs) -> None:
    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(method=table["method"].astype(str).replace("grad_cam", EVIL))

    rows = Rows.of(renamed(whole(inputs.rows)))
    hostile = replace(inputs, summary=renamed(inputs.summary), rows=rows, gallery=[])
    hostile = replace(hostile, ties=renamed(make_ties()), confusion=renamed(make_confusion()))
    shown = page.write(hostile).read_text()
    assert "<script>alert" not in shown
    assert shown.count("<script>") == 1


def test_protocol_card_names_what_differs(html: str) -> None:
    (card,) = facts.cards({"m": {"p": {"axes": {"threshold": 0.2, "rule": "largest_component"}}}}, {})
    assert [(c.name, c.value, c.default) for c in card.changed] == [("threshold", "0.2", "0.15")]
    assert "iou_threshold <b>0.3, 0.5</b>" in html
    assert "view.size <b>224</b>" in html
    assert 'id="protocol-custom-1a2b3c4d"' in html


def test_classifier_accuracy_is_over_images(inputs: Inputs) -> None:
    (found,) = classifiers(inputs.cases)
    assert found["images"] == 6
    assert found["top1"] == pytest.approx(4 / 6)  # image i4 by its second case
    assert found["top5"] == 1
    assert classifiers(inputs.cases.assign(correct_top1=None, correct_top5=None)) == []


def test_writing_again_gives_the_same_and_removes_old_plots(inputs: Inputs) -> None:
    inputs = replace(inputs, summary=inputs.summary[inputs.summary["metric"] == "max_box_acc"])
    first = page.write(inputs).read_bytes()
    (inputs.folder / "plots" / "accuracy-gone.svg").write_text("old")
    assert page.write(inputs).read_bytes() == first
    assert not (inputs.folder / "plots" / "accuracy-gone.svg").exists()


def test_a_bare_run_still_has_a_page(inputs: Inputs) -> None:
    bare = replace(
        inputs,
        rows=Rows.of(whole(inputs.rows)[lambda rows: rows["metric"] == "pointing_game"]),
        summary=inputs.summary[inputs.summary["metric"] == "pointing_game"],
        cases=inputs.cases.assign(correct_top1=None, correct_top5=None),
        run={},
        about={},
        gallery=[],
        config="",
    )
    text = page.write(bare).read_text(encoding="utf-8")
    assert 'id="gallery"' not in text
    assert "No classifier took part" in text


def test_several_settings_keep_apart(inputs: Inputs) -> None:
    few = inputs.summary[inputs.summary["metric"] == "max_box_acc"]
    summary = pd.concat([few, few.assign(model="other")])
    frame = whole(inputs.rows)
    rows = Rows.of(pd.concat([frame, frame.assign(model="other")]))
    page.write(replace(inputs, summary=summary, rows=rows, gallery=[]))
    names = {path.name for path in (inputs.folder / "plots").glob("*.svg")}
    assert {"values-toy-net-trained.svg", "values-toy-other-trained.svg"} <= names
    assert "accuracy-max_box_acc-wsol_2020_v2-toy-other-trained.svg" in names


def test_costs_are_of_one_heatmap(inputs: Inputs) -> None:
    spent = {"cases": 4, "forwards": 4.0, "head_forwards": 2048.0, "backwards": 0.0, "seconds": 0.5}
    run = {**inputs.run, "costs": {"ablation_cam": {"v1": spent}}, "views": {"v1": "warp 224"}}
    (line,) = facts.costs(run)
    assert line == {
        "method": "ablation_cam",
        "view": "v1",
        "view_name": "warp 224",
        "heatmaps": 4,
        "forwards": 1.0,
        "head_forwards": 512.0,
        "backwards": 0.0,
        "seconds": 0.125,
    }
    shown = page.write(replace(inputs, run=run)).read_text()
    assert "125" in re.search(r'id="cost".*?</table>', shown, re.S).group()  # type: ignore[union-attr]
    assert 'href="#cost"' in shown
