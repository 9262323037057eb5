"""A look that several methods share: what each half of it took, and which half a method reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from torch import Tensor

from gradcam_bench.ledger import Cost
from gradcam_bench.machine import now
from gradcam_bench.probe import Evidence, Probe

PARTS = tuple(field.name for field in fields(Evidence))
FREE = ("image_index", "targets", "head")  # parts of the evidence that no pass is needed for


def timed_look(
    probe: Probe, images: Tensor, targets: Any, image_index: Tensor | None, record: bool = False
) -> tuple[dict[str, Evidence], Cost, Cost]:
    """A look, and what its forward pass and its backward passes cost."""
    between = start = now(images.device)

    def chosen(logits: Tensor) -> Any:  # what is asked of the look once its forward pass is done
        nonlocal between
        between = now(images.device)
        return targets(logits) if callable(targets) else (targets, image_index)

    found = probe.look(images, chosen, None, record)
    index, end = found[probe.layers[0]].image_index, now(images.device)
    forward = Cost(forwards=float(len(index.unique())), seconds=between - start)
    return found, forward, Cost(backwards=float(len(index)), seconds=end - between)


class Read(Evidence):
    """Evidence that tells when a part of it is read."""

    @staticmethod
    def of(evidence: Evidence, tell: Callable[[str], None]) -> Evidence:
        made = Read(**{field.name: getattr(evidence, field.name) for field in fields(evidence)})
        vars(made)["_tell"] = tell
        return made

    def __getattribute__(self, name: str) -> Any:
        known = object.__getattribute__(self, "__dict__")
        if name in PARTS and "_tell" in known:
            known["_tell"](name)
        return super().__getattribute__(name)
