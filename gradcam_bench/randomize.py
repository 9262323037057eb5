"""The network with some of its weights drawn anew: model parameter randomisation (Adebayo et al. 2018, section 4.1).

Units of it (`units`) are randomised one after another, or each alone. Every module has a seed of its own, sha256 over
(run's seed, its name, draw), so two layers never share random numbers, and a module gets the same weights in every
stage, order and granularity. The model itself is changed, and put back bit by bit afterwards.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gradcam_bench.calls import Calls
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.frozen import as_found
from gradcam_bench.units import Held, Unit

ORDERS = ("cascade_down", "cascade_up", "independent")
CHOICES = {
    "granularity": ("layer", "block"),
    "target": ("kept", "retaken"),
    "initialization": ("own", "architecture", "he", "std"),
    "batch_norm": ("redraw_affine", "recompute", "keep"),
}


UNKNOWN = (
    "randomize.initialization=architecture needs a network whose constructor is known (torchvision, timm, scenes, "
    "trained): take he or std"
)


@dataclass(frozen=True)
class Settings:
    """The config group `randomize`: what a map of the trained network is compared with.

    orders: `cascade_down` from the output to the input, each stage on top of those before; `cascade_up` from the input;
    `independent`, one unit at a time. granularity: `layer`, or `block` (children of the network, of their stacks the
    blocks). every: only each so many-th stage, and the last. draws: of the random weights; they are averaged within a
    case. target: the class that was asked of the trained network is `kept`, or it is `retaken`, the first answer of the
    randomised one as in the authors' notebooks. initialization: `architecture` (what the network's own constructor
    gives: it is built anew under the module's seed), `own` (the module's `reset_parameters`, PyTorch's defaults, which
    constructors often overwrite; as `std` where it has none), `he` (He et al. 2015: normal, variance 2 / fan-in, biases
    zero), `std` (normal, each tensor's own deviation: for networks whose batch norms are folded).
    batch_norm: `redraw_affine` (scales and shifts, the statistics stay), `recompute` (the statistics behind the first
    random weight too, from the data's first 32 images), `keep`. twin: a model, or a file of weights for this one, that
    was trained on permuted labels: one more stage. samples, noise: of `smooth_mprt`, the number of noisy inputs and the
    deviation of their noise as a share of the image's range. keep: whether the stages' maps are stored too.
    """

    orders: tuple[str, ...] = ("cascade_down",)
    granularity: str = "layer"
    every: int = 1
    draws: int = 1
    target: str = "kept"
    initialization: str = "own"
    batch_norm: str = "redraw_affine"
    twin: str | None = None
    samples: int = 50
    noise: float = 0.1
    keep: bool = False


def settings(config: Mapping[str, Any] | None) -> Settings:
    """The config group as an object; raises UserError for what cannot be meant, by name."""
    given = dict(config or {})
    for name in given:
        if name not in (known := [field.name for field in fields(Settings)]):
            raise unknown("setting of randomize", name, known)
    orders = given.get("orders", Settings.orders)
    if not isinstance(orders, list | tuple) or not orders:
        raise UserError(f"randomize.orders={orders}: give a list of {', '.join(ORDERS)}")
    given["orders"] = tuple(dict.fromkeys(orders))
    chosen: list[tuple[str, object, tuple[str, ...]]] = [("orders", order, ORDERS) for order in given["orders"]]
    chosen += [(name, given.get(name, getattr(Settings, name)), valid) for name, valid in CHOICES.items()]
    for name, value, valid in chosen:
        if value not in valid:
            raise unknown(f"randomize.{name}", value, valid)
    for name in ("every", "draws", "samples"):
        value = given.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"randomize.{name}={value}: a whole number of at least 1 is needed")
    noise = given.get("noise", Settings.noise)
    if not isinstance(noise, int | float) or isinstance(noise, bool) or not 0 < noise < math.inf:
        raise UserError(f"randomize.noise={noise}: a number above 0 is needed, a share of the image's range")
    if not isinstance(given.get("twin"), str | None) or given.get("twin") == "":
        raise UserError(f"randomize.twin={given['twin']}: give a model's name, a file of weights, or null")
    if not isinstance(given.get("keep", False), bool):
        raise UserError(f"randomize.keep={given['keep']}: true or false is needed")
    return Settings(**given)


@dataclass(frozen=True)
class Stage:
    """A state of the network. units: those that are random, in order of execution. changed: the first of them that the
    network did not share with the one that it `follows`, the stage before it or (False) the trained network."""

    name: str
    units: tuple[Unit, ...]
    changed: Unit
    follows: bool = False


def stages(units: Sequence[Unit], order: str, every: int = 1) -> list[Stage]:
    """An order's stages, named `<order>/<number>:<unit>`; the number counts those left out too."""
    ranked = list(units)[::-1] if order == "cascade_down" else list(units)
    digits, last, found = max(2, len(str(len(ranked)))), -1, []
    for n, unit in enumerate(ranked):
        if n % every and n != len(ranked) - 1:
            continue
        name = f"{order}/{n + 1:0{digits}}:{unit.name}"
        if order == "independent":
            found.append(Stage(name, (unit,), unit))
        elif order == "cascade_down":
            found.append(Stage(name, tuple(ranked[: n + 1][::-1]), unit))
        else:
            found.append(Stage(name, tuple(ranked[: n + 1]), ranked[last + 1], follows=last >= 0))
        last = n
    return found


def drawn(
    units: Iterable[Unit],
    seed: int,
    draw: int,
    initialization: str = "own",
    untrained: Callable[[], nn.Module] | None = None,
) -> dict[Tensor, Tensor]:
    """New values for the units' parameters, in their dtype, on their device, laid out as they are.

    untrained: builds the network as its constructor initialises it, which `initialization=architecture` needs."""
    owners: dict[str, list[Held]] = {}
    for unit in units:
        for held in unit.parts:
            owners.setdefault(held.name, []).append(held)
    found: dict[Tensor, Tensor] = {}
    with torch.inference_mode(False), torch.no_grad():
        for name, parts in owners.items():
            state = hashlib.sha256(f"{seed}/{name}/{draw}".encode()).digest()
            number = int.from_bytes(state[:8], "big") >> 1
            fresh = _reset(parts[0].owner, number) if initialization == "own" else {}
            if initialization == "architecture":
                fresh = _constructed(untrained, name, number)
            generator = torch.Generator().manual_seed(number)
            for held in parts:
                old = held.parameter.detach()
                value = fresh.get(held.key)
                value = _normal(held, old.cpu().float(), generator, initialization) if value is None else value
                found[held.parameter] = torch.empty_like(old).copy_(value)
    return found


def _reset(module: nn.Module, number: int) -> dict[str, Tensor]:
    """The parameters that a module's own initialisation gives; empty where it has none."""
    name = next((n for n in ("reset_parameters", "_reset_parameters") if callable(getattr(module, n, None))), None)
    if name is None:
        return {}
    again = copy.deepcopy(module).cpu().float()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(number)
        getattr(again, name)()
    return {key: value.detach() for key, value in again._parameters.items() if value is not None}


def _constructed(untrained: Callable[[], nn.Module] | None, name: str, number: int) -> dict[str, Tensor]:
    """The parameters that a module of this name has in a network built anew."""
    if untrained is None:
        raise UserError(UNKNOWN)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(number)
        again = untrained().get_submodule(name)
    return {key: value.detach() for key, value in again._parameters.items() if value is not None}


def _normal(held: Held, old: Tensor, generator: torch.Generator, initialization: str) -> Tensor:
    """Normal numbers in the place of a tensor: weights of several dimensions around zero, others (scales, shifts)
    around their own mean, so that a scale that was one everywhere still is."""
    noise = torch.randn(old.shape, generator=generator)
    kernel = old.ndim > 1 and held.key.endswith("weight")
    if initialization == "he" and kernel:
        return noise * math.sqrt(2 / old[0].numel())
    if initialization == "he" and held.key.endswith("bias"):
        return torch.zeros_like(old)
    deviation = old.std(correction=0)
    return noise * deviation if old.ndim > 1 else old.mean() + noise * deviation


@contextmanager
def swapped(values: Mapping[Tensor, Tensor]) -> Iterator[None]:
    """The model's tensors (parameters, buffers) hold other values inside, and their own storage again after, also after
    an error."""
    own = [(tensor, tensor.data) for tensor in values]
    try:
        for tensor, value in values.items():
            tensor.data = value
        yield
    finally:
        for tensor, value in own:
            tensor.data = value


def statistics(calls: Calls, since: int, images: Tensor) -> dict[Tensor, Tensor]:
    """Means and variances that the batch norms reached at event `since` or later take over images [N,3,H,W], in the
    order of the pass, as they are at the moment; for `swapped`."""
    reached = [m for m, first in calls.first.items() if isinstance(m, _BatchNorm) and first >= since]
    norms = [norm for norm in reached if norm.track_running_stats]
    buffers = [b for m in norms for b in (m.running_mean, m.running_var, m.num_batches_tracked) if b is not None]
    found = {buffer: buffer.detach().clone() for buffer in buffers}
    momenta = [norm.momentum for norm in norms]
    with as_found(calls.model), torch.inference_mode(False), torch.no_grad(), swapped(found):
        try:
            for norm in norms:
                norm.training, norm.momentum = True, 1.0  # of this one batch alone
            calls.model(images.clone())
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.training, norm.momentum = False, momentum
    return found
