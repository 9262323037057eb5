"""The page of a reproduction: every published number beside ours, in the look of a run's page."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from gradcam_bench.files import write_text
from gradcam_bench.report import templates


def write(path: Path, name: str, about: str, needs: str, table: pd.DataFrame) -> Path:
    """Writes the page, whole or not at all; returns its path."""
    environment = templates.environment()
    environment.filters["digits"] = digits
    lines = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    counts = Counter(str(line["verdict"]).partition(":")[0] for line in lines)
    made = environment.get_template("reproduction.html.j2").render(
        name=name,
        about=about,
        needs=needs,
        lines=lines,
        counts=dict(counts),
        style=templates.stylesheet(),
        policy=templates.STILL,
    )
    write_text(path, made)
    return path


def digits(value: Any, unit: str) -> str:
    """A number as the page prints it: two decimals of percent, four of shares; nothing where there is none."""
    number = float(value)
    return "" if math.isnan(number) else f"{number:.{2 if unit == '%' else 4}f}"
