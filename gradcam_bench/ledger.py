"""What a heatmap costs: passes through a network, counted by whatever makes them, and time.

A method's cost is what it would take alone: a pass that several methods of a run share is charged to each of them, with
its seconds, once; and a part of a look that a method never reads, such as the gradients of a look for activations, is
not charged to it at all. So a cost depends neither on what else is in the run nor on the order.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class Cost:
    """forwards: passes of one image through the whole network. head_forwards: through the part after the target layer
    alone. backwards: backward passes of one score, to the layer or to the pixels. seconds: wall time."""

    forwards: float = 0.0
    head_forwards: float = 0.0
    backwards: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: value + getattr(other, name) for name, value in asdict(self).items()})

    def __iadd__(self, other: Cost) -> Cost:
        """In place: whoever holds the ledger sees it."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self

    def __sub__(self, other: Cost) -> Cost:
        return Cost(**{name: value - getattr(other, name) for name, value in asdict(self).items()})

    def per(self, cases: int) -> Cost:
        """The same, for each of so many cases."""
        return Cost(**{name: value / max(cases, 1) for name, value in asdict(self).items()})
