"""Networks by name: any torchvision classifier, or any callable. Each comes with preprocessing and a target layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from gradcam_bench.building import check_parameters, locate
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.models import checkpoints
from gradcam_bench.models.convolutional import convolutional as make_convolutional
from gradcam_bench.models.layers import default_layer
from gradcam_bench.models.network import Network, Preprocessing, fingerprint


def torchvision_network(
    name: str,
    weights: str | None = "DEFAULT",
    layer: str | None = None,
    num_classes: int | None = None,
    convolutional: bool = False,
    **options: Any,
) -> Network:
    """A torchvision classifier. weights: DEFAULT, a member of its weights enum, a local file, or None for random ones.

    num_classes: of a network without published weights; of a local file it is read off the file. convolutional: scores
    at several positions, `models.convolutional`. Preprocessing is that of the weights, of the architecture's DEFAULT
    weights for a local file.
    """
    if num_classes is not None and num_classes < 1:
        raise UserError(f"model.num_classes={num_classes}: a whole number of at least 1 is needed")
    valid = torchvision.models.list_models(module=torchvision.models)
    if name not in valid:
        raise unknown("torchvision model", name, valid)
    members = torchvision.models.get_model_weights(name)
    published = None if weights in (None, "none") else _member(members, str(weights))
    with fixed_seed():
        module, num_classes = _module(name, weights, published, num_classes, options)
    if name.startswith("densenet"):
        _show_final_relu(module)
    if convolutional:
        module, name = make_convolutional(module, name), f"{name}_convolutional"
    recipe = published or members.DEFAULT
    classes = None if published else num_classes
    untrained = partial(_untrained, name.removesuffix("_convolutional"), classes, options, convolutional)
    return Network(
        name,
        module.eval(),
        _preprocessing(recipe),
        layer or default_layer(name, module),
        fingerprint(name, module),
        classes=tuple(recipe.meta["categories"]) if published or num_classes in (None, 1000) else None,
        untrained=untrained,
    )


def _untrained(name: str, num_classes: int | None, options: dict[str, Any], convolutional: bool) -> nn.Module:
    """The architecture as its constructor initialises it; zeros in a head that no gradient would pass are drawn."""
    module = _construct(torchvision.models.get_model_builder(name), name, None, num_classes, options)
    if name.startswith("vit"):
        draw_zeros(module.get_submodule("heads"))
    return make_convolutional(module, name) if convolutional else module


def _module(
    name: str, weights: str | None, published: Any, num_classes: int | None, options: dict[str, Any]
) -> tuple[nn.Module, int | None]:
    """The network with its weights, and its number of classes (None: its usual one)."""

    def construct(classes: int | None) -> nn.Module:
        return _construct(torchvision.models.get_model_builder(name), name, published, classes, options)

    if published is None and weights not in (None, "none"):
        tensors = checkpoints.read(Path(str(weights)).expanduser())
        module, num_classes = checkpoints.fitting(construct, tensors, num_classes, str(weights))
        checkpoints.load(module, _without_auxiliary(name, tensors, module), str(weights))
        return module, num_classes
    if published is None:
        return _untrained(name, num_classes, options, convolutional=False), num_classes
    return construct(num_classes), num_classes


def custom_network(
    target: str,
    layer: str | None = None,
    weights: str | None = None,
    preprocessing: dict[str, Any] | None = None,
    activation: str = "softmax",
    classes: list[str] | None = None,
    **options: Any,
) -> Network:
    """A network from any callable by dotted name, called with `options`; it returns an nn.Module."""
    if not layer:
        raise UserError(f"model.layer=NAME is needed for {target}: no default is known")
    if not (classes is None or isinstance(classes, Sequence)) or isinstance(classes, str):
        raise UserError(f"model.classes={classes}: a list of the outputs' names is needed (target does not get it)")
    function = locate(target)
    check_parameters(f"model {target}", function, options, ())
    try:
        with fixed_seed():
            module = function(**options)
    except Exception as error:  # the user's own function raises what it likes
        raise UserError(f"model.target={target} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"model.target={target} returned {type(module).__name__}, not an nn.Module")
    if weights not in (None, "none"):
        checkpoints.load(module, checkpoints.read(Path(str(weights)).expanduser()), str(weights))
    check_parameters("model.preprocessing", Preprocessing, preprocessing or {}, ())
    recipe = Preprocessing(**(preprocessing or {}))
    name = target.rpartition(".")[2]
    names = tuple(classes) if classes else None
    return Network(name, module.eval(), recipe, layer, fingerprint(target, module), activation, names)


def _member(members: Any, name: str) -> Any:
    """The weights enum's member of that name, None where the name is a file's."""
    if name in members.__members__:
        return members[name]
    if name == "DEFAULT":
        return members.DEFAULT
    if "/" in name or "." in name or Path(name).exists():
        return None
    raise unknown("weights", name, [*members.__members__, "DEFAULT", "none"])


def _construct(
    builder: Callable[..., nn.Module], name: str, published: Any, num_classes: int | None, options: dict[str, Any]
) -> nn.Module:
    arguments = dict(options)
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    if published is None and name in ("googlenet", "inception_v3"):
        arguments |= {"init_weights": True, "aux_logits": arguments.get("aux_logits", False)}
    try:
        return builder(weights=published, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"model {name}: {error}") from None
    except OSError as error:  # the weights' server cannot be reached
        raise UserError(f"model {name}: its weights cannot be downloaded ({error}): give model.weights=FILE") from None


@contextmanager
def fixed_seed() -> Iterator[None]:
    """Random weights are the same random weights every time, and the caller's random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def _without_auxiliary(name: str, tensors: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Published files of GoogLeNet and Inception carry auxiliary heads, which serve training only."""
    heads = ("aux1", "aux2", "AuxLogits") if name in ("googlenet", "inception_v3") else ()
    absent = [f"{head}." for head in heads if getattr(module, head, None) is None]
    return {key: tensor for key, tensor in tensors.items() if not any(head in key for head in absent)}


def _preprocessing(weights: Any) -> Preprocessing:
    recipe = weights.transforms()
    return Preprocessing(
        "shorter",
        recipe.resize_size[0],
        recipe.crop_size[0],
        recipe.interpolation.value,
        tuple(recipe.mean),
        tuple(recipe.std),
    )


def draw_zeros(head: nn.Module) -> None:
    """Untrained heads of zeros, as torchvision's ViT and some of timm's networks have them, let no gradient pass."""
    for part in head.modules():
        if isinstance(part, nn.Linear) and not part.weight.any():
            nn.init.trunc_normal_(part.weight, std=0.02)


def _show_final_relu(module: Any) -> None:
    """Makes DenseNet's last, functional ReLU a module, `features.relu`, so that the classifier sees `features`."""
    module.features.add_module("relu", nn.ReLU())

    def forward(self: Any, images: Tensor) -> Tensor:
        return self.classifier(torch.flatten(nn.functional.adaptive_avg_pool2d(self.features(images), 1), 1))

    module.forward = MethodType(forward, module)
