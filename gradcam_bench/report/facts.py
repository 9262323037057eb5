"""What the page says besides scores: what was run, how, what the classifier got right, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from gradcam_bench.axes import AXES
from gradcam_bench.choices import View
from gradcam_bench.report.inputs import Inputs

DOWNLOADS = (
    *("summary.csv", "summary_by_size.csv", "summary_by_class.csv", "summary_by_kind.csv"),
    *("thresholds.csv", "ties.csv", "confusion.csv", "costs.csv"),
    *("rows.parquet", "cases.parquet", "config.yaml", "run.json"),
)
SHOWN_ELSEWHERE = ("degenerate", "skipped", "refused", "problems", "protocols", "accuracy", "views", "costs")


@dataclass(frozen=True)
class Choice:
    """One axis of a protocol or one choice of a view, as printed. changed: whether it differs from the default."""

    name: str
    value: str
    default: str
    meaning: str
    changed: bool


@dataclass(frozen=True)
class Card:
    """All that a protocol id stands for: the metrics read under it, the preset it comes from, its choices."""

    protocol: str
    preset: str
    about: str
    source: str
    metrics: tuple[str, ...]
    axes: tuple[Choice, ...]
    view: tuple[Choice, ...]

    @property
    def changed(self) -> list[Choice]:
        return [choice for choice in self.view + self.axes if choice.changed]


def tiles(inputs: Inputs) -> list[tuple[str, str]]:
    """(number, what it counts) for the head of the page."""
    cases = inputs.cases
    return [
        (f"{cases['image_id'].nunique():,}", "images"),
        (f"{cases['case_id'].nunique():,}", "cases (image, class)"),
        (f"{cases['class_name'].nunique():,}", "classes"),
        (f"{sum(name not in inputs.controls for name in inputs.methods):,}", "methods"),
        (f"{inputs.summary[['metric', 'protocol']].drop_duplicates().shape[0]:,}", "metrics × protocols"),
    ]


def byline(inputs: Inputs) -> list[str]:
    """What was asked of what, where and when, in a few words."""
    named = [", ".join(dict.fromkeys(inputs.summary[name].astype(str))) for name in ("dataset", "model")]
    return [part for part in (*named, str(inputs.run.get("device") or ""), _minute(inputs.run.get("finished"))) if part]


def _minute(moment: Any) -> str:
    """A moment in ISO 8601 to the minute, `2026-08-01 10:00 UTC`; what is none as it is."""
    try:
        return datetime.fromisoformat(str(moment)).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return str(moment or "")


def seen(run: Mapping[str, Any], classifiers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Classifiers' accuracies with a name for each that tells it from the others, empty where there is but one."""
    entries = [dict(entry) for entry in classifiers]
    for entry in entries:
        parts = [entry[name] for name in ("model", "dataset") if len({other[name] for other in entries}) > 1]
        views = run.get("views") or {}
        if len({other["view"] for other in entries}) > 1:
            parts.append(views.get(entry["view"], entry["view"]))
        entry["name"] = ", ".join(map(str, parts))
    return entries


def cards(protocols: Mapping[str, Any], presets: Mapping[str, Any]) -> list[Card]:
    """One card for each protocol id, with the axes of all the metrics read under it."""
    merged: dict[str, dict[str, Any]] = {}
    for metric, by_id in protocols.items():
        for name, entry in by_id.items():
            card = merged.setdefault(name, {"metrics": [], "axes": {}, "view": {}, "preset": ""})
            card["metrics"].append(metric)
            card["preset"] = str(entry.get("preset") or "")
            card["axes"].update(entry.get("axes") or {})
            card["view"].update(entry.get("view") or {})
    return [_card(name, card, presets) for name, card in merged.items()]


def _card(name: str, card: Mapping[str, Any], presets: Mapping[str, Any]) -> Card:
    told = presets.get(card["preset"], "")
    about, source = (told.get("about", ""), told.get("source", "")) if isinstance(told, Mapping) else (told, "")
    axes = [
        _choice(axis, card["axes"][axis], AXES[axis].default, AXES[axis].meaning)
        if axis in AXES
        else _choice(axis, card["axes"][axis], None, "")
        for axis in sorted(card["axes"])
    ]
    usual = asdict(View())
    view = [_choice(f"view.{key}", value, usual.get(key), "") for key, value in sorted(card["view"].items())]
    return Card(name, card["preset"], str(about), str(source), tuple(card["metrics"]), tuple(axes), tuple(view))


def _choice(name: str, value: Any, default: Any, meaning: str) -> Choice:
    printed, usual = plain(value), plain(default)
    return Choice(name, printed, usual, meaning, printed != usual and name != "view.seed")


def plain(value: Any) -> str:
    """A value of a configuration as one prints it: lists joined, whole floats without a point, None as `none`."""
    if isinstance(value, list | tuple):
        return ", ".join(plain(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return "none" if value is None else str(value)


COST = ("forwards", "head_forwards", "backwards", "seconds")


def costs(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What one heatmap of each method took under each view: passes and seconds, each method's as if it alone had looked
    (see `ledger`)."""
    views = run.get("views") or {}
    return [
        {"method": method, "view": view, "view_name": views.get(view, view), "heatmaps": cost["cases"]}
        | {name: cost[name] / max(cost["cases"], 1) for name in COST}
        for method, by_view in run.get("costs", {}).items()
        for view, cost in by_view.items()
    ]


def degenerate(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str, int]]:
    """(method, reason, maps) for every map that says nothing."""
    return [
        (method, reason, int(count)) for method, by in counts.items() for reason, count in by.items() if int(count) > 0
    ]


def unscored(rows: pd.DataFrame) -> list[tuple[str, str, str, str, int]]:
    """(method, metric, protocol, reason, cases) for every case that a metric could not score."""
    failed = rows[rows["problem"].notna()]
    names = ["method", "metric", "protocol", "problem"]
    failed = failed.assign(**{name: failed[name].astype(str) for name in names})
    counts = failed.groupby(names, sort=False)["case_id"].nunique()
    lines = counts.rename("cases").reset_index().to_dict("records")
    return [(r["method"], r["metric"], r["protocol"], r["problem"], int(r["cases"])) for r in lines]


def provenance(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """run.json, flat, without what the page shows elsewhere: (dotted name, value)."""
    return _flat({key: value for key, value in run.items() if key not in SHOWN_ELSEWHERE})


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            lines += _flat(value, f"{name}.")
        else:
            lines.append((name, plain(value)))
    return lines
