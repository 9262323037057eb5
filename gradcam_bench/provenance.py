"""run.json: what a run's numbers depend on beside their protocols, and what went wrong on the way."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from gradcam_bench import record
from gradcam_bench.analysis.accuracy import classifiers
from gradcam_bench.plan import view_id, view_name
from gradcam_bench.setup import Setup
from gradcam_bench.store import Store

RESCORED_PART = "score-"  # sorts behind the parts of a run, whose names begin with the hex digits of a view


def inputs(made: Setup) -> dict[str, Any]:
    """What numbers depend on beside the configuration's words: data, weights, preprocessing, the methods' versions."""
    network = made.network
    return {
        "dataset": made.dataset.fingerprint(),
        "weights": network.digest if network else None,
        "layer": network.layer if network else None,
        "preprocessing": asdict(made.preprocessing),
        "methods": {method.label: method.key() for method in made.plan.methods},
        **({"twin": made.twin.digest} if made.twin else {}),
    }


def facts(
    made: Setup, store: Store, config: Mapping[str, Any], cases: pd.DataFrame, started: dt.datetime
) -> dict[str, Any]:
    """run.json: what the numbers depend on beside their protocols, and what went wrong on the way."""
    parts = list(store.finished().values())
    degenerate: dict[str, dict[str, int]] = {}
    for part in parts:
        for label, reasons in part.get("degenerate", {}).items():
            for reason, count in reasons.items():
                counts = degenerate.setdefault(label, {})
                counts[reason] = counts.get(reason, 0) + count
    skipped = {entry["image_id"]: entry for part in parts for entry in part.get("skipped", [])}
    ended = dt.datetime.now(dt.UTC)
    return record.environment(made.device) | {
        "model": made.network.name if made.network else "none",
        "weights": made.network.digest if made.network else None,
        "layer": made.network.layer if made.network else None,
        "activation": made.network.activation if made.network else None,
        "preprocessing": asdict(made.preprocessing),
        "dataset": made.dataset.name,
        "dataset_fingerprint": made.dataset.fingerprint(),
        "images": len(made.indices),
        "available": len(made.dataset.ids),
        "cases": int(cases["case_id"].nunique()),
        "seed": config["seed"],
        "config_hash": record.config_hash(config),
        "protocols": protocols(store, made.plan.cards()),
        "refused": dict(made.refused),
        "degenerate": degenerate,
        "costs": costs(parts),
        "skipped": [skipped[image_id] for image_id in sorted(skipped)],
        "problems": [*made.notes, *sorted({problem for part in parts for problem in part.get("problems", [])})],
        "views": {view_id(view): view_name(view) for view in made.plan.views},
        "accuracy": classifiers(cases),
        "timings": {
            "last_call_seconds": (ended - started).total_seconds(),
            "explain_seconds": float(cases["seconds"].sum()),
        },
        "started": started.isoformat(timespec="seconds"),
        "finished": ended.isoformat(timespec="seconds"),
    }


def costs(parts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """method -> view -> how many heatmaps, and what they cost together (`ledger.Cost`), over all parts of a run."""
    total: dict[str, dict[str, dict[str, float]]] = {}
    for part in parts:
        for label, views in part.get("costs", {}).items():
            for view, cost in views.items():
                sums = total.setdefault(label, {}).setdefault(view, dict.fromkeys(cost, 0))
                for name, value in cost.items():
                    sums[name] += value
    return total


def protocols(store: Store, cards: Mapping[str, Any]) -> dict[str, Any]:
    """metric -> protocol id -> card, of a run's plan and of every later scoring."""
    merged = {label: dict(ids) for label, ids in cards.items()}
    for part in store.finished(RESCORED_PART).values():
        for label, ids in part["protocols"].items():
            merged.setdefault(label, {}).update(ids)
    return merged
