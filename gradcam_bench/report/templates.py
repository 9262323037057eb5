"""Templates of the pages: everything that they print is escaped, and what is missing is an error."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

STILL = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # the policy of a page without a script


def environment() -> Environment:
    """Where the templates beside this file are found."""
    return Environment(
        loader=PackageLoader("gradcam_bench.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def stylesheet() -> Markup:
    """The look that all pages share."""
    return Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8"))
