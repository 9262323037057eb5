"""A run as the pipeline takes it: one that is set up, or one that is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradcam_bench import catalogue
from gradcam_bench.models.network import Preprocessing
from gradcam_bench.plan import Run
from gradcam_bench.setup import Setup, make, make_plan
from gradcam_bench.store import Store


def as_run(config: Mapping[str, Any], made: Setup, store: Store, indices: Sequence[int], rank: int = 0) -> Run:
    """A set-up configuration as the pipeline takes it."""
    return Run(
        made.dataset,
        made.network,
        made.plan,
        store,
        made.preprocessing,
        config["batch_size"],
        config["workers"],
        config["store"],
        None if config["max_memory"] is None else int(config["max_memory"] * 2**30),
        config["on_error"],
        "score" in config["stages"],
        tuple(indices),
        rank,
        randomize=made.randomize,
        twin=made.twin,
    )


def finished(home: Path, config: Mapping[str, Any], facts: Mapping[str, Any]) -> Run:
    """A run that is over, as the pipeline takes it, but with no network: what is needed of that is in run.json."""
    recipe: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["preprocessing"].items()}
    preprocessing = Preprocessing(**recipe)
    plan = make_plan(config, preprocessing, metrics_of(config))
    plan = replace(plan, methods=tuple(m for m in plan.methods if m.label not in facts["refused"]))
    dataset = make(config["dataset"], "dataset")
    store = Store(home)
    return Run(
        dataset, None, plan, store, preprocessing, keep=config["store"], label=facts["model"], layer=facts["layer"]
    )


def metrics_of(config: Mapping[str, Any]) -> list[catalogue.Metric]:
    """The metrics that a configuration names."""
    return [catalogue.metric(label, spec) for label, spec in config["metric"].items()]
