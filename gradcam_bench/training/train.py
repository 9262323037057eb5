"""The verb `train`: a configuration, to a folder with weights, log, curves and the record of both."""

from __future__ import annotations

import csv
import datetime as dt
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradcam_bench import record
from gradcam_bench.cases import scores_in
from gradcam_bench.catalogue import check_parameters
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.files import write_json, write_text
from gradcam_bench.models import trained
from gradcam_bench.models.network import Network, Preprocessing, fingerprint
from gradcam_bench.models.surgery import operate
from gradcam_bench.report.draw import figure, save
from gradcam_bench.report.plots import Line, Lines
from gradcam_bench.report.style import looks
from gradcam_bench.samples import Dataset
from gradcam_bench.setup import make, pick_device
from gradcam_bench.terminal import progress, say
from gradcam_bench.training.augmentation import augmentation
from gradcam_bench.training.data import Labels, Order, Pictures, held_out, labels, loader, number
from gradcam_bench.training.heats import draw, heats
from gradcam_bench.training.recipe import Recipe, recipe

INSTALL = "train needs the package lightning: pip install 'gradcam-bench[train]'"
WEIGHTS, CHECKPOINT, LOG = "weights.safetensors", "resume.ckpt", "log.csv"
PRECISIONS = ("float32", "bf16", "fp16")
CONFIG: dict[str, Any] = {"dataset": dict, "model": dict, "recipe": dict, "precision": str, "seed": int}
FOLDED = ("epochs", "lr", "batch_size")  # said beside the recipe for short, and part of it
PANELS = {"loss": "loss", "accuracy": "accuracy (%)", "mean_average_precision": "mean average precision (%)"}


@dataclass(frozen=True, eq=False)
class Training:
    """What a training is made of. new: names of the modules whose weights are random."""

    recipe: Recipe
    network: Network
    new: tuple[str, ...]
    architecture: Mapping[str, Any]
    sources: tuple[Dataset, Dataset]
    known: tuple[Labels, Labels]
    device: torch.device


def train(config: Mapping[str, Any], force: bool = False) -> Path | None:
    """Trains, or goes on with what was begun; a finished training is only said again. Under torchrun each rank takes
    its share of the pictures. Returns the folder, None on another rank than 0."""
    try:
        import lightning.pytorch  # noqa: F401
    except ImportError:
        raise UserError(INSTALL) from None
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if force and world > 1:
        raise UserError("--force does not go with torchrun, whose processes begin at once: remove the folder yourself")
    config = fold(config)
    made = setup(config)
    started = dt.datetime.now(dt.UTC)
    folder = record.open_folder(config, "train", force, needed=CONFIG)
    with ExitStack() as held:
        if not rank:
            held.enter_context(record.alone(folder))
            record.same_inputs(folder, inputs(made))
            if (folder / WEIGHTS).is_file() and (folder / "run.json").is_file():
                say(f"finished before: {folder / WEIGHTS}")
                return folder
            _announce(made, folder)
        before = [] if rank else heats(made.network, made.sources[1], made.known[1])
        rows = _fit(made, config, folder, (rank, world))
        if rank:
            return None
        made.network.module.to("cpu").eval()
        after = heats(made.network, made.sources[1], made.known[1])
        draw(before, after, made.network.classes or (), folder / "plots")
        _write(made, config, folder, rows, started)
    return folder


def fold(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with what was said beside the recipe in it, and without what a training has no use for."""
    inner = {**config["recipe"], **{key: config[key] for key in FOLDED}}
    unused = (*FOLDED, "method", "metric", "preset", "experiment")
    return {key: value for key, value in config.items() if key not in unused} | {"recipe": inner}


def setup(config: Mapping[str, Any]) -> Training:
    """Builds everything, and refuses what cannot work before any work is done."""
    check_settings(config)
    chosen = recipe(config["recipe"])
    device = pick_device(config["device"])
    dataset: Dataset = make(config["dataset"], "dataset")
    seed, limit = config["seed"], config["limit"]
    known = labels(dataset, chosen.several, limit, seed)
    if config.get("validation"):
        other: Dataset = make(config["validation"], "validation")
        if tuple(other.classes) != tuple(dataset.classes):
            raise UserError(f"validation {other.name} has other classes than dataset {dataset.name}")
        parts = known, labels(other, chosen.several, limit, seed)
    else:
        other, parts = dataset, held_out(known, dataset.ids, float(config["held_out"]), seed)
    if chosen.labels == "permuted":
        parts = parts[0].permuted(seed), parts[1]
    network, new, built = operated(config, chosen, dataset.classes)
    chosen.groups(network.module, new)
    return Training(chosen, network, new, built, (dataset, other), parts, device)


def operated(
    config: Mapping[str, Any], chosen: Recipe, classes: Sequence[str]
) -> tuple[Network, tuple[str, ...], dict[str, Any]]:
    """The network after the recipe's surgery, the names of its new modules, and its architecture by name."""
    spec = config["model"]
    if spec.get("_target_") is None:
        raise UserError("train needs a model: model=resnet50, or another of `gradcam-bench list models`")
    network: Network = make(spec, "model")
    built = trained.architecture(spec, network.module)
    layer = spec.get("layer")
    if str(spec["_target_"]).endswith(".trained_network"):
        raise UserError("model=trained is made over already: train from the model that it came from")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(number(config["seed"], "surgery"))
        changed = operate(chosen.surgery, network.module, str(spec.get("name", network.name)), len(classes))
    check_parameters("recipe.preprocessing", Preprocessing, chosen.preprocessing or {}, ())
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in (chosen.preprocessing or {}).items()}
    made = replace(
        network,
        module=changed.module,
        preprocessing=replace(network.preprocessing, **given),
        layer=layer or changed.layer or network.layer,
        activation=chosen.activation,
        classes=tuple(classes),
    )
    _check_outputs(made)
    return made, changed.new, built


