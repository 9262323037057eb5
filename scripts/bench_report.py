"""How large a run's page is and how quickly it opens.

    python scripts/bench_report.py [--images 1000] [--results DIR] [OVERRIDES ...]

Runs the demo on so many scenes (or goes on with that run) and opens its report.html five times in headless Chromium, on
a cold page each time: from the address to the end of loading, and to the first picture of it on the screen. Needs
Playwright and a Chromium. Overrides make the run another one: `method=[grad_cam,center]`.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from gradcam_bench import commands
from gradcam_bench.overrides import configuration

MOST_BYTES, MOST_SECONDS, TIMES = 15e6, 2.0, 5
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PAINTED = """() => new Promise(found => new PerformanceObserver(list => found(list.getEntries()[0].startTime / 1000))
    .observe({type: "paint", buffered: true}))"""


def opened(browser: Any, page: Path) -> tuple[float, float]:
    """Seconds to the end of loading and to the first paint."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    start = time.perf_counter()
    tab.goto(page.as_uri(), wait_until="load")
    loaded = time.perf_counter() - start
    painted = float(tab.evaluate(PAINTED))
    tab.close()
    return loaded, painted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--results", type=Path, default=Path("results/bench"))
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    words = [f"results={options.results}", f"name=report{options.images}", f"dataset.root.count={options.images}"]
    page = commands.run(configuration([*words, *options.overrides])) / "report.html"  # type: ignore[operator]
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        times = [opened(browser, page) for _ in range(TIMES)]
        browser.close()
    size = page.stat().st_size
    loaded, painted = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{options.images} images: {size / 1e6:.1f} MB, loaded in {loaded:.2f} s, first paint after {painted:.2f} s")
    print(f"below {MOST_BYTES / 1e6:.0f} MB and {MOST_SECONDS:g} s: {size < MOST_BYTES and loaded < MOST_SECONDS}")


if __name__ == "__main__":
    main()
