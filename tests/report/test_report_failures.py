"""The section on failures in a browser: orders and methods change without a script, and names are escaped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import EVIL, make_inputs

from gradcam_bench.report import page
from gradcam_bench.report.failures import Failures, Shown, as_text
from gradcam_bench.report.inputs import Overlay

RANKS = {"i0": (1, 3, 1), "i1": (2, 1, 3), "i2": (3, 2, 2)}


def study() -> Failures:
    heat, image = np.tile(np.linspace(0, 1, 40), (30, 1)), np.full((30, 40, 3), 90, np.uint8)
    boxes = np.array([[2.0, 3, 12, 13]])
    shown = [
        Shown(
            name,
            "missed class" if name == "i2" else "wrong first answer",
            (EVIL, 0.125),
            ("dog", 0.75),
            image,
            boxes,
            {
                m: (Overlay(heat, boxes + n, None, "IoU 0.25"), Overlay(heat, boxes, None, ""))
                for n, m in enumerate("ab")
            },
            ranks,
        )
        for name, ranks in RANKS.items()
    ]
    summary = pd.DataFrame({"method": ["a", "b"], "iou_true": [0.5, 1 / 3], "iou_right": [0.25, np.nan]})
    counts = {"images": 9, "images misclassified": 4, "failures": 4}
    return Failures(counts, "What counts.", pd.DataFrame(), summary, shown, "iou")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page.write(replace(make_inputs(tmp_path_factory.mktemp("run")), failures=study(), controls=["b"]))


def test_what_is_written(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    section = text[text.index('<section id="failures"') :]
    section = section[: section.index("</section>")]
    assert section.count("<figure") == 3
    assert EVIL not in section
    assert "&lt;script&gt;" in section
    assert "12&nbsp;%" in section
    assert "3 of 4 failures are shown" in section
    assert "i2 · missed class" in section
    assert section.count("true class<i") == 3
    assert section.count(": IoU 0.25</i>") == 6
    assert '<td class="number">33.3</td><td class="number">–</td>' in section
    assert 'b <span class="tag">control</span>' in section


def test_the_terminal_says_the_same() -> None:
    first, _, *rows = as_text(study()).splitlines()
    assert first == "failures: 9 images, 4 images misclassified, 4 failures"
    assert rows == ["   box right", "a  50.0 / – / 25.0", "b  33.3 / – / –"]


@pytest.fixture
def opened(written: Path) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on the path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        shown, said = browser.new_page(viewport={"width": 1280, "height": 900}), []
        shown.on("console", lambda message: said.append(message.text))
        shown.goto(written.as_uri())
        yield shown
        browser.close()
        assert said == []


def test_orders_and_methods_in_a_browser(opened: Any) -> None:
    def places() -> list[str]:
        """Image ids from left to right, top to bottom, as they are seen."""
        figures = [(f.bounding_box(), f.locator(".image-id").inner_text()) for f in opened.locator(".failure").all()]
        return [name.partition(" ")[0] for _, name in sorted(figures, key=lambda f: (f[0]["y"], f[0]["x"]))]

    assert places() == ["i0", "i1", "i2"]
    opened.locator("#failures-order-1").check()
    assert places() == ["i1", "i2", "i0"]
    opened.locator("#failures-order-2").check()
    assert places() == ["i0", "i2", "i1"]
    first = opened.locator(".failure").first
    assert [m.is_visible() for m in first.locator(".both > div").first.locator(".map").all()] == [True, False]
    opened.locator("#failures-method-1").check()
    assert [m.is_visible() for m in first.locator(".both > div").first.locator(".map").all()] == [False, True]
    assert first.locator(".stack").first.evaluate("s => getComputedStyle(s).backgroundImage").startswith('url("data:')
