"""From a resolved configuration to the objects that a training is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from gradcam_bench.building import check_parameters
from gradcam_bench.cases import scores_in
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.models import trained
from gradcam_bench.models.network import Network, Preprocessing, fingerprint
from gradcam_bench.models.surgery import operate
from gradcam_bench.samples import Dataset
from gradcam_bench.setup import make, pick_device
from gradcam_bench.training.augmentation import Augmentation, augmentation
from gradcam_bench.training.data import Labels, held_out, labels, number
from gradcam_bench.training.recipe import Recipe, recipe

PRECISIONS = ("float32", "bf16", "fp16")
FOLDED = ("epochs", "lr", "batch_size")  # said beside the recipe for short, and part of it


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
    augment: Augmentation


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
    if config["precision"] == "fp16" and device.type != "cuda":
        raise UserError(f"precision=fp16 needs a CUDA device, and this is {device}: take bf16 or float32")
    dataset: Dataset = make(config["dataset"], "dataset")
    seed, limit, strict = config["seed"], config["limit"], config["on_error"] == "raise"
    known = labels(dataset, chosen.several, limit, seed, strict)
    if config.get("validation"):
        other: Dataset = make(config["validation"], "validation")
        if tuple(other.classes) != tuple(dataset.classes):
            raise UserError(f"validation {other.name} has other classes than dataset {dataset.name}")
        parts = known, labels(other, chosen.several, limit, seed, strict)
    else:
        other, parts = dataset, held_out(known, dataset.ids, float(config["held_out"]), seed)
    if chosen.labels == "permuted":
        parts = parts[0].permuted(seed), parts[1]
    network, new, built = operated(config, chosen, dataset.classes)
    chosen.groups(network.module, new)
    augment = augmentation(chosen.augment, network.preprocessing)
    return Training(chosen, network, new, built, (dataset, other), parts, device, augment)


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
