"""The page of a reproduction: every published number beside ours, in the look of a run's page."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gradcam_bench.files import write_text

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write(path: Path, name: str, about: str, needs: str, table: pd.DataFrame) -> Path:
    """Writes the page, whole or not at all; returns its path."""
    environment = Environment(
        loader=PackageLoader("gradcam_bench.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["digits"] = digits
    lines = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    counts = Counter(str(line["verdict"]).partition(":")[0] for line in lines)
    sheet = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    made = environment.get_template("reproduction.html.j2").render(
        name=name, about=about, needs=needs, lines=lines, counts=dict(counts), style=Markup(sheet), policy=POLICY
    )
    write_text(path, made)
    return path


def digits(value: Any, unit: str) -> str:
    """A number as the page prints it: two decimals of percent, four of shares; nothing where there is none."""
    number = float(value)
    return "" if math.isnan(number) else f"{number:.{2 if unit == '%' else 4}f}"