def _check_outputs(network: Network) -> None:
    """Refuses a network that does not give one score a class, or has no such layer."""
    recipe, classes = network.preprocessing, len(network.classes or ())
    side = recipe.crop or recipe.size or 224
    try:
        network.module.get_submodule(network.layer)
    except AttributeError:
        raise UserError(f"model.layer={network.layer}: the network that is trained has no such module") from None
    with torch.inference_mode():
        try:
            found = scores_in(network.module.eval()(torch.zeros(1, 3, side, side)))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UserError(f"model {network.name} fails on {side}x{side} pixels: {error}") from None
    if found.shape[:2] != (1, classes):
        outputs = found.shape[1] if found.numel() else "no"
        raise UserError(
            f"model {network.name} has {outputs} outputs, the data set {classes} classes: recipe.surgery=head gives it "
            "a new head"
        )


def check_settings(config: Mapping[str, Any]) -> None:
    """Refuses settings that no training could use, each by name."""
    for key, low, high in (("workers", 0, 2**10), ("seed", 0, 2**63)):
        value = config[key]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UserError(f"{key}={value}: a whole number from {low} to {high} is needed")
    limit, share = config["limit"], config["held_out"]
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 2):
        raise UserError(f"limit={limit}: a whole number of at least 2 is needed")
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1:
        raise UserError(f"held_out={share}: a share between 0 and 1 is needed")
    for key, valid in (("precision", PRECISIONS), ("on_error", ("skip", "raise"))):
        if config[key] not in valid:
            raise unknown(key, config[key], valid)
    if not isinstance(config["device"], str) or not isinstance(config["results"], str):
        raise UserError("device and results: text is needed")


def inputs(made: Training) -> dict[str, Any]:
    """What the weights depend on beside the configuration's words."""
    return {
        "dataset": [one.fingerprint() for one in made.sources],
        "weights": fingerprint(made.network.name, made.network.module),
        "preprocessing": asdict(made.network.preprocessing),
    }


def _announce(made: Training, folder: Path) -> None:
    train, validate = made.known
    network = made.network
    say(f"{len(train)} pictures to train on, {len(validate)} to validate, {len(network.classes or ())} classes")
    say(f"{network.name} (surgery {made.recipe.surgery}, layer {network.layer}) on {made.device} -> {folder}")
    for sentence in [*train.left_out, *validate.left_out][:3]:
        say(f"left out: {sentence}")
    more = len(train.left_out) + len(validate.left_out) - 3
    if more > 0:
        say(f"... and {more} more")


def _fit(made: Training, config: Mapping[str, Any], folder: Path, place: tuple[int, int]) -> list[dict[str, Any]]:
    """Trains in place; returns a row an epoch."""
    from gradcam_bench.training.learner import Learner, fit

    learner = Learner(made.network.module, made.recipe, made.new, config["seed"], config["on_error"] == "raise")
    augment = augmentation(made.recipe.augment, made.network.preprocessing)
    train, validate = (
        loader(
            Pictures(source, known, made.network.preprocessing, config["seed"], augment if shuffled else None),
            Order(len(known), config["seed"], shuffled, *place),
            made.recipe.batch_size,
            config["workers"],
        )
        for source, known, shuffled in zip(made.sources, made.known, (True, False), strict=True)
    )
    with progress() as bar:
        task = bar.add_task("train", total=made.recipe.epochs * len(train))

        def told(rows: list[dict[str, Any]]) -> None:
            write_text(folder / LOG, as_csv(rows))
            bar.update(task, completed=(len(rows) - 1) * len(train))
            say(spoken(rows[-1], made.recipe.epochs))

        tick = partial(bar.advance, task)
        fit(learner, (train, validate), folder / CHECKPOINT, made.device, config["precision"], told, tick)
    for sentence in dict.fromkeys(learner.validation.broken + learner.tally.broken):
        say(f"left out: {sentence}")
    return learner.rows


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


def _write(
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
    left_out = [*made.known[0].left_out, *made.known[1].left_out]
    times = {"started": started.isoformat(timespec="seconds"), "finished": ended.isoformat(timespec="seconds")}
    times |= {"last_call_seconds": (ended - started).total_seconds()}  # type: ignore[dict-item]
    facts = environment | told | times | {"weights": network.digest, "model": network.name, "left_out": left_out}
    write_json(folder / "run.json", facts | {"config_hash": record.config_hash(config)})
    (folder / CHECKPOINT).unlink(missing_ok=True)
    for moment, row in (("before", rows[0]), ("after", rows[-1])):
        say(f"{moment}: {spoken(row, made.recipe.epochs)}")
    print(f"model=trained model.weights={folder / WEIGHTS}")
