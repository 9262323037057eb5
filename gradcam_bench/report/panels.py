"""What a plot is made of: panels of numbers, drawn by `draw`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from gradcam_bench.report.curves import Floats


@dataclass(frozen=True)
class Line:
    """A method's curve: x [m], y [m]. peak: the index of the marked point, None for no mark."""

    method: str
    x: Floats
    y: Floats
    peak: int | None = None


@dataclass(frozen=True)
class Lines:
    """A panel of curves; y in percent up to `top`, x from 0 to `right`. guides: vertical lines and what they mean."""

    title: str
    xlabel: str
    ylabel: str
    lines: tuple[Line, ...]
    top: float = 100.0
    guides: tuple[tuple[float, str], ...] = ()
    right: float = 1.0


@dataclass(frozen=True)
class Dots:
    """A panel of one number a method, best on top: values [m] with (low, high) or None where there is no interval.
    limits: what the values cannot exceed."""

    title: str
    xlabel: str
    methods: tuple[str, ...]
    values: tuple[float, ...]
    intervals: tuple[tuple[float, float] | None, ...]
    limits: tuple[float, float] = (-math.inf, math.inf)


@dataclass(frozen=True)
class Points:
    """A panel of one point a method: milliseconds a heatmap x [m], on a logarithmic axis, and a number y [m]. front:
    the methods that no other is both cheaper and better than, by their cost."""

    title: str
    xlabel: str
    ylabel: str
    methods: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    front: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """A method's curve over numbered stages x [m]: y [m] with a band from low [m] to high [m]."""

    method: str
    x: Floats
    y: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Steps:
    """A panel of curves over stages; names: of the stages, by their number from 0."""

    title: str
    ylabel: str
    names: tuple[str, ...]
    lines: tuple[Step, ...]
    xlabel: str = ""


Panel = Lines | Dots | Points | Steps


@dataclass(frozen=True)
class Plot:
    """A figure of one or more panels. name: the file's stem. heading, caption: for the page."""

    kind: str
    name: str
    heading: str
    caption: str
    panels: tuple[Panel, ...]


def slug(*parts: str) -> str:
    return "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts if part)
