"""One look for a method everywhere: in each plot, in the legend, beside its name in the table.

Six hues that colour-blind readers can tell apart (Okabe and Ito 2008), each with a mark, seven marks in turn, so that
no two of 42 methods look alike in print without colours; then the same with another dash. Controls are grey and dashed,
without a mark. In the page a colour is a CSS variable, so that dark mode can lighten it; files get it plain.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "6 2", "1.5 1.5", "6 2 1.5 2")  # in line widths
MARKS = {  # matplotlib's name -> an SVG path about (0, 0)
    "o": "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "s": "M-2.7-2.7h5.4v5.4h-5.4z",
    "^": "M0-3.4L3.3 2.7H-3.3z",
    "D": "M0-3.6L3.6 0L0 3.6L-3.6 0z",
    "v": "M0 3.4L3.3-2.7H-3.3z",
    "P": "M-1.3-3.6h2.6v2.3h2.3v2.6h-2.3v2.3h-2.6v-2.3h-2.3v-2.6h2.3z",
    "X": "M0-1.7L1.8-3.5L3.5-1.8L1.7 0L3.5 1.8L1.8 3.5L0 1.7L-1.8 3.5L-3.5 1.8L-1.7 0L-3.5-1.8L-1.8-3.5z",
}
GREYS = ("#7d8590", "#9aa1aa")
GREY_DASHES = ("4 2", "1 1.6", "5 1.5 1 1.5")

INK, MUTED, GRID = "#1b2026", "#5c6570", "#dfe3e8"
PREDICTED, TRUE = "#22d3ee", "#ffffff"
COLORMAP = "inferno"

VARIABLES = {
    **{colour: f"--hue-{i}" for i, colour in enumerate(HUES)},
    **{colour: f"--grey-{i}" for i, colour in enumerate(GREYS)},
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn: colour (hex), dash (SVG dash array in line widths, empty for a solid line), mark (one of
    MARKS, empty for none)."""

    colour: str
    dash: str
    control: bool
    mark: str = ""

    @property
    def sign(self) -> str:
        """The mark as an SVG path about (0, 0)."""
        return MARKS.get(self.mark, "")

    @property
    def variable(self) -> str:
        """The colour as the page's CSS has it."""
        return f"var({VARIABLES[self.colour]}, {self.colour})"

    @property
    def pixels(self) -> str:
        """The dash array in pixels, for the page's swatches."""
        return " ".join(f"{2 * float(part):g}" for part in self.dash.split())


def looks(methods: Sequence[str], controls: Collection[str]) -> dict[str, Look]:
    """A look for each method, by its place in the list; the same list always gives the same looks."""
    made, marks = {}, list(MARKS)
    plain = [name for name in methods if name not in controls]
    for i, name in enumerate(plain):
        made[name] = Look(HUES[i % len(HUES)], DASHES[i // len(HUES) % len(DASHES)], False, marks[i % len(marks)])
    for i, name in enumerate(name for name in methods if name in controls):
        made[name] = Look(GREYS[i % len(GREYS)], GREY_DASHES[i % len(GREY_DASHES)], True)
    return made
