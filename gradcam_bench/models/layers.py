"""Where to look by default: the last layer of an architecture that is a grid with gradients in it."""

from __future__ import annotations

from torch import Tensor, nn

from gradcam_bench.candidates import candidates
from gradcam_bench.errors import UserError

# Of torchvision's architectures, by the beginning of the name; the longest fits. -1 stands for a module's last child.
# A transformer ends in blocks x + f(norm(x)). After the last one only the class token has a gradient, so the layer is
# that block's first norm. SwinV2 norms what attention gave, x + norm(f(x)), and its norm1 is what attention adds.
LAYERS = {
    "alexnet": "features.11",
    "convnext": "features",
    "densenet": "features",
    "efficientnet": "features",
    "googlenet": "inception5b",
    "inception_v3": "Mixed_7c",
    "maxvit": "blocks.-1",
    "mnasnet": "layers",
    "mobilenet": "features",
    "regnet": "trunk_output",
    "resnet": "layer4",
    "resnext": "layer4",
    "shufflenet": "conv5",
    "squeezenet": "features",
    "swin": "features.-1.-1.norm1",
    "vit": "encoder.layers.-1.ln_1",
    "wide_resnet": "layer4",
}
# Of timm's transformers, by their structure: ViT and its kin, Swin, PiT.
BLOCKS = ("blocks.-1.norm1", "layers.-1.blocks.-1.norm1", "transformers.-1.blocks.-1.norm1")
MISORDERED = ("hiera",)  # timm's Hiera keeps its tokens in the order of its windows, not in rows


def default_layer(name: str, module: nn.Module) -> str:
    """The target layer of a torchvision architecture; of a VGG the last ReLU before the pool (vgg16: features.29)."""
    if name.startswith("vgg"):
        return _last_relu(module)
    for prefix in sorted(LAYERS, key=len, reverse=True):
        if name.startswith(prefix) and (found := _child(module, LAYERS[prefix])):
            return found
    raise UserError(f"no default layer is known for {name}: give model.layer=NAME")


def default_timm_layer(name: str, module: nn.Module, images: Tensor) -> str:
    """The target layer of a timm architecture, tried on images [B,3,H,W]: the first norm of a transformer's last block,
    the last ReLU of a VGG, else the last grid of all on which the scores depend. Raises UserError if there is none."""
    try:
        found = candidates(module, images)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:  # whatever the model itself raises
        raise UserError(f"model {name} fails on an input of {tuple(images.shape[2:])} pixels: {error}") from error
    layers = [layer for layer in (_child(module, pattern) for pattern in BLOCKS) if layer]
    if name.startswith("vgg"):
        layers = [_last_relu(module)]
    layers = layers or [layer for layer in found if "att" not in layer][:1]  # no part of an attention
    if not layers or layers[0] not in found or name.startswith(MISORDERED):
        known = ", ".join(found[:8]) if found and not name.startswith(MISORDERED) else "none that is a grid for certain"
        raise UserError(f"no default layer is known for {name}: model.layer=NAME is needed ({known})")
    return layers[0]


def _last_relu(module: nn.Module) -> str:
    relus = [n for n, m in module.features.named_children() if isinstance(m, nn.ReLU)]  # type: ignore[union-attr]
    return f"features.{relus[-1]}"


def _child(module: nn.Module, pattern: str) -> str | None:
    """The name of the module that a pattern stands for, None where there is none."""
    path: list[str] = []
    for part in pattern.split("."):
        children = dict(module.named_children())
        name = list(children)[-1] if part == "-1" and children else part
        if name not in children:
            return None
        path.append(name)
        module = children[name]
    return ".".join(path)
