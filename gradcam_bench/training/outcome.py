"""What a training leaves: the log, the curves, the weights and the record of how they came about."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from gradcam_bench import record
from gradcam_bench.files import write_json
from gradcam_bench.models import trained
from gradcam_bench.models.network import fingerprint
from gradcam_bench.report.draw import figure, save
from gradcam_bench.report.plots import Line, Lines
from gradcam_bench.report.style import looks
from gradcam_bench.training.preparation import Training

WEIGHTS, CHECKPOINT, LOG = "weights.safetensors", "resume.ckpt", "log.csv"
PANELS = {"loss": "loss", "accuracy": "accuracy (%)", "mean_average_precision": "mean average precision (%)"}


def spoken(row: Mapping[str, Any], epochs: int) -> str:
    """One epoch's row as a line."""
    parts = [f"epoch {row['epoch']}/{epochs}"]
    for name, value in row.items():
        if name.endswith(("loss", "accuracy", "precision")) and value is not None:
            parts.append(f"{name.replace('_', ' ')} {value:.4f}")
    return ", ".join(parts)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The log: a line an epoch, epoch 0 before the training; the same numbers give the same bytes."""
    columns = list(dict.fromkeys(name for row in reversed(rows) for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def panels(rows: Sequence[Mapping[str, Any]]) -> list[Lines]:
    """Loss, accuracy and, where there is any, mean average precision over epochs, of both sets of pictures."""
    made = []
    for name, label in PANELS.items():
        scale = 1.0 if name == "loss" else 100.0
        lines = []
        for whose, prefix in (("training", ""), ("validation", "validation_")):
            points = [(row["epoch"], scale * row[prefix + name]) for row in rows if row.get(prefix + name) is not None]
            if points:
                x, y = np.array(points, dtype=float).T
                lines.append(Line(whose, x, y))
        if lines:
            top = max(float(line.y.max()) for line in lines)
            made.append(Lines(label.partition(" (")[0], "epoch", label, tuple(lines), top, right=max(len(rows) - 1, 1)))
    return made


def write(
    made: Training, config: Mapping[str, Any], folder: Path, rows: list[dict[str, Any]], started: dt.datetime
) -> None:
    """Weights, curves and run.json; then the checkpoint has served."""
    network = replace(made.network, digest=fingerprint(made.network.name, made.network.module))
    told = {
        "architecture": dict(made.architecture),
        "surgery": made.recipe.surgery,
        "recipe": asdict(made.recipe),
        "dataset": {"name": made.sources[0].name, "fingerprint": made.sources[0].fingerprint()},
        "pictures": {"train": len(made.known[0]), "validation": len(made.known[1])},
        "seed": config["seed"],
        "before": rows[0],
        "after": rows[-1],
    }
    trained.save(folder / WEIGHTS, network, told)
    save(figure(panels(rows), looks(["training", "validation"], [])), folder / "plots", "training")
    ended = dt.datetime.now(dt.UTC)
    environment = record.environment(str(made.device))
    environment["versions"]["lightning"] = metadata.version("lightning")
    left_out = [*made.known[0].left_out, *made.known[1].left_out]
    times = {"started": started.isoformat(timespec="seconds"), "finished": ended.isoformat(timespec="seconds")}
    times |= {"last_call_seconds": (ended - started).total_seconds()}  # type: ignore[dict-item]
    facts = environment | told | times | {"weights": network.digest, "model": network.name, "left_out": left_out}
    write_json(folder / "run.json", facts | {"config_hash": record.config_hash(config)})
    (folder / CHECKPOINT).unlink(missing_ok=True)
