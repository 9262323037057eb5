"""One look for a method everywhere: in each plot, in the legend, beside its name in the table.

Six hues that colour-blind readers can tell apart (Okabe and Ito 2008), then the same six with another dash. Controls
are grey and dashed. In the page a colour is a CSS variable, so that dark mode can lighten it; files get it plain.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "6 2", "1.5 1.5", "6 2 1.5 2")  # in line widths
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
    """How a method is drawn: colour (hex), dash (SVG dash array in line widths, empty for a solid line)."""

    colour: str
    dash: str
    control: bool

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
    made = {}
    plain = [name for name in methods if name not in controls]
    for i, name in enumerate(plain):
        made[name] = Look(HUES[i % len(HUES)], DASHES[i // len(HUES) % len(DASHES)], False)
    for i, name in enumerate(name for name in methods if name in controls):
        made[name] = Look(GREYS[i % len(GREYS)], GREY_DASHES[i % len(GREY_DASHES)], True)
    return made
