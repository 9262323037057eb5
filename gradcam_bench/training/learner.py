"""A network, a recipe and a Lightning Trainer: one epoch after another, each from random numbers of its own.

Lightning does the loop, devices, mixed precision, several processes and checkpoints. A checkpoint is written after each
epoch and read with `weights_only=True`: it holds tensors and plain values, and nothing in it is run.
"""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gradcam_bench.cases import scores_in
from gradcam_bench.errors import UserError
from gradcam_bench.training.data import Batch, number
from gradcam_bench.training.foreground import placed
from gradcam_bench.training.recipe import Recipe
from gradcam_bench.training.scores import Tally, losses

PRECISIONS = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
VALIDATION = "validation_"
Row = dict[str, Any]


class Learner(pl.LightningModule):
    """new: names of the modules whose weights are new. strict: a broken picture stops the training. rows: one an epoch,
    the first (epoch 0) from before the training."""

    def __init__(self, module: nn.Module, recipe: Recipe, new: tuple[str, ...], seed: int, strict: bool) -> None:
        super().__init__()
        self.module, self.recipe, self.new, self.seed, self.strict = module, recipe, new, seed, strict
        self.rows: list[Row] = []
        self.steps = 1  # of an epoch
        self.tally, self.validation = Tally(recipe.several), Tally(recipe.several, keep=True)

    def configure_optimizers(self) -> Any:
        optimizer = self.recipe.optimizer_for(self.module, self.new)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.recipe.rate(step / self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train(self, mode: bool = True) -> Learner:
        """Frozen parts stay as in evaluation, and so do batch norms where the recipe says so."""
        super().train(mode)
        for part in self.module.modules():
            parameters = list(part.parameters())
            frozen = bool(parameters) and not any(p.requires_grad for p in parameters)
            if frozen or (self.recipe.batch_norm == "frozen" and isinstance(part, _BatchNorm)):
                part.train(False)
        return self

    def on_train_epoch_start(self) -> None:
        self.tally = Tally(self.recipe.several)
        self.train()  # Lightning leaves a network in the mode in which it came
        torch.manual_seed(number(self.seed, "dropout", self.current_epoch, self.global_rank))

    def training_step(self, batch: Batch, _: int) -> Tensor | None:
        return self._step(batch, self.tally)

    def on_validation_epoch_start(self) -> None:
        self.validation = Tally(self.recipe.several, keep=True)

    def validation_step(self, batch: Batch, _: int) -> None:
        self._step(batch, self.validation)

    def _step(self, batch: Batch, tally: Tally) -> Tensor | None:
        """The mean loss of a batch's pictures, tallied; None where all are broken."""
        if batch.broken and self.strict:
            raise UserError(batch.broken[0])
        tally.broken += batch.broken
        found = []
        for images, targets in batch.groups:
            output = self.module(images)
            if self.recipe.places:
                logits, targets = placed(output, targets)
            else:
                logits = scores_in(output).mean(2).float()
            each = losses(logits, targets, self.recipe.several)
            tally.add(logits, targets, each)
            found.append(each)
        return torch.cat(found).mean() if found else None

    def on_train_epoch_end(self) -> None:
        loss = self.together(self.tally)
        if loss.pictures == 0:
            raise UserError(f"no picture could be read: {loss.broken[0] if loss.broken else 'none was asked for'}")
        row = {"epoch": self.current_epoch + 1, "lr": self.optimizers().param_groups[0]["lr"], **loss.row()}
        self.rows.append(row | self.together(self.validation).row(VALIDATION))
        if not torch.isfinite(torch.tensor(row["loss"])):
            raise UserError(f"the loss of epoch {row['epoch']} is {row['loss']}: give a lower lr=")
        self.trainer.should_stop |= self.over()

    def over(self) -> bool:
        """Whether the training pictures are known as well as the recipe asks."""
        known = [row.get("accuracy") for row in self.rows]
        return bool(self.recipe.stop_at is not None and known and (known[-1] or 0) >= self.recipe.stop_at)

    def together(self, tally: Tally) -> Tally:
        """The tally of all processes."""
        world = self.trainer.world_size
        if world == 1:
            return tally
        gathered: list[Any] = [None] * world
        torch.distributed.all_gather_object(gathered, tally)
        return tally.merged(gathered)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rows"] = self.rows

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.rows = list(checkpoint["rows"])


class Keeping(Checkpoint):
    """Writes the checkpoint after each epoch, whole or not at all, then calls `told` with the rows so far."""

    def __init__(self, path: Path, told: Callable[[list[Row]], None]) -> None:
        self.path, self.told = path, told

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(self.path)
            self.told(pl_module.rows)


class Ticking(Callback):
    """Calls `tick` after each training batch."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.tick = tick

    def on_train_batch_end(self, *_: Any) -> None:
        self.tick()


def fit(
    learner: Learner,
    loaders: tuple[Any, Any],
    checkpoint: Path,
    device: torch.device,
    precision: str,
    told: Callable[[list[Row]], None],
    tick: Callable[[], None],
) -> None:
    """Trains to the recipe's end, from the checkpoint where there is one. loaders: of training and of validation."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    one = [device.index or 0] if device.type == "cuda" else 1
    resuming = checkpoint.is_file()
    learner.steps = max(len(loaders[0]), 1)
    with _quiet(), torch.random.fork_rng():
        trainer = pl.Trainer(
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            devices=local if world > 1 else one,
            num_nodes=max(world // local, 1),
            strategy="ddp" if world > 1 else "auto",
            precision=PRECISIONS[precision],
            max_epochs=learner.recipe.epochs,
            callbacks=[Keeping(checkpoint, told), Ticking(tick)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=checkpoint.parent,
        )
        if not resuming:
            _finish(trainer, lambda: trainer.validate(learner, loaders[1], verbose=False))
            learner.rows = [{"epoch": 0, **learner.together(learner.validation).row(VALIDATION)}]
        stored = _stored(checkpoint) if resuming else None
        if resuming:
            learner.rows = stored or []
            loaders[0].sampler.set_epoch(len(learner.rows) - 1)  # workers begin before Lightning says which epoch it is
        if len(learner.rows) <= learner.recipe.epochs and not learner.over():
            where = str(checkpoint) if resuming else None
            _finish(trainer, lambda: trainer.fit(learner, *loaders, ckpt_path=where, weights_only=True))
        else:
            learner.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])


def _stored(checkpoint: Path) -> list[Row]:
    """The rows in a checkpoint; raises UserError naming it where it cannot be read."""
    try:
        rows = torch.load(checkpoint, map_location="cpu", weights_only=True)["rows"]
        return [dict(row) for row in rows]
    except Exception as error:  # on bytes that are no checkpoint the reader raises whatever it stumbles over
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{checkpoint} is damaged ({reason}): repeat the command with --force, to begin anew") from None


def _finish(trainer: pl.Trainer, work: Callable[[], Any]) -> None:
    """Calls work. Lightning ends the program itself when it is interrupted; here the interruption goes on."""
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        work()
    except SystemExit as error:
        raise error.__context__ or error from None
    finally:
        for kind, handler in before.items():
            if signal.getsignal(kind) is not handler:
                signal.signal(kind, handler)
    if trainer.interrupted:
        raise KeyboardInterrupt


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice on workers and loggers, and torch's own slips inside it, are not for whoever trains here."""
    log = logging.getLogger("lightning.pytorch")
    fabric = logging.getLogger("lightning.fabric")
    levels = log.level, fabric.level
    log.setLevel(logging.ERROR)
    fabric.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning(\.|$)")
            yield
    finally:
        log.setLevel(levels[0])
        fabric.setLevel(levels[1])
