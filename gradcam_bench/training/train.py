"""The verb `train`: a configuration, to a folder with weights, log, curves and the record of both."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from gradcam_bench import record
from gradcam_bench.errors import UserError
from gradcam_bench.files import write_text
from gradcam_bench.terminal import progress, say
from gradcam_bench.training.data import Order, Pictures, loader
from gradcam_bench.training.foreground import Regions
from gradcam_bench.training.heats import draw, heats
from gradcam_bench.training.outcome import CHECKPOINT, LOG, WEIGHTS, as_csv, spoken, write
from gradcam_bench.training.preparation import Training, fold, inputs, setup

INSTALL = "train needs the package lightning: pip install 'gradcam-bench[train]'"
CONFIG: dict[str, Any] = {"dataset": dict, "model": dict, "recipe": dict, "precision": str, "seed": int}


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
            return None if rank else folder
        if not rank:
            _announce(made, folder)
        before = [] if rank else heats(made.network, made.sources[1], made.known[1])
        rows = _fit(made, config, folder, (rank, world))
        if rank:
            return None
        made.network.module.to("cpu").eval()
        after = heats(made.network, made.sources[1], made.known[1])
        draw(before, after, made.network.classes or (), folder / "plots")
        write(made, config, folder, rows, started)
    for moment, row in (("before", rows[0]), ("after", rows[-1])):
        say(f"{moment}: {spoken(row, made.recipe.epochs)}")
    print(f"model=trained model.weights={folder / WEIGHTS}")
    return folder


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
    kind = Regions if made.recipe.places else Pictures
    train, validate = (
        loader(
            kind(source, known, made.network.preprocessing, config["seed"], made.augment if shuffled else None),
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
