"""The page in a browser: no error, no request, and every control does what it says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from gradcam_bench.analysis.contest import Contest
from gradcam_bench.analysis.paired import Difference
from gradcam_bench.report import outcome
from gradcam_bench.report.pairs import as_sections

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

FLAGS = [
    f"--{name}"
    for name in (
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
    )
]
LEADERBOARD = "table.board tbody tr th"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on the path")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, written: Path) -> Iterator[Any]:
    """The page, open; afterwards, that nothing was said on the console and nothing but the file was asked for."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    said: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(written.as_uri())
    yield opened
    opened.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [written.as_uri()]


def methods(page: Any) -> list[str]:
    return [cell.get_attribute("data-value") for cell in page.locator(LEADERBOARD).all()]


def test_sorting(page: Any) -> None:
    headers = page.locator("table.board thead th")
    assert headers.nth(1).get_attribute("aria-sort") == "descending"
    assert methods(page) == ["layer_cam", "grad_cam", "center"]
    headers.nth(3).locator("button").click()
    assert methods(page) == ["grad_cam", "layer_cam", "center"]
    assert headers.nth(3).get_attribute("aria-sort") == "descending"
    assert headers.nth(1).get_attribute("aria-sort") == "none"
    headers.nth(2).locator("button").focus()
    page.keyboard.press("Enter")  # an error: best, lowest, first
    assert headers.nth(2).get_attribute("aria-sort") == "ascending"
    assert methods(page) == ["layer_cam", "grad_cam", "center"]
    page.keyboard.press("Enter")
    assert methods(page) == ["center", "grad_cam", "layer_cam"]


def test_layers(page: Any) -> None:
    thumb = page.locator(".thumb").first
    expect = sync_api.expect
    for name, layer in (("map", ".map"), ("predicted boxes", ".predicted-boxes"), ("true boxes", ".true-boxes")):
        drawn = thumb.locator(
            f"{layer}[data-layer='0'] rect, {layer}:not([data-layer]) rect, img{layer}[data-layer='0']"
        )
        expect(drawn.last).to_be_visible()
        page.get_by_label(name, exact=True).uncheck()
        expect(drawn.last).to_be_hidden()
        page.get_by_label(name, exact=True).check()
        expect(drawn.last).to_be_visible()


def test_the_mask_is_toggled(page: Any) -> None:
    mask = page.locator(".thumb").first.locator(".true-mask")
    sync_api.expect(mask).to_be_visible()
    page.get_by_label("true mask", exact=True).uncheck()
    sync_api.expect(mask).to_be_hidden()


def test_filters(page: Any) -> None:
    shown, groups = page.locator(".thumb:visible"), page.locator(".group:visible")
    total = page.locator(".thumb").count()
    assert page.locator("#shown").text_content() == f"{total} of {total} cases"
    page.locator("[data-filter=size]").select_option("small")
    assert {thumb.get_attribute("data-size") for thumb in shown.all()} == {"small"}
    assert shown.count() < total
    page.locator("[data-filter=answer]").select_option("right")
    page.locator("[data-filter=name]").select_option("<script>alert(1)</script>&\"'")
    assert {thumb.get_attribute("data-image") for thumb in shown.all()} == {"i0"}
    assert page.locator("#shown").text_content() == f"2 of {total} cases"  # among the best, and the most disagreed
    assert groups.count() == 2
    shown.first.click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # round the two that are shown
    page.keyboard.press("Escape")
    sync_api.expect(shown.first).to_be_focused()
    page.locator("[data-filter=name]").select_option("dog")
    assert shown.count() == groups.count() == 0
    for name in ("size", "answer", "name"):
        page.locator(f"[data-filter={name}]").select_option("")
    assert shown.count() == total


def test_every_control_is_reached_by_keyboard(page: Any) -> None:
    page.locator("#method").focus()
    reached = []
    for _ in range(9):
        focused = page.evaluate("(e => e.id || e.dataset.toggle || e.dataset.filter)(document.activeElement)")
        reached.append(focused)
        page.keyboard.press("Tab")
    assert reached == ["method", "no-map", "no-predicted", "no-true", "no-mask", "opacity", "name", "size", "answer"]


def test_method_and_opacity(page: Any) -> None:
    thumb = page.locator(".thumb").first
    expect = sync_api.expect
    assert thumb.locator(".score:visible").all_text_contents() == ["0.90"]
    page.locator("#method").select_option(label="layer_cam")
    assert thumb.locator(".score:visible").all_text_contents() == ["0.10"]
    expect(thumb.locator("img.map:visible")).to_have_count(1)
    page.get_by_label("Opacity of the map in percent").fill("20")
    expect(thumb.locator("img.map:visible")).to_have_css("opacity", "0.2")


