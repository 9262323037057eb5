"""The plotted numbers, read back from the figures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from gradcam_bench.report import curves, draw, plots, style
from gradcam_bench.report.inputs import Inputs
from gradcam_bench.report.mean_ranks import mean_ranks
from gradcam_bench.report.panels import Dots


@pytest.fixture
def made(inputs: Inputs) -> dict[str, plots.Plot]:
    return {plot.name: plot for plot in plots.all_plots(inputs)}


def test_only_box_curves_are_plotted(made: dict[str, plots.Plot]) -> None:
    assert list(made) == ["values", "accuracy-max_box_acc-wsol_2020_v2", "iou-max_box_acc-wsol_2020_v2"]


def test_drawn_accuracy_over_threshold(inputs: Inputs, made: dict[str, plots.Plot]) -> None:
    plot = made["accuracy-max_box_acc-wsol_2020_v2"]
    sheet = draw.figure(plot.panels, style.looks(inputs.methods, inputs.controls))
    loose, strict = sheet.axes
    assert "IoU ≥ 0.3" in loose.get_title(loc="left")
    assert "fraction of the map's maximum" in strict.get_xlabel()
    lines = {line.get_label(): line for line in strict.lines}
    x, y = lines["grad_cam"].get_data()
    assert x.tolist() == pytest.approx([k / 100 for k in range(100)])  # percent: 100 levels, the rest unused
    assert y.tolist() == pytest.approx([200 / 6] * 50 + [50.0] * 50)
    assert lines["layer_cam"].get_ydata()[0] == pytest.approx(400 / 6)
    assert loose.lines[0].get_ydata().tolist() == pytest.approx([400 / 6] * 100)
    assert [line.peak for line in plot.panels[1].lines] == [50, 0, 50]
    assert strict.get_ylim() == loose.get_ylim()


def test_controls_are_grey_and_dashed(inputs: Inputs) -> None:
    looks = style.looks(inputs.methods, inputs.controls)
    assert looks["center"].control
    assert looks["center"].colour in style.GREYS
    assert looks["center"].dash
    assert looks["grad_cam"].colour in style.HUES
    many = style.looks([f"m{k}" for k in range(20)], ())
    assert len({(look.colour, look.dash) for look in many.values()}) == 20


def test_distribution_of_iou(made: dict[str, plots.Plot]) -> None:
    (panel,) = made["iou-max_box_acc-wsol_2020_v2"].panels
    line = panel.lines[0]
    at = {round(float(x), 2): float(y) for x, y in zip(line.x, line.y, strict=True)}
    assert line.method == "grad_cam"
    assert at[0.0] == 100
    assert at[0.2] == pytest.approx(500 / 6)  # an IoU of exactly 0.2 counts
    assert at[0.5] == pytest.approx(50)
    assert at[0.9] == pytest.approx(100 / 6)
    assert at[0.91] == 0


def test_values_best_on_top_with_intervals(made: dict[str, plots.Plot]) -> None:
    box, error, _ = made["values"].panels
    assert box.methods == ("layer_cam", "grad_cam", "center")
    assert box.values == pytest.approx((75, 700 / 12, 25))
    assert box.intervals[0] == pytest.approx((70, 80))
    assert error.methods == ("layer_cam", "grad_cam", "center")  # lower is better
    assert error.intervals == (None, None, None)
    assert error.xlabel == "localization_error_gt_known (%) ↓"


def test_a_sheet_shows_no_empty_panel(inputs: Inputs, made: dict[str, plots.Plot]) -> None:
    panels = made["values"].panels + made["iou-max_box_acc-wsol_2020_v2"].panels
    sheet = draw.figure(panels, style.looks(inputs.methods, inputs.controls))
    assert [axes.axison for axes in sheet.axes] == [True] * 4 + [False] * 2


def test_thresholds_and_oracle() -> None:
    assert len(curves.thresholds({})) == 256
    assert curves.thresholds({"quantize": "uint8"})[255] == 1
    assert curves.oracle_level(np.array([[0.1, 0.5, 0.5, 0.2]], dtype=np.float32)) == 1
    assert curves.accuracy(np.array([[0.7]], dtype=np.float32), 0.7).tolist() == [1.0]


def test_a_fixed_threshold_is_marked() -> None:
    axes = {"iou_threshold": (0.5,), "threshold": 0.15}
    read = {"cam": lambda: np.full((2, 256), 0.6, dtype=np.float32)}
    found = curves.Curves(curves.Setting("d", "m", "trained"), "error", "p", axes, read)
    (panel,) = plots.accuracy_over_threshold(found, {"cam": 0}).panels
    assert panel.guides == ((0.15, "threshold 0.15"),)


def test_files_are_deterministic_and_names_harmless(inputs: Inputs, made: dict[str, plots.Plot]) -> None:
    looks = style.looks(inputs.methods, inputs.controls)
    panels = made["values"].panels
    assert draw.svg(draw.figure(panels, looks)) == draw.svg(draw.figure(panels, looks))
    assert draw.png(draw.figure(panels, looks)) == draw.png(draw.figure(panels, looks))
    evil = plots.Dots("$x_1$ <b>&", "x", ("<i>$a$",), (1.0,), (None,))
    text = draw.inline(evil, style.looks(["<i>$a$"], ()), "p", "alt")
    assert "<i>" not in text
    assert "&lt;i&gt;$a$" in text


def test_inlined_svg_has_no_address_and_its_own_ids(inputs: Inputs, made: dict[str, plots.Plot]) -> None:
    looks = style.looks(inputs.methods, inputs.controls)
    text = draw.inline(made["values"].panels[0], looks, "plot7", "values")
    assert "http" not in text
    assert set(re.findall(r'\bid="(\w+)-', text)) == {"plot7"}
    assert "var(--ink" in text
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(re.findall(r'\bid="([^"]+)"', text))
    ET.fromstring(text)


def test_quality_against_cost(inputs: Inputs) -> None:
    """A cheap and worse method, a dear and better one, and one that is dearer and worse than another."""
    costs = {"grad_cam": 0.002, "layer_cam": 0.004, "center": 0.001}
    run = {**inputs.run, "costs": {m: {"v": {"cases": 6, "seconds": 6 * s}} for m, s in costs.items()}}
    made = {plot.name: plot for plot in plots.all_plots(replace(inputs, run=run))}
    panels = {panel.title.splitlines()[0]: panel for panel in made["cost"].panels}
    pointing, error = panels["pointing_game"], panels["localization_error_gt_known"]
    assert pointing.methods == ("center", "grad_cam", "layer_cam")
    assert pointing.x == pytest.approx((1, 2, 4))
    assert pointing.y == pytest.approx((200 / 6, 100, 400 / 6))
    assert pointing.front == ("center", "grad_cam")
    assert error.front == ("center", "grad_cam", "layer_cam")  # an error: lower is better
    sheet = draw.figure(made["cost"].panels, style.looks(inputs.methods, inputs.controls))
    drawn = {line.get_label(): line.get_xydata().tolist() for line in sheet.axes[0].lines}
    first = made["cost"].panels[0]
    assert drawn["grad_cam"] == [[pytest.approx(2), pytest.approx(first.y[1])]]
    assert sheet.axes[0].get_xscale() == "log"
    sheet.canvas.draw()
    assert not any("$" in label.get_text() for label in sheet.axes[0].get_xticklabels())


def test_mean_ranks_by_hand(inputs: Inputs) -> None:
    ranked = {"reduce": "mean", "higher_is_better": False}
    known = inputs.run["protocols"]
    cards = {m: {p: card | ranked for p, card in ids.items()} for m, ids in known.items() if m.startswith("local")}
    (plot,) = mean_ranks(replace(inputs, run={"protocols": cards}))
    (panel,) = plot.panels
    assert isinstance(panel, Dots)
    # errors of six images: grad_cam 000111, layer_cam 001010, center 111111
    ranks = {"layer_cam": (1.5 + 1.5 + 2.5 + 1 + 2 + 1) / 6, "grad_cam": (1.5 + 1.5 + 1 + 2.5 + 2 + 2.5) / 6}
    ranks["center"] = 6 - sum(ranks.values())
    assert dict(zip(panel.methods, panel.values, strict=True)) == pytest.approx(ranks)
    assert list(panel.values) == sorted(panel.values)
    critical = 2.343 * np.sqrt(3 * 4 / (6 * 6))  # q of three methods, Demsar 2006, table 5
    assert [high - low for low, high in filter(None, panel.intervals)] == pytest.approx([critical] * 3, abs=1e-3)
    assert "6 images" in panel.xlabel
    assert list(mean_ranks(replace(inputs, run={}))) == []


def test_no_two_methods_look_alike() -> None:
    many = style.looks([f"m{n}" for n in range(42)], ())
    assert len({(look.colour, look.mark) for look in many.values()}) == 42
    assert set(style.MARKS) == {look.mark for look in many.values()}
