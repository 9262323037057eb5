"""Any classifier of timm (pytorch-image-models) by name: its weights, its own preprocessing, a target layer."""

from __future__ import annotations

import math
from difflib import get_close_matches
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
        raise unknown(
            "timm model", name, get_close_matches(name, timm.list_models(), 5, 0.5) or ["see timm.list_models"]
        )
    published = weights == "DEFAULT"
    if published and num_classes not in (None, timm.get_pretrained_cfg(name).num_classes):
        raise UserError(
            f"model {name}: published weights go with their own classes, not model.num_classes={num_classes}"
        )

    def construct(classes: int | None) -> nn.Module:
        arguments = options if classes is None else options | {"num_classes": classes}
        try:
            return timm.create_model(name, pretrained=published, **arguments)
        except (OSError, RuntimeError, TypeError, ValueError, AssertionError) as error:
            hint = ": give model.weights=FILE or none" if published else ""
            raise UserError(f"model {name}: {str(error).splitlines()[0] or type(error).__name__}{hint}") from None

    with fixed_seed():
        if weights in (None, "none", "DEFAULT"):
            module = construct(num_classes)
            if not published:
                draw_zeros(module.get_classifier())  # type: ignore[operator]
        else:
            tensors = checkpoints.read(Path(str(weights)).expanduser())
            module, num_classes = checkpoints.fitting(construct, tensors, num_classes, str(weights))
            checkpoints.load(module, tensors, str(weights))
        module.eval()
        if not getattr(module, "num_classes", 1):
            raise UserError(f"model {name} has no classes: give model.num_classes=N and model.weights=FILE")
        recipe = _preprocessing(name, timm.data.resolve_model_data_config(module))
        if not layer:
            side = recipe.crop or recipe.size or 224
            layer = default_timm_layer(name, module, torch.randn(2, 3, side, side))
    classes = _imagenet() if getattr(module, "num_classes", 0) == 1000 else None
    return Network(name, module, recipe, layer, fingerprint(name, module), classes=classes)


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
