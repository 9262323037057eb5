"""The page of a comparison: what it holds, and that names cannot become markup."""

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gradcam_bench.analysis.contest import Contest
from gradcam_bench.analysis.paired import Difference
from gradcam_bench.report import outcome
from gradcam_bench.report.gaps import Gap, as_section
from gradcam_bench.report.latex import TOLD
from gradcam_bench.report.pairs import as_latex, as_markdown, as_sections

HOSTILE = "<script>alert(1)</script>"


class Cells(HTMLParser):
    """The rows of a page's tables, and the tags that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.inside = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        self.inside = tag in ("td", "th")
        if self.inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def read(path: Path) -> Cells:
    cells = Cells()
    cells.feed(path.read_text(encoding="utf-8"))
    return cells


def written(folder: Path, sections: list[outcome.Section]) -> Cells:
    (folder / "x.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    name = outcome.write(folder / "x.html", f"T {HOSTILE}", "about", sections, folder / "x.svg", "alt", ["x.svg"])
    return read(folder / name)


def test_a_gap_s_choices_largest_first_and_nothing_is_fetched(tmp_path: Path) -> None:
    gap = Gap(HOSTILE, 0.5, 0.6, {"a": ("1", "2", 0.02), "b": ("x", HOSTILE, -0.12), "c": ("3", "4", 0.2)})
    cells = written(tmp_path, [as_section(gap, ["from", "to"])])
    assert cells.rows == [
        ["choice", "from", "to", "value"],
        ["c", "3", "4", "+0.2000"],
        ["b", "x", HOSTILE, "-0.1200"],
        ["a", "1", "2", "+0.0200"],
    ]
    assert "script" not in cells.tags
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "0.5000 (from) to 0.6000 (to), +0.1000." in text
    assert not re.search(r"(src|href)=\"(?!data:|#|x\.svg\")", text)


def test_two_contestants_that_differ_and_one_that_cannot_be_told(tmp_path: Path) -> None:
    def found(difference: float) -> Difference:
        known = dict.fromkeys(Difference.__dataclass_fields__, 0.0)
        return Difference(**{**known, "difference": difference, "low": -0.1, "high": 0.3, "n": 40})  # type: ignore[arg-type]

    pairs = {("m", "k"): (found(0.1), 0.01), ("m", "l"): (found(0.02), 0.9), ("k", "l"): (found(-0.08), 0.4)}
    board, told = as_sections(Contest("box_iou", "default", "all", True, {"k": 0.3, "l": 0.38, "m": 0.4}, pairs))
    assert [line[0] for line in board.lines] == ["m", "l", "k"]
    assert [line[2] for line in board.lines] == ["a", "ab", "b"]
    assert [line[5] for line in told.lines] == ["m", "cannot be told apart", "cannot be told apart"]
    assert (board.folded, told.folded, told.title) == (False, True, "box_iou, default: 3 pairs")
    cells = written(tmp_path, [board, told])
    assert ["m − k", "+0.1000", "-0.1000 to +0.3000", "0.0100", "40", "m"] in cells.rows


def contest(stratum: str = "all", low_is_good: bool = False) -> Contest:
    """m and l cannot be told apart, nor l and k."""
    known = dict.fromkeys(Difference.__dataclass_fields__, 0.0) | {"n": 40}
    ps = {("m", "a_k&l"): 0.01, ("m", "l"): 0.9, ("a_k&l", "l"): 0.4}
    pairs = {pair: (Difference(**{**known, "difference": 0.1}), p) for pair, p in ps.items()}  # type: ignore[arg-type]
    return Contest("box_iou", "default", stratum, not low_is_good, {"a_k&l": 0.3, "l": 0.38, "m": 0.4}, pairs)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    text = as_latex([contest(), contest("size=50%_{~^<>}$#\\", low_is_good=True)])
    packages = r"\usepackage{booktabs,longtable}"
    (tmp_path / "t.tex").write_text(rf"\documentclass{{article}}{packages}\begin{{document}}{text}\end{{document}}")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-1500:]
    assert (tmp_path / "t.pdf").is_file()


def test_latex_has_the_letters_of_the_groups() -> None:
    boards, told, pairs = as_latex([contest(), contest("size=small", low_is_good=True)]).partition(
        "\n\n% with booktabs and longtable: pairs may fill pages\n"
    )
    first, second = boards.split("\n\n")
    assert first.splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r" & box\_iou $\uparrow$ \\",
        r"Method & \small default \\",
        r"\midrule",
        r"m & 0.4000\textsuperscript{a} \\",
        r"l & 0.3800\textsuperscript{ab} \\",
        r"a\_k\&l & 0.3000\textsuperscript{b} \\",
        r"\bottomrule",
        rf"\multicolumn{{2}}{{l}}{{\footnotesize {TOLD}}} \\",
        r"\end{tabular}",
    ]
    assert r"size=small & box\_iou $\downarrow$ \\" in second
    assert second.index("0.3000") < second.index("0.3800") < second.index("0.4000")  # the lowest is the best
    assert told
    assert r"box\_iou (default) & m & a\_k\&l & \textbf{+0.1000}" in pairs


def test_markdown_has_the_letters_of_the_groups() -> None:
    text = as_markdown([contest()])
    assert "| method | value \N{UPWARDS ARROW} |" in text
    assert "| l | 0.3800<sup>ab</sup> |" in text
    assert "told apart: 40 paired cases." in text


def test_runs_that_are_not_all_compared_have_no_letters() -> None:
    part = replace(contest(), pairs={("m", "l"): contest().pairs["m", "l"]})
    assert r"\textsuperscript" not in as_latex([part])
    assert "<sup>" not in as_markdown([part])
    (section,) = as_sections(part)
    assert not section.folded
