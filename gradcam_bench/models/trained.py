"""Weights as `gradcam-bench train` writes them: safetensors that say what network they are of and how to feed it.

The file's metadata holds one JSON text under `gradcam_bench`: architecture and surgery (so that the network can be
built again), classes, preprocessing, target layer, activation, and how it was trained. Nothing in it is run: the
architecture is a name in a library, never a function's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from gradcam_bench.errors import UserError
from gradcam_bench.files import atomically
from gradcam_bench.models import checkpoints
from gradcam_bench.models.network import INTERPOLATIONS, Network, Preprocessing, fingerprint
from gradcam_bench.models.scenes_nets import scenes_network
from gradcam_bench.models.surgery import operate
from gradcam_bench.models.timm_zoo import timm_network
from gradcam_bench.models.zoo import fixed_seed, torchvision_network

KEY, FORMAT = "gradcam_bench", 1
LIBRARIES: dict[str, Callable[..., Network]] = {
    "torchvision": torchvision_network,
    "timm": timm_network,
    "scenes": scenes_network,
}
CUSTOM = "custom"  # a network of the user's own, which only the user's own function can build
ACTIVATIONS = ("softmax", "sigmoid")


def architecture(spec: Mapping[str, Any], module: nn.Module) -> dict[str, Any]:
    """What a model's configuration says of the network's shape: library, name, options. module: the network itself,
    which knows whether it recentres its input."""
    target = str(spec["_target_"])
    library = next((k for k, v in LIBRARIES.items() if target == f"{v.__module__}.{v.__qualname__}"), CUSTOM)
    if library == CUSTOM:
        return {"library": CUSTOM, "name": str(spec.get("target", target)), "options": {}}
    rest = {k: v for k, v in spec.items() if k not in ("_target_", "name", "weights", "layer", "about")}
    options = {key: value for key, value in rest.items() if value not in (None, False)}
    if library == "torchvision" and hasattr(module, "transform_input"):
        options["transform_input"] = bool(module.transform_input)
    return {"library": library, "name": str(spec["name"]), "options": options}


def save(path: Path, network: Network, facts: Mapping[str, Any]) -> None:
    """Writes a trained network atomically. facts: `architecture`, `surgery`, and whatever else of the training."""
    told = {
        "format": FORMAT,
        "version": metadata.version("gradcam-bench"),
        "classes": list(network.classes or ()),
        "preprocessing": asdict(network.preprocessing),
        "layer": network.layer,
        "activation": network.activation,
        **facts,
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.module.state_dict().items()}
    text = {KEY: json.dumps(told, sort_keys=True)}
    atomically(path, lambda temporary: save_file(tensors, temporary, metadata=text))


def facts_in(path: Path) -> dict[str, Any]:
    """What a file of `save` says of itself; raises UserError naming the file where it says nothing, or nonsense."""
    if not path.is_file():
        raise UserError(f"model.weights: {path} is not there (a weights.safetensors of `gradcam-bench train`)")
    try:
        with safe_open(path, "pt") as file:
            told = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise UserError(f"model.weights: {path} cannot be read as safetensors ({error})") from None
    if told is None:
        raise UserError(
            f"model.weights: {path} does not say what network it is of, as files of `gradcam-bench train` do; name the "
            "network, as model=resnet50 model.weights=FILE"
        )
    try:
        facts = _checked(json.loads(told))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"model.weights: what {path} says of its network is damaged ({error})") from None
    if facts["format"] != FORMAT:
        raise UserError(f"model.weights: {path} is of format {facts['format']}, this version reads {FORMAT}: update")
    return facts


def _checked(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts with their preprocessing as an object; raises ValueError, TypeError or KeyError where one is wrong."""
    built = facts["architecture"]
    if built["library"] not in (*LIBRARIES, CUSTOM) or not isinstance(built["options"], dict):
        raise ValueError(f"library {built['library']}")
    if facts["activation"] not in ACTIVATIONS:
        raise ValueError(f"activation {facts['activation']}")
    if not facts["classes"] or not all(isinstance(name, str) for name in facts["classes"]):
        raise ValueError("classes")
    plain: dict[str, Any] = {
        k: tuple(map(float, v)) if isinstance(v, list) else v for k, v in facts["preprocessing"].items()
    }
    recipe = Preprocessing(**plain)
    sizes = all(side is None or (type(side) is int and 0 < side < 2**14) for side in (recipe.size, recipe.crop))
    known = recipe.resize in ("warp", "shorter", "none") and recipe.interpolation in (
        *INTERPOLATIONS,
        "bilinear_tensor",
    )
    if not (sizes and known and len(recipe.mean) == len(recipe.std) == 3 and all(recipe.std)):
        raise ValueError("preprocessing")
    return facts | {"preprocessing": recipe, "name": str(built["name"]), "surgery": str(facts["surgery"])}


def trained_network(weights: str | None = None, layer: str | None = None) -> Network:
    """The network in a file that `gradcam-bench train` wrote, with all that belongs to it. layer: another target."""
    if not weights:
        raise UserError("model=trained needs model.weights=FILE, the weights.safetensors of a training")
    path = Path(str(weights)).expanduser()
    facts = facts_in(path)
    built, classes = facts["architecture"], tuple(facts["classes"])
    if built["library"] == CUSTOM:
        raise UserError(
            f"model.weights: {path} is of a network of your own: model=custom model.target={built['name']} "
            f"model.layer={facts['layer']} model.weights={path}"
        )
    build = partial(LIBRARIES[built["library"]], facts["name"], "none", **built["options"])
    try:
        whole = build()
        with fixed_seed():
            module = operate(facts["surgery"], whole.module, facts["name"], len(classes)).module
    except (TypeError, UserError) as error:
        raise UserError(f"model.weights: the network that {path} names cannot be built ({error})") from None
    checkpoints.load(module, checkpoints.read(path), str(path))
    digest = fingerprint(facts["name"], module)
    look = layer or str(facts["layer"])

    def untrained() -> nn.Module:
        assert whole.untrained is not None
        return operate(facts["surgery"], whole.untrained(), facts["name"], len(classes)).module

    told = (facts["preprocessing"], look, digest, facts["activation"], classes)
    return Network(facts["name"], module.eval(), *told, untrained=untrained)
