"""Whether a run is what the paper did: the same network, weights, data and protocol, or why it is not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torchvision

from gradcam_bench.errors import UserError
from gradcam_bench.experiments import PaperRun, Quantity
from gradcam_bench.record import OPERATIONAL, flatten

# What does not make a run another one: where its data lie, how many of them, with what it is computed.
INDIFFERENT = (*OPERATIONAL, "device", "store", "limit", "stages", "experiment", "multiverse")
PLACES = ("root", "metadata", "annotations", "subset")
WHAT = {"model": "another network or other weights", "dataset": "other data"}
RELATIVE = ("win",)  # metrics whose number depends on the run's other methods


def departures(own: Mapping[str, Any], actual: Mapping[str, Any], one: Quantity) -> dict[str, Any]:
    """The settings that the user made otherwise than the experiment and that this quantity depends on. own, actual:
    resolved configurations without and with the user's words."""
    before, now = flatten(_relevant(own, one)), flatten(_relevant(actual, one))
    changed = {key: now.get(key) for key in sorted({*before, *now}) if before.get(key) != now.get(key)}
    changed = {key: value for key, value in changed.items() if not _place(key)}
    name, given = str(now.get("model.name")), changed.get("model.weights")
    if set(changed) == {"model.weights"} and _is_published(name, str(before["model.weights"]), str(given)):
        return {}
    return changed


def _relevant(config: Mapping[str, Any], one: Quantity) -> dict[str, Any]:
    """A configuration without what the quantity does not depend on."""
    kept = {key: value for key, value in config.items() if key not in INDIFFERENT}
    if one.cell.metric not in RELATIVE:
        labels = {one.cell.method, getattr(one.bound, "method", one.cell.method)}
        kept["method"] = {label: spec for label, spec in (config["method"] or {}).items() if label in labels}
    metrics = {one.cell.metric, getattr(one.bound, "metric", one.cell.metric)}
    kept["metric"] = {label: spec for label, spec in (config["metric"] or {}).items() if label in metrics}
    presets = config["preset"] or {}
    kept["preset"] = {label: spec for label, spec in presets.items() if label == one.cell.preset}
    return kept


def _place(key: str) -> bool:
    return key.startswith("dataset.") and key.rpartition(".")[2] in PLACES


def reason(
    run: PaperRun, one: Quantity, changed: Mapping[str, Any], facts: Mapping[str, Any], vouched: bool = False
) -> str:
    """Why a run's number cannot be held against the paper's, or nothing. changed: as `departures` gives it. facts: the
    run's run.json. vouched: the user says that the weights in the file given are the paper's."""
    own_file = "model.weights" in changed or any("weights}" in word for word in run.set)
    rest = {key: value for key, value in changed.items() if not (vouched and key == "model.weights")}
    if rest:
        return _told(rest)
    if run.differs or one.differs:
        return run.differs or one.differs
    if run.weights and not (vouched and own_file):
        return f"other weights than the paper's ({run.weights})"
    if facts["skipped"]:
        return f"{len(facts['skipped'])} images could not be used"
    if run.available is not None and facts["available"] != run.available:
        return f"a part of the data, from {facts['available']} of {run.available} images"
    if run.images is not None and facts["images"] != run.images:
        return f"a part of the data, {facts['images']} of {run.images} images"
    return ""


def _told(changed: Mapping[str, Any]) -> str:
    """What is not the paper's, network first, each kind with the setting that tells most."""
    kinds: dict[str, list[str]] = {"model": [], "dataset": [], "": []}
    for key in sorted(changed, key=lambda key: (not key.endswith(".name"), key)):
        kinds.get(key.partition(".")[0], kinds[""]).append(key)
    return ", ".join(
        f"{WHAT.get(kind, 'another protocol')} ({keys[0]}={_short(changed[keys[0]])})"
        for kind, keys in kinds.items()
        if keys
    )


def _short(value: Any) -> str:
    text = str(value)
    return Path(text).name if "/" in text else text[:60]


def _is_published(name: str, weights: str, given: str) -> bool:
    """Whether a file holds the published weights of that name: torchvision's files end in the first digits of their
    sha256."""
    digits = published_digits(name, weights)
    path = Path(given).expanduser()
    return bool(digits) and path.is_file() and _sha256(path).startswith(digits)


def published_digits(name: str, weights: str) -> str:
    """The first digits of the sha256 of torchvision's file of those weights; empty where there is none."""
    url = published_url(name, weights)
    found = re.search(r"-([0-9a-f]{8,})\.pth$", url)
    return found[1] if found else ""


def published_url(name: str, weights: str) -> str:
    """Where torchvision's weights of that name are; empty where it has none such."""
    try:
        members = torchvision.models.get_model_weights(name)
    except ValueError:
        return ""
    known = members.DEFAULT if weights == "DEFAULT" else members.__members__.get(weights)
    return str(known.url) if known is not None else ""


@cache
def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"model.weights: {path} cannot be read ({error.strerror})") from None
