"""Methods of other libraries, put in the same run: what captum, pytorch-grad-cam and torchcam give for each case.

The library gets the network itself, one case at a time, and what it returns is handed on as it is: pytorch-grad-cam's
maps after its ReLU, in [0, 1], at the input's size; torchcam's after its ReLU, at the layer's; captum's signed, summed
over channels. Meanwhile the network is frozen, in evaluation mode and without in-place activations; afterwards its
mode, gradients, hooks and random state are as they were. `pip install 'gradcam-bench[external]'`.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gradcam_bench.errors import UserError, unknown
from gradcam_bench.frozen import as_found
from gradcam_bench.probe import Evidence

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PACKAGES = {"captum.attr": "captum", "pytorch_grad_cam": "grad-cam", "torchcam.methods": "torchcam"}
SEEDS = 2**31


class Asked(Protocol):
    """The network: its module, the target layer's name, each case's class [Q] (-1: a function of the output)."""

    @property
    def module(self) -> nn.Module: ...
    @property
    def layer(self) -> str: ...
    @property
    def targets(self) -> Tensor: ...


def captum(
    network: Asked,
    images: Tensor,
    name: str,
    options: Mapping[str, Any] | None = None,
    baseline: float | None = None,
    patch: int | None = None,
) -> Tensor:
    """captum.attr's attribution of this name at the input [Q,H,W], or with a Layer* class at the layer [Q,h,w].

    options: of its `attribute`. baseline: what every number of its `baselines` is, where it wants them. patch: side of
    the squares that its `feature_mask` is made of, all channels together, where it has one. Sums over channels.
    """
    return _captum(network, images, [0] * len(images), name, options, baseline, patch)


def captum_random(
    network: Asked,
    images: Tensor,
    generators: Sequence[torch.Generator],
    name: str,
    options: Mapping[str, Any] | None = None,
    baseline: float | None = None,
    patch: int | None = None,
) -> Tensor:
    """The same for those that draw at random: from a seed of the case's own."""
    seeds = [int(torch.randint(SEEDS, (), generator=generator)) for generator in generators]
    return _captum(network, images, seeds, name, options, baseline, patch)


def _captum(
    network: Asked,
    images: Tensor,
    seeds: Sequence[int],
    name: str,
    options: Mapping[str, Any] | None,
    baseline: float | None,
    patch: int | None,
) -> Tensor:
    kind = _class("captum.attr", name)
    given = dict(options or {})

    def one(image: Tensor, target: int) -> Tensor:
        if baseline is not None:
            given["baselines"] = torch.full_like(image, baseline)
        if patch is not None:
            given["feature_mask"] = _squares(image, patch)
        places = (network.module.get_submodule(network.layer),) if "layer" in _takes(kind) else ()
        return kind(network.module, *places).attribute(image.requires_grad_(), target=target, **given)

    return _each(network, images, seeds, one, f"captum's {name}")


def grad_cam(
    network: Asked, images: Tensor, evidence: Evidence, name: str, options: Mapping[str, Any] | None = None
) -> Tensor:
    """pytorch_grad_cam's method of this name, [Q,H,W], in [0, 1]. options: of its constructor."""
    kind = _class("pytorch_grad_cam", name)
    target_of = _class("pytorch_grad_cam.utils.model_targets", "ClassifierOutputTarget")

    def one(image: Tensor, target: int) -> Tensor:
        layer, silent = network.module.get_submodule(network.layer), contextlib.redirect_stderr(io.StringIO())
        made = kind(network.module, [layer], reshape_transform=_as_grid(evidence), **(options or {}))
        with silent, made:
            return torch.from_numpy(made(image.requires_grad_(), [target_of(target)])).to(image)

    return _each(network, images, [0] * len(images), one, f"pytorch-grad-cam's {name}")


