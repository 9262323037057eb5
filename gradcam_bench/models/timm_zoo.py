"""Any classifier of timm (pytorch-image-models) by name: its weights, its own preprocessing, a target layer."""

from __future__ import annotations

import math
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from gradcam_bench.errors import UserError, unknown
from gradcam_bench.models import checkpoints
from gradcam_bench.models.layers import default_timm_layer
from gradcam_bench.models.network import Network, Preprocessing, fingerprint
from gradcam_bench.models.zoo import draw_zeros, fixed_seed


def timm_network(
    name: str, weights: str | None = "DEFAULT", layer: str | None = None, num_classes: int | None = None, **options: Any
) -> Network:
    """A timm classifier. name: an architecture, or one with the tag of its weights, `resnet50.a1_in1k`.

    weights: DEFAULT (the name's published ones), a local file, or None for random ones. num_classes: as for
    torchvision. layer: None tries the layers on random pixels. options: timm's own, such as img_size.
    """
    timm = _timm()
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), 5, 0.5)
        raise unknown("timm model", name, close or ["see timm.list_models"])
    with fixed_seed():
        module = _module(timm, name, weights, num_classes, options)
        recipe = _preprocessing(name, timm.data.resolve_data_config(_input_size(options), model=module))
        side = recipe.crop or 224
        layer = layer or default_timm_layer(name, module, torch.randn(2, 3, side, side))
    classes = _imagenet() if module.num_classes == 1000 else None
    untrained = partial(_untrained, timm, name, options | {"num_classes": module.num_classes})
    return Network(name, module, recipe, layer, fingerprint(name, module), classes=classes, untrained=untrained)


def _untrained(timm: Any, name: str, options: dict[str, Any]) -> nn.Module:
    """The architecture as its constructor initialises it; zeros in a head that no gradient would pass are drawn."""
    module: nn.Module = timm.create_model(name, pretrained=False, **options)
    _draw_heads(module)
    return module


def _module(timm: Any, name: str, weights: str | None, num_classes: int | None, options: dict[str, Any]) -> nn.Module:
    """The network with its weights, in evaluation mode."""
    published = weights == "DEFAULT"
    if published and num_classes not in (None, timm.get_pretrained_cfg(name).num_classes):
        raise UserError(f"model {name}: model.num_classes={num_classes} is not the published weights' number")

    def construct(classes: int | None) -> nn.Module:
        arguments = options if classes is None else options | {"num_classes": classes}
        try:
            return timm.create_model(name, pretrained=published, **arguments)
        except (OSError, RuntimeError, TypeError, ValueError, AssertionError) as error:
            hint = ": give model.weights=FILE or none" if published else ""
            raise UserError(f"model {name}: {(str(error) or type(error).__name__).splitlines()[0]}{hint}") from None

    if weights not in (None, "none", "DEFAULT"):
        tensors = checkpoints.read(Path(str(weights)).expanduser())
        module, _ = checkpoints.fitting(construct, tensors, num_classes, str(weights))
        checkpoints.load(module, tensors, str(weights))
    else:
        module = construct(num_classes)
        if not published:
            _draw_heads(module)
    if not module.num_classes:
        raise UserError(f"model {name} has no classes: give model.num_classes=N and model.weights=FILE")
    return module.eval()


def _input_size(options: dict[str, Any]) -> dict[str, Any]:
    size = options.get("img_size")
    return {} if size is None else {"input_size": (3, *((size, size) if isinstance(size, int) else size))}


def _draw_heads(module: Any) -> None:
    heads = module.get_classifier()  # of a distilled network two
    for head in heads if isinstance(heads, tuple) else (heads,):
        draw_zeros(head)


def _timm() -> Any:
    try:
        import timm
        import timm.data
    except ImportError:
        raise UserError("model=timm needs the package timm: pip install 'gradcam-bench[timm]'") from None
    return timm


def _imagenet() -> tuple[str, ...]:
    """The names of ILSVRC's 1000 classes in order, which both libraries share."""
    return tuple(torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"])


def _preprocessing(name: str, config: dict[str, Any]) -> Preprocessing:
    """What timm's own evaluation transform does: resize to size / crop_pct by the shorter side (`center`) or by both
    (`squash`), then a crop in the middle."""
    _, height, width = config["input_size"]
    mode, size = config["crop_mode"], math.floor(width / config["crop_pct"])
    if height != width or mode not in ("center", "squash"):
        raise UserError(f"model {name}: preprocessing to {width}x{height} by crop_mode={mode} is not supported")
    resize = "shorter" if mode == "center" else "warp"
    return Preprocessing(resize, size, width, config["interpolation"], tuple(config["mean"]), tuple(config["std"]))
