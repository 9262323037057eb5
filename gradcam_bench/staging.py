"""The stages of sanity checks: a batch explained again by a network that knows less, beside its first heatmaps.

For a batch, every stage in turn changes the network, explains the same cases by the same methods and hands both
heatmaps to the metrics that need stages. What the stages of an order share is not computed again: the look that
methods share begins at the first unit that differs from a pass that was made before (`calls`); that is the trained
network's for `cascade_down` and `independent`, the stage before's for `cascade_up`. Methods that ask more of the
network ask all of it. Controls that look at nothing but the picture are the same in all stages; noise is drawn anew.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gradcam_bench.answers import Case
from gradcam_bench.catalogue import Method
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.explain import explain_again, heatmaps_of
from gradcam_bench.models.network import Network
from gradcam_bench.plan import Job, Run
from gradcam_bench.probe import Probe
from gradcam_bench.randomize import Stage
from gradcam_bench.samples import Batch, Sample
from gradcam_bench.scoring import make_trial, score_trial
from gradcam_bench.states import States
from gradcam_bench.supplies import Supplies
from gradcam_bench.trial import Trial

REFERENCE = "trained"  # what the rows of a stage say that they compare with
TWIN, OTHER_CLASS, FULL = "labels_permuted", "other_class", "all_random"  # the stages that are of no order
AHEAD = 2  # stages explained and not yet scored

Maps = dict[str, Tensor]
Targets = Callable[[Tensor, Tensor], Tensor]
Paired = tuple[Trial | None, list[tuple[Case, Method]], list[tuple[Case, Method, str]]]


@dataclass(frozen=True)
class Seen:
    """What a stage made of a batch, each method's heatmaps [Q,h,w], for the metrics that compare with that; and those
    of the trained network beside them."""

    stage: str
    draw: int
    compares: str
    maps: Maps
    trained: Maps


@dataclass(frozen=True, eq=False)
class Asked:
    """A batch and its cases, with their heatmaps as trained."""

    batch: Batch
    cases: Sequence[Case]
    maps: Maps


class Staging:
    """The stages of one view of a run. jobs: those that need stages. probe: of the run's network. full: what smaller
    batches are filled up to."""

    def __init__(self, job: Run, view: View, jobs: Sequence[Job], probe: Probe, full: int) -> None:
        if job.network is None:
            raise ValueError("stages need a network")
        self._job, self._view, self._probe, self._full = job, view, probe, full
        self._network: Network = job.network
        self._jobs = {
            one.metric.compares: [o for o in jobs if o.metric.compares == one.metric.compares] for one in jobs
        }
        self._states = States(job, view, probe, full)

    def rows(
        self, batch: Batch, cases: Sequence[Case], maps: Maps, pool: ThreadPoolExecutor, kept: list[Seen] | None = None
    ) -> list[dict[str, Any]]:
        """The rows of all stages of a batch whose heatmaps as trained are `maps`. kept: is given what stages made."""
        mine = [[q for q, case in enumerate(cases) if case.sample is sample] for sample in batch.samples]
        trained: dict[tuple[int, int], Paired] = {}
        waiting: deque[list[Future[list[dict[str, Any]]]]] = deque()
        rows: list[dict[str, Any]] = []
        for seen in self._seen(Asked(batch, cases, maps)) if cases else ():
            if kept is not None:
                kept.append(seen)
            waiting.append([])
            for number, units in enumerate(units for units in mine if units):
                key = number, id(seen.trained)
                if key not in trained:
                    trained[key] = self._trial(cases, seen.trained, units)
                waiting[-1].append(pool.submit(self._score, seen, self._trial(cases, seen.maps, units), trained[key]))
            if len(waiting) > AHEAD:
                rows += [row for future in waiting.popleft() for row in future.result()]
        return rows + [row for futures in waiting for future in futures for row in future.result()]

    def _trial(self, cases: Sequence[Case], maps: Maps, units: Sequence[int]) -> Paired:
        mine = {label: [grids[q] for q in units] for label, grids in maps.items()}
        return make_trial(self._job.plan.methods, [cases[q] for q in units], mine, {})

    def _score(self, seen: Seen, staged: Paired, trained: Paired) -> list[dict[str, Any]]:
        rows = score_trial(self._job, self._view, self._jobs[seen.compares], *paired(staged, trained))
        return [row | {"stage": seen.stage, "draw": seen.draw, "reference": REFERENCE} for row in rows]

    def _seen(self, asked: Asked) -> Iterator[Seen]:
        """Every stage of a batch, draw by draw."""
        wanted, settings = set(self._jobs), self._job.randomize
        cascades = bool({"randomised", "smoothed"} & wanted)
        smooth = self._smoothed(asked, TWIN) if "smoothed" in wanted else {}
        outputs = self._states.outputs(asked.batch) if "randomised" in wanted else {}
        for draw in range(settings.draws):
            for order in settings.orders if cascades else ():
                yield from self._order(order, draw, asked, outputs, smooth)
            if "full" in wanted:
                calls, units, _ = self._states.of(asked.batch)
                with self._states.inside(Stage(FULL, tuple(units), units[0]), draw, calls):
                    made = self._again(asked, f"{FULL}/{draw}")
                yield Seen(FULL, draw, "full", made, asked.maps)
            if "other_class" in wanted:
                made = self._again(asked, f"{OTHER_CLASS}/{draw}", targets=self._others(asked.cases, draw))
                yield Seen(OTHER_CLASS, draw, "other_class", made, asked.maps)
        if self._job.twin is not None and cascades:
            twin = self._job.twin
            probe = Probe(twin.module, [self._view.layer or twin.layer], self._view.score)
            if "randomised" in wanted:
                yield Seen(TWIN, 0, "randomised", self._again(asked, TWIN, probe=probe), asked.maps)
            if "smoothed" in wanted:
                yield Seen(TWIN, 0, "smoothed", self._smoothed(asked, TWIN, probe), smooth)

    def _order(self, order: str, draw: int, asked: Asked, outputs: dict[int, Any], smooth: Maps) -> Iterator[Seen]:
        """The stages of an order. outputs: what the trained network gave where passes may begin."""
        calls, _, _ = self._states.of(asked.batch)
        ranked, starts = self._states.stages(asked.batch, order)
        upwards = order == "cascade_up"  # each pass begins with what the one before gave
        outputs = {} if upwards else outputs
        for n, stage in enumerate(ranked):
            tag, made = f"{stage.name}/{draw}", {}
            with self._states.inside(stage, draw, calls):
                if "randomised" in self._jobs:
                    ahead = starts[n + 1 : n + 2] if upwards else []
                    start = starts[n] if n or not upwards else calls.start(0)
                    made["randomised"] = self._again(asked, tag, calls.passing(start, outputs, ahead)), asked.maps
                    needed = {call for one in ahead for call, _ in one.left_out}
                    outputs = {c: o for c, o in outputs.items() if c in needed} if upwards else outputs
                if "smoothed" in self._jobs:
                    made["smoothed"] = self._smoothed(asked, tag), smooth
            for kind, (maps, trained) in made.items():
                yield Seen(stage.name, draw, kind, maps, trained)

    def _again(
        self,
        asked: Asked,
        tag: str,
        looking: AbstractContextManager[None] | None = None,
        probe: Probe | None = None,
        targets: Targets | None = None,
    ) -> Maps:
        """The cases' heatmaps in the network's present state. tag: from which the noise of controls is drawn."""
        methods, cases = self._job.plan.methods, asked.cases
        if targets is None and self._job.randomize.target == "retaken":
            targets = _first_answers
        seeing = [method for method in methods if method.sees]
        drawing = [method for method in methods if not method.sees and "generators" in method.takes]
        where = [asked.batch.samples.index(case.sample) for case in cases]
        names = [f"{case.id}/{tag}" for case in cases]
        made, _ = heatmaps_of(drawing, Supplies(asked.batch.images[where], names, self._view.seed))
        network = self._network if probe is None or self._job.twin is None else self._job.twin
        rest = (probe or self._probe, seeing, self._view, self._full, self._job.budget, targets, looking)
        return asked.maps | made | explain_again(asked.batch, cases, network, *rest)

    def _smoothed(self, asked: Asked, tag: str, probe: Probe | None = None) -> Maps:
        """Heatmaps averaged over noisy inputs.  Hedström et al. 2024, section 4."""
        settings, images = self._job.randomize, asked.batch.images
        total: Maps = {}
        spread = settings.noise * (images.amax((1, 2, 3)) - images.amin((1, 2, 3)))[:, None, None, None]
        for sample in range(settings.samples):
            noise = [self._noise(one, sample, images.shape[1:]) for one in asked.batch.samples]
            noisy = replace(asked, batch=replace(asked.batch, images=images + spread * torch.stack(noise)))
            for label, maps in self._again(noisy, f"{tag}/{sample}", probe=probe).items():
                total[label] = total[label] + maps if label in total else maps
        return {label: maps / settings.samples for label, maps in total.items()}

    def _noise(self, sample: Sample, number: int, shape: torch.Size) -> Tensor:
        state = _number(self._view.seed, "smooth_mprt", sample.annotation.image_id, number)
        return torch.randn(shape, generator=torch.Generator().manual_seed(state))

    def _others(self, cases: Sequence[Case], draw: int) -> Targets:
        """Another class for each case, each as likely.  Sixt et al. 2020, section 5."""

        def targets(logits: Tensor, _index: Tensor) -> Tensor:
            if logits.shape[1] < 2:
                raise UserError("random_logit needs a network with at least two classes")
            drawn = [_number(self._view.seed, OTHER_CLASS, case.id, draw) % (logits.shape[1] - 1) for case in cases]
            return torch.tensor([n + (n >= case.target) for n, case in zip(drawn, cases, strict=True)])

        return targets


def paired(staged: Paired, trained: Paired) -> Paired:
    """A stage's trial with the trained network's beside it, unit by unit; a unit that has no finite map as trained is
    among the broken ones."""
    (trial, where, broken), (reference, known, _) = staged, trained
    places = {(case.id, method.label): unit for unit, (case, method) in enumerate(known)}
    both = [unit for unit, (case, method) in enumerate(where) if (case.id, method.label) in places]
    lost = [(c, m, "trained network: heatmap not finite") for c, m in where if (c.id, m.label) not in places]
    if trial is None or reference is None or not both:
        return None, [], [*broken, *lost]
    kept = [where[unit] for unit in both]
    order = [places[case.id, method.label] for case, method in kept]
    reference = reference if order == list(range(len(known))) else reference.only(order)
    trial = trial if len(both) == len(where) else trial.only(both)
    return replace(trial, trained=reference), kept, [*broken, *lost]


def _first_answers(logits: Tensor, index: Tensor) -> Tensor:
    return logits.argmax(1)[index]


def _number(*words: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:8], "big") >> 1
