"""A recipe as conf/recipe/*.yaml and the command line give it, checked before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from gradcam_bench.building import check_parameters
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.models.surgery import SURGERIES

FOLLOWED = ("none", "flip")  # augmentations that a region can follow
NEW = "new"  # in `lr_factors`: the layers that the surgery made
CHOICES: dict[str, tuple[str, ...]] = {
    "surgery": tuple(SURGERIES),
    "loss": ("cross_entropy", "bce"),
    "labels": ("as_given", "permuted", "foreground"),
    "augment": ("none", "flip", "crop_flip", "warp_crop_flip", "long_side", "shapes"),
    "optimizer": ("sgd", "adamw"),
    "batch_norm": ("train", "frozen"),
    "schedule": ("constant", "step", "poly", "cosine", "one_cycle"),
}
POWER = 0.9  # of `poly`: IRN's, DeepLab's
WARM = 0.1  # share of the steps in which `one_cycle` rises


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: every key of `recipe` in conf/train.yaml, where each is described."""

    surgery: str
    loss: str
    labels: str
    augment: str
    optimizer: str
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    lr_factors: Mapping[str, float]
    batch_norm: str
    schedule: str
    decay_epochs: int
    epochs: int
    batch_size: int
    preprocessing: Mapping[str, Any] | None = None
    stop_at: float | None = None
    about: str | None = None
    source: str | None = None

    @property
    def several(self) -> bool:
        """Whether a picture may have several classes."""
        return self.loss == "bce"

    @property
    def places(self) -> bool:
        """Whether it is places of a picture that are told apart, foreground from background."""
        return self.labels == "foreground"

    @property
    def activation(self) -> str:
        """What turns logits into the probabilities that were trained."""
        return "sigmoid" if self.several else "softmax"

    def rate(self, done: float) -> float:
        """The learning rate as a share of `lr` when `done` epochs, a fraction, are over."""
        share = min(done / self.epochs, 1.0)
        if self.schedule == "step":
            return 0.1 ** int(done // self.decay_epochs)
        if self.schedule == "poly":
            return (1 - share) ** POWER
        if self.schedule == "one_cycle" and share < WARM:
            return 0.04 + 0.96 * share / WARM
        if self.schedule in ("cosine", "one_cycle"):
            begun = WARM if self.schedule == "one_cycle" else 0.0
            return (1 + math.cos(math.pi * (share - begun) / (1 - begun))) / 2
        return 1.0

    def groups(self, module: nn.Module, new: tuple[str, ...]) -> list[dict[str, Any]]:
        """The parameters by learning rate, frozen ones in none. new: the names of the surgery's modules.

        Raises UserError for a name in `lr_factors` with which no parameter begins, and where everything is frozen.
        """
        found: dict[float, list[nn.Parameter]] = {}
        used: set[str] = set()
        for name, parameter in module.named_parameters():
            which = self._key(name, new)
            used |= {which} if which is not None else set()
            factor = 1.0 if which is None else float(self.lr_factors[which])
            parameter.requires_grad_(factor > 0)
            if factor > 0:
                found.setdefault(factor, []).append(parameter)
        unused = sorted(set(self.lr_factors) - used - {NEW})
        if unused:
            children = [name for name, part in module.named_children() if any(True for _ in part.parameters())]
            raise unknown("module in recipe.lr_factors", unused[0], [*children, NEW])
        if not found:
            raise UserError("recipe.lr_factors freezes every layer: nothing is left to train")
        return [{"params": found[factor], "lr": self.lr * factor} for factor in sorted(found)]

    def _key(self, name: str, new: tuple[str, ...]) -> str | None:
        """The key of `lr_factors` that a parameter goes by: `new` first, then the longest name it begins with."""
        if NEW in self.lr_factors and _below(name, new):
            return NEW
        fitting = [key for key in self.lr_factors if key != NEW and _below(name, (key,))]
        return max(fitting, key=len, default=None)

    def optimizer_for(self, module: nn.Module, new: tuple[str, ...]) -> torch.optim.Optimizer:
        """The optimizer of a network's parameters, at the rates that training begins with."""
        groups = self.groups(module, new)
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(groups, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov)


def _below(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def recipe(spec: Mapping[str, Any]) -> Recipe:
    """The Recipe in a resolved configuration; raises UserError naming what is wrong with it."""
    known = {one.name for one in fields(Recipe)}
    for name in spec:
        if name not in known:
            raise unknown("setting of recipe", name, known)
    check_parameters("recipe", Recipe, spec, ())
    for name, valid in CHOICES.items():
        if spec[name] not in valid:
            raise unknown(f"recipe.{name}", spec[name], valid)
    if (spec["labels"] == "foreground") != (spec["surgery"] == "foreground"):
        raise UserError("recipe.labels=foreground and recipe.surgery=foreground go together: one needs the other")
    if spec["labels"] == "foreground" and (spec["loss"] != "bce" or spec["augment"] not in FOLLOWED):
        raise UserError(f"recipe.labels=foreground takes recipe.loss=bce and recipe.augment {' or '.join(FOLLOWED)}")
    factors = spec["lr_factors"] or {}
    if not isinstance(factors, Mapping) or not all(_number(value) and value >= 0 for value in factors.values()):
        raise UserError(f"recipe.lr_factors={factors}: numbers from 0 by layer are needed, as {{new: 10, layer1: 0}}")
    if not isinstance(spec.get("preprocessing") or {}, Mapping):
        raise UserError(f"recipe.preprocessing={spec['preprocessing']}: give resize, size, crop, ... one by one")
    for name in ("epochs", "batch_size", "decay_epochs"):
        if not 1 <= spec[name] < 2**20:
            raise UserError(f"{name}={spec[name]}: a whole number of at least 1 is needed")
    if not spec["lr"] > 0:
        raise UserError(f"lr={spec['lr']}: a number above 0 is needed")
    for name, high in (("momentum", 1.0), ("weight_decay", math.inf)):
        if not 0 <= spec[name] < high:
            raise UserError(f"recipe.{name}={spec[name]}: a number from 0 is needed, momentum below 1")
    if spec["nesterov"] and not spec["momentum"]:
        raise UserError("recipe.nesterov=true needs a recipe.momentum above 0")
    return Recipe(**{**spec, "lr_factors": dict(factors)})


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
