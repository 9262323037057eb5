"""The states of a run's network in sanity checks: which weights are random, and from where on a pass has to be made.

What is found once serves all batches: calls and units of the network for images of one size, the random weights, and
the statistics that batch norms take of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from gradcam_bench import randomize
from gradcam_bench.calls import Calls, Start
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.explain import filled_up
from gradcam_bench.machine import default_budget
from gradcam_bench.plan import Run
from gradcam_bench.probe import Probe
from gradcam_bench.randomize import Stage
from gradcam_bench.samples import Batch, Sample, Samples
from gradcam_bench.units import Unit, find_units

CALIBRATION = 32  # images whose statistics `randomize.batch_norm=recompute` takes
CACHED = 2**30  # bytes of random weights that are kept from one batch to the next


class States:
    """The states that the network of a run goes through under one view. full: what smaller batches are filled up to."""

    def __init__(self, job: Run, view: View, probe: Probe, full: int) -> None:
        self._job, self._view, self._probe, self._full = job, view, probe, full
        self._known: dict[torch.Size, tuple[Calls, list[Unit], bool]] = {}  # for images of one size, once found
        self._weights: dict[tuple[str, int], dict[Tensor, Tensor]] = {}
        self._statistics: dict[tuple[str, int], dict[Tensor, Tensor]] = {}
        self._calibration: Tensor | None = None

    def of(self, batch: Batch) -> tuple[Calls, list[Unit], bool]:
        """The network's calls for images of this size, its units, and whether a pass can begin in its middle."""
        size, settings = batch.images.shape[1:], self._job.randomize
        if size not in self._known:
            image = filled_up(batch.images[:1], self._probe, 0)
            calls = Calls(self._probe.model, image, self._probe.target)
            units = find_units(calls, image, settings.granularity, settings.batch_norm)
            self._known[size] = calls, units, calls.hold([unit.begins for unit in units], image)
        return self._known[size]

    def stages(self, batch: Batch, order: str) -> tuple[list[Stage], list[Start]]:
        """An order's stages, and where the pass of each begins: at what changed, or as near before it as the memory
        lets places be kept."""
        calls, units, holds = self.of(batch)
        ranked = randomize.stages(units, order, self._job.randomize.every)
        events = [stage.changed.begins for stage in ranked]
        places, budget = sorted(set(events)) if holds else [], self._job.budget or default_budget(batch.images.device)
        room = budget // max(len(batch.images), self._full)
        while places and calls.size([calls.start(event) for event in places]) > room:
            places = places[1::2]
        return ranked, [calls.start(max((p for p in places if p <= event), default=0)) for event in events]

    def outputs(self, batch: Batch) -> dict[int, Any]:
        """What the trained network gives wherever passes of orders that go back to it begin."""
        calls, _, _ = self.of(batch)
        found: dict[int, Any] = {}
        orders = [order for order in self._job.randomize.orders if order != "cascade_up"]
        starts = [start for order in orders for start in self.stages(batch, order)[1]]
        if any(one.left_out for one in starts):
            passing = calls.passing(calls.start(0), found, starts)
            with self._probe.as_found(), torch.inference_mode(False), torch.no_grad(), passing:
                self._probe.model(filled_up(batch.images, self._probe, self._full))
        return found

    def _first_images(self) -> Tensor:
        """The data's first images, whatever part of them this run, or this process of it, is about."""
        if self._calibration is None:
            count = min(CALIBRATION, len(self._job.dataset.ids))
            read = Samples(self._job.dataset, self._job.preprocessing, self._view, range(count))
            pixels = [one.pixels for one in (read[n] for n in range(count)) if isinstance(one, Sample)]
            if len({one.shape for one in pixels}) != 1:
                raise UserError("randomize.batch_norm=recompute needs inputs of one size: give view.crop, or warp them")
            self._calibration = filled_up(torch.stack(pixels), self._probe, 0)
        return self._calibration

    def _drawn(self, unit: Unit, seed: int, draw: int) -> dict[Tensor, Tensor]:
        network = self._job.network
        how = self._job.randomize.initialization
        return randomize.drawn([unit], seed, draw, how, None if network is None else network.untrained)

    @contextmanager
    def inside(self, stage: Stage, draw: int, calls: Calls) -> Iterator[None]:
        """The network as it is in a stage, inside."""
        settings, seed = self._job.randomize, self._view.seed
        with ExitStack() as changed:
            for unit in stage.units:
                key = unit.name, draw
                values = self._weights.get(key) or self._drawn(unit, seed, draw)
                if sum(v.nbytes for held in self._weights.values() for v in held.values()) < CACHED:
                    self._weights[key] = values
                changed.enter_context(randomize.swapped(values))
            if settings.batch_norm == "recompute":
                found = self._statistics.get((stage.name, draw))
                if found is None:
                    found = randomize.statistics(calls, stage.units[0].begins, self._first_images())
                    self._statistics[stage.name, draw] = found
                changed.enter_context(randomize.swapped(found))
            yield