def test_dialog(page: Any) -> None:
    viewer = page.locator("#viewer")
    expect = sync_api.expect
    expect(viewer).to_be_hidden()
    page.locator(".thumb").first.click()
    expect(viewer).to_be_visible()
    expect(page.locator("#viewer-title")).to_have_text("<script>alert(1)</script>&\"' · i0")
    expect(page.locator("#viewer-note")).to_have_text("0.90 · IoU at 0.50")
    expect(page.locator("#viewer-strip button:visible")).to_have_count(3)
    page.locator("#viewer-strip button").nth(1).click()
    expect(page.locator("#viewer-note")).to_have_text("0.10 · IoU at 0.50")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-title")).to_have_text("dog · i1")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(page.locator(".thumb").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(viewer).to_be_visible()
    page.locator("#close").click()
    expect(viewer).to_be_hidden()


def test_theme(page: Any) -> None:
    body = page.locator("body")
    light = body.evaluate("b => getComputedStyle(b).backgroundColor")
    page.emulate_media(color_scheme="dark")
    dark = body.evaluate("b => getComputedStyle(b).backgroundColor")
    assert light != dark
    button = page.locator("#theme")
    button.click()
    assert button.text_content() == "Theme: light"
    assert body.evaluate("b => getComputedStyle(b).backgroundColor") == light


def test_latex_is_copied_or_shown(page: Any) -> None:
    page.get_by_role("button", name="Copy LaTeX").click()
    sync_api.expect(page.locator("button.copy")).not_to_have_text("Copy LaTeX")
    assert r"\begin{tabular}{lrrr}" in page.locator("#latex-0").input_value()


def test_a_phone_scrolls_tables_not_the_page(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wider = page.locator(".scroll:has(table.board)").evaluate("e => e.scrollWidth > e.clientWidth")
    assert wider


def test_controls_have_names_and_images_have_text(page: Any) -> None:
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, select, textarea, a')]
           .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length)))
           .map(e => e.outerHTML)"""
    )
    assert unnamed == []
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    doubled = page.evaluate(
        """(ids => ids.filter((id, i) => ids.indexOf(id) !== i))
           ([...document.querySelectorAll('[id]')].map(e => e.id))"""
    )
    assert doubled == []


def test_a_comparison_is_short_and_its_pairs_unfold_by_keyboard_and_in_print(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "x.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' width='900' height='2000'/>")
    known = dict.fromkeys(Difference.__dataclass_fields__, 0.0) | {"n": 40}
    values = {f"method_{n}": n / 10 for n in range(8)}
    pairs = {pair: (Difference(**known), 1.0) for pair in combinations(values, 2)}  # type: ignore[arg-type]
    contests = [Contest(f"metric_{n}", "default", "all", True, values, pairs) for n in range(5)]
    sections = [section for contest in contests for section in as_sections(contest)]
    name = outcome.write(tmp_path / "x.html", "Compared", "about", sections, tmp_path / "x.svg", "all pairs", ["x.svg"])
    said: list[str] = []
    for width, screens in ((1280, 2), (390, 5)):
        page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme="dark")
        page.on("console", lambda message: said.append(message.text))
        page.goto((tmp_path / name).as_uri())
        assert page.evaluate("document.documentElement.scrollHeight") < screens * 1000
        assert page.evaluate("document.documentElement.scrollWidth") == width
        headings = page.locator("h2").all_text_contents()
        assert headings == [*(f"metric_{n}, default" for n in range(5)), "Pair by pair", "Files"]
        summaries = page.locator("summary")
        assert summaries.all_text_contents()[:2] == ["figure of all", "metric_0, default: 28 pairs"]
        drawn, row = page.get_by_alt_text("all pairs"), page.locator("details tbody tr").first
        sync_api.expect(drawn).to_be_hidden()
        sync_api.expect(row).to_be_hidden()
        summaries.nth(1).focus()
        page.keyboard.press("Enter")
        sync_api.expect(row).to_be_visible()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "scroll"  # the table scrolls by its arrows
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Space")
        sync_api.expect(row).to_be_hidden()
        page.emulate_media(media="print")
        assert row.bounding_box()["height"] > 5
        assert drawn.bounding_box()["height"] > 500
        page.close()
    assert said == []
