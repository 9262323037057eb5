"""What a run will do, worked out before it starts: through which views to look, what to score by which protocols."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradcam_bench.catalogue import Method, Metric, Preset
from gradcam_bench.choices import Protocol, View, digest, protocol_id
from gradcam_bench.errors import UserError
from gradcam_bench.heatmaps import level
from gradcam_bench.models.network import Network, Preprocessing
from gradcam_bench.randomize import Settings
from gradcam_bench.regions.boxes import FOUR
from gradcam_bench.samples import Dataset
from gradcam_bench.store import Store

DEFAULT = Preset("default", "Every choice at its default, the weights' own preprocessing")


@dataclass(frozen=True)
class Job:
    """One metric under one protocol, restricted to the axes that the metric reads. id: what its rows carry."""

    metric: Metric
    preset: str
    protocol: Protocol
    id: str

    def card(self, view: View) -> dict[str, Any]:
        """Everything behind the number, for run.json, the summary and the page."""
        direction, how = self.metric.higher_is_better, self.metric.reduce
        choices = {"preset": self.preset, "view": view.facts, "axes": dict(self.protocol)}
        choices |= {"levels": self.metric.levels} if self.metric.levels else {}
        return choices | {"reduce": how, "higher_is_better": direction, "about": self.metric.about}


@dataclass(frozen=True)
class Plan:
    """methods: to make heatmaps with. views: each resolved view with the jobs to score under it."""

    methods: tuple[Method, ...]
    views: Mapping[View, tuple[Job, ...]]

    def cards(self) -> dict[str, dict[str, Any]]:
        """metric -> protocol id -> card."""
        cards: dict[str, dict[str, Any]] = {}
        for view, jobs in self.views.items():
            for job in jobs:
                cards.setdefault(job.metric.label, {})[job.id] = job.card(view)
        return cards

    @property
    def masks(self) -> bool:
        """Whether a job reads masks, which are decoded only then."""
        return any(
            job.metric.masks or ("region" in job.protocol and job.protocol.region == "mask") for job in self._jobs()
        )

    @property
    def pictures(self) -> bool:
        """Whether a job looks at the pictures themselves, in source pixels."""
        return any("crf" in job.protocol and job.protocol.crf > 0 for job in self._jobs())

    def _jobs(self) -> Iterable[Job]:
        return (job for jobs in self.views.values() for job in jobs)


@dataclass(frozen=True)
class Run:
    """Everything that the loop needs, decided. network None: only methods that need no model; label and layer
    then name the model that made the stored heatmaps. randomize, twin: what metrics that need stages compare with."""

    dataset: Dataset
    network: Network | None
    plan: Plan
    store: Store
    preprocessing: Preprocessing
    batch_size: int = 8
    workers: int = 0
    keep: str = "grid"  # grid | all | none
    budget: int | None = None  # bytes that a method's passes may take at once
    on_error: str = "skip"  # skip | raise
    score: bool = True
    indices: Sequence[int] = field(default_factory=tuple)
    rank: int = 0
    label: str = "none"
    layer: str | None = None
    randomize: Settings = field(default_factory=Settings)
    twin: Network | None = None  # trained on permuted labels

    @property
    def model(self) -> str:
        return self.network.name if self.network else self.label

    def layer_of(self, view: View) -> str | None:
        return view.layer or (self.network.layer if self.network else self.layer)


@functools.cache
def view_id(view: View) -> str:
    """8 hex digits that name a resolved view."""
    return digest(view.facts)


def view_name(view: View) -> str:
    """A resolved view in a few words: `warp 224`, `shorter 256, crop 224`."""
    words = [view.resize if view.size is None else f"{view.resize} {view.size}"]
    words += [f"crop {view.crop}"] if view.crop else []
    changed = ("interpolation", "augment", "target", "score", "layer", "precision", "attack")
    return ", ".join(words + [str(getattr(view, n)) for n in changed if getattr(view, n) != getattr(View(), n)])


def make(
    methods: Sequence[Method],
    metrics: Sequence[Metric],
    presets: Sequence[Preset],
    preprocessing: Preprocessing,
    view: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
) -> Plan:
    """Pairs every metric with the presets that define it, or with `default` where none of them does.

    view, protocol: the user's overrides, which apply to every preset and turn its name into a custom id where they
    matter to the metric. Presets whose views come to the same for these weights share one look.
    """
    if not methods or not metrics:
        raise UserError("nothing to do: choose at least one method and one metric (gradcam-bench list methods)")
    views: dict[View, dict[tuple[str, str], Job]] = {}
    for metric in metrics:
        defined_by = [preset for preset in presets if metric.label in preset.metrics]
        for preset in defined_by or [DEFAULT]:
            job, where = _job(metric, preset, preprocessing, dict(view or {}), dict(protocol or {}))
            views.setdefault(where, {})[metric.label, job.id] = job
    return Plan(tuple(methods), {where: tuple(jobs.values()) for where, jobs in views.items()})


def _job(
    metric: Metric, preset: Preset, preprocessing: Preprocessing, view: dict[str, Any], protocol: dict[str, Any]
) -> tuple[Job, View]:
    intended = View().but(**preset.view), Protocol(preset.protocol).only(metric.reads)
    actual = intended[0].but(**view), Protocol({**preset.protocol, **protocol}).only(metric.reads)
    refuse_mixture(actual[1], metric)
    if metric.target not in (None, actual[0].target):
        raise UserError(
            f"{metric.label} is defined for view.target={metric.target}, not {actual[0].target}: "
            "choose other metrics, as metric=[pointing_game], or leave view.target"
        )
    where, name = preprocessing.resolve(actual[0]), protocol_id(preset.name, intended, actual)
    if where.resize in ("warp", "shorter") and (where.crop or 0) > (where.size or 0):
        raise UserError(f"view.crop={where.crop} is larger than view.size={where.size}: the crop would be padded")
    return Job(metric, preset.name, actual[1], name), where


def refuse_mixture(protocol: Protocol, metric: Metric) -> None:
    """Refuses, before any work is done, choices that do not go together."""
    if {"crf", "seed_rule"} <= set(protocol) and protocol.crf > 0 and protocol.seed_rule != "argmax":
        raise UserError(
            f"{metric.label}: protocol.crf={protocol.crf:g} does not go with protocol.seed_rule={protocol.seed_rule}: "
            "a random field leaves no pixel unknown"
        )
    if "threshold" in protocol:
        level(protocol.threshold, protocol.quantize)
    if {"rule", "connectivity"} <= set(protocol) and protocol.rule not in FOUR and protocol.connectivity != 8:
        raise UserError(
            f"{metric.label}: protocol.connectivity={protocol.connectivity} does not go with "
            f"protocol.rule={protocol.rule}, which is 8-connected by definition"
        )
    if {"rule", "quantize"} <= set(protocol) and protocol.rule == "cam_2016_code" and protocol.quantize == "percent":
        raise UserError(f"{metric.label}: protocol.rule=cam_2016_code has thresholds of 255: quantize=jpeg or uint8")
    if "perturb_keep" in protocol and protocol.normalize == "none":
        raise UserError(f"{metric.label}: a mask lies in [0, 1], so protocol.normalize=none does not go with it")
    if {"order", "quantize"} <= set(protocol) and protocol.order == "quantize_first" and protocol.normalize == "none":
        raise UserError(f"{metric.label}: protocol.order=quantize_first needs a protocol.normalize other than none")