def torchcam(network: Asked, images: Tensor, name: str, options: Mapping[str, Any] | None = None) -> Tensor:
    """torchcam.methods' extractor of this name, not normalised, [Q,h,w]. options: of its constructor."""
    kind = _class("torchcam.methods", name)

    def one(image: Tensor, target: int) -> Tensor:
        layer = network.module.get_submodule(network.layer)
        if "input_shape" in _takes(kind):
            more = {"input_shape": tuple(image.shape[1:]), **(options or {})}
        else:
            more = dict(options or {})
        with kind(network.module, layer, **more) as made:
            scores = network.module(image.requires_grad_())
            return made([target], scores, normalized=False)[0]

    return _each(network, images, [0] * len(images), one, f"torchcam's {name}")


def _each(
    network: Asked, images: Tensor, seeds: Sequence[int], one: Callable[[Tensor, int], Tensor], name: str
) -> Tensor:
    """[Q,h,w] of what a library says of one image [1,3,H,W] and class at a time."""
    if (network.targets < 0).any():
        raise UserError(f"{name} does not apply: its target must be a class, not a function of the output")
    like, maps = next(network.module.parameters()), []
    for image, target, seed in zip(images, network.targets.tolist(), seeds, strict=True):
        with _kept(network.module, seed):
            made = one(image[None].to(like).clone(), target).detach()
        made = made.sum(1) if made.ndim == 4 else made
        if made.ndim != 3 or len(made) != 1:
            raise UserError(f"{name} does not apply: of layer {network.layer} it gives {list(made.shape)}, no map")
        maps.append(made)
    return torch.cat(maps)


@contextmanager
def _kept(module: nn.Module, seed: int) -> Iterator[None]:
    """Inside, a library may do with the network what it likes."""
    everything = list(module.modules())
    in_place = [part for part in everything if getattr(part, "inplace", False) is True]
    hooks = [(getattr(part, name), dict(getattr(part, name))) for part in everything for name in HOOKS]
    state = np.random.get_state()  # noqa: NPY002 (libraries draw from it)
    with as_found(module, everything), torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn of what they do to the network, which is undone here
        try:
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            for part in in_place:
                part.inplace = False  # type: ignore[assignment]
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
            for part in in_place:
                part.inplace = True  # type: ignore[assignment]
            for there, before in hooks:
                for key in [key for key in there if key not in before]:
                    del there[key]


def _class(module: str, name: str) -> Any:
    package = next(package for start, package in PACKAGES.items() if module.startswith(start))
    try:
        library = importlib.import_module(module)
    except ImportError as error:
        needed = f"{name} needs the package {package}: pip install 'gradcam-bench[external]'"
        raise UserError(f"{needed} ({error})") from None
    found = getattr(library, name, None)
    if not isinstance(found, type):
        names = [key for key, value in vars(library).items() if isinstance(value, type) and not key.startswith("_")]
        raise unknown(f"class of {module}", name, names)
    return found


def _takes(kind: Any) -> set[str]:
    return set(inspect.signature(kind.__init__).parameters) | {
        name for part in kind.__mro__[1:-1] for name in inspect.signature(part.__init__).parameters
    }


def _squares(image: Tensor, side: int) -> Tensor:
    """[1,1,H,W]: the number of the square that each pixel lies in."""
    height, width = image.shape[-2:]
    rows, columns = (torch.arange(size, device=image.device) // side for size in (height, width))
    return (rows[:, None] * (int(columns[-1]) + 1) + columns)[None, None]


def _as_grid(evidence: Evidence) -> Callable[[Tensor], Tensor] | None:
    """What makes [N,C,h,w] of the layer's output, where that is tokens or has its channels last."""
    channels, height, width = evidence.activations.shape[1:]

    def grid(native: Tensor) -> Tensor:
        if native.ndim == 3:
            return native[:, native.shape[1] - height * width :].transpose(1, 2).unflatten(2, (height, width))
        first = native.shape[1:] == (channels, height, width)
        return native if first else native.permute(0, 3, 1, 2)

    return grid
