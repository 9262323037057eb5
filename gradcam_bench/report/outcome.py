"""The page of a comparison, of a difference explained, of a multiverse: tables and one figure, in a run's look."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gradcam_bench.files import write_text
from gradcam_bench.report import templates


@dataclass(frozen=True)
class Section:
    """A table under a heading. lines: cells as text, the first of each the line's head. numeric: the columns that hold
    numbers, by place. note: a sentence below the heading. folded: shown when asked for, below all that is not; the
    figure is too, then."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()
    note: str = ""
    folded: bool = False


def write(
    path: Path, title: str, about: str, sections: Sequence[Section], figure: Path, alt: str, files: Sequence[str]
) -> str:
    """Writes the page, whole or not at all. about: a line below the title. figure: an SVG file, which goes into the
    page; alt: what it shows. files: names beside the page, to be linked. Returns the page's name."""
    environment = templates.environment()
    drawn = "data:image/svg+xml;base64," + base64.b64encode(figure.read_bytes()).decode()
    made = environment.get_template("outcome.html.j2").render(
        title=title,
        about=about,
        sections=sections,
        figure=drawn,
        alt=alt,
        files=files,
        style=templates.stylesheet(),
        policy=templates.STILL,
    )
    write_text(path, made)
    return path.name
