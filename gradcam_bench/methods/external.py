"""Attributions of other libraries in the same run: captum, pytorch-grad-cam, torchcam (the extra `peers`).

Each is asked one case at a time, so that no number depends on what else is in a batch, on the module itself with the
parameters frozen and the input requiring gradients, without in-place activations (which its hooks cannot stand). The
module is left as it was found, whatever the library does to it.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from gradcam_bench.borrowed import borrowed, counted, seeded
from gradcam_bench.cases import Asked
from gradcam_bench.errors import UserError, unknown

Options = Mapping[str, Any]
REHEARSED = 4  # forward passes after which a dry run is taken to succeed


class _Enough(BaseException):
    """Ends a dry run; no `except Exception` of a library catches it."""


def attribution(
    network: Asked,
    images: Tensor,
    library: str,
    name: str,
    construct: Options | None = None,
    options: Options | None = None,
    patches: int = 0,
    score: str = "logit",
) -> Tensor:
    """Heatmaps [Q,h,w] of `library`'s class `name`, signed and scaled as that library gives them.

    images [Q,3,H,W]: the cases' inputs. construct: the class's own arguments, options: those of the call.

    library `captum`: `name` of captum.attr. Attributions to the input [1,3,H,W] are summed over the colours, those to
    the layer (classes that take one) [1,C,h,w] over the channels: signed. A number given as `baselines` is an image of
    that number, 0 being the mean colour; patches: that many squares a side as the features (`feature_mask`). DeepLift
    is refused where its attributions do not add up to the difference of the scores.
    library `pytorch_grad_cam`: in [0, 1] at the input's size, after its ReLU; where the layer gives tokens or has its
    channels last, it is told how they lie. library `torchcam`: [h,w], after its ReLU where the extractor has one, not
    normalised.

    score: what torchcam's extractors differentiate, `logit` or `softmax`; the other libraries know the logit alone.

    What is drawn at random is drawn from seed 0: see `sampled`. Raises UserError for a package that is not installed,
    a class that it does not have, a target that is a function, and a layer that has no grid.
    """
    seeds = [0] * len(images)
    return _all(network, images, seeds, library, name, construct or {}, options or {}, patches, score)


def sampled(
    network: Asked,
    images: Tensor,
    generators: Sequence[torch.Generator],
    library: str,
    name: str,
    construct: Options | None = None,
    options: Options | None = None,
    patches: int = 0,
    score: str = "logit",
) -> Tensor:
    """`attribution` for classes that draw at random: torch, numpy and `random` are seeded by each case's generator."""
    seeds = [int(torch.randint(2**31, (), generator=generator)) for generator in generators]
    return _all(network, images, seeds, library, name, construct or {}, options or {}, patches, score)


def _all(
    network: Asked,
    images: Tensor,
    seeds: Sequence[int],
    library: str,
    name: str,
    construct: Options,
    options: Options,
    patches: int,
    score: str,
) -> Tensor:
    asked = network.targets.tolist()
    if any(target < 0 for target in asked):
        raise UserError(f"{library}.{name} does not apply: it explains a class, not a function of the output")
    if library not in ADAPTERS:
        raise unknown("library", library, ADAPTERS)
    if score not in SCORES[library]:
        raise unknown(f"score of {library}.{name}", score, SCORES[library])
    module, adapter = _imported(library), ADAPTERS[library]
    adapter = partial(adapter, score) if len(SCORES[library]) > 1 else adapter
    kind = _class(module, library, name)
    construct, options = _tuples(construct), _tuples(options)
    if patches:
        options = {**options, "feature_mask": _squares(patches, images)}
    made = []
    for image, target, seed in zip(images[: 1 if network.rehearsal else None], asked, seeds, strict=False):
        with borrowed(network.module), seeded(seed), counted(network.module, network.cost):
            like = next(network.module.parameters())
            fed = image[None].to(like.device, like.dtype).clone().requires_grad_()
            made.append(_limited(network, partial(adapter, kind, network, fed, target, construct, options)))
    found = torch.stack(made)
    return found.expand(len(images), -1, -1) if network.rehearsal else found


def _captum(
    kind: Callable[..., Any], network: Asked, image: Tensor, target: int, construct: Options, options: Options
) -> Tensor:
    layered = "layer" in inspect.signature(kind).parameters
    made = kind(network.module, *([_layer(network)] if layered else []), **construct)
    if isinstance(options.get("baselines"), int | float):
        options = {**options, "baselines": torch.full_like(image, options["baselines"]).detach()}
    with warnings.catch_warnings():  # it tells of hooks that it sets on modules, and of gradients that it asks for
        warnings.filterwarnings("ignore", category=UserWarning, module=r"captum\.")
        try:
            found = made.attribute(image, target=target, **options)
        except RuntimeError as error:
            if "used more than once" not in str(error):
                raise
            reason = "it needs each activation to be a module of its own, and one of this network's is called twice"
            raise UserError(f"captum.{kind.__name__} does not apply: {reason}") from None
    if kind.__name__ == "DeepLift":
        _check_sum(network, image, target, found, options)
    if not isinstance(found, Tensor) or found.ndim != 4:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UserError(f"captum.{kind.__name__} does not apply: it gives {shape} and not channels on a grid")
    return found[0].detach().sum(0)


def _check_sum(network: Asked, image: Tensor, target: int, found: Tensor, options: Options) -> None:
    """Raises UserError where DeepLIFT's attributions [1,...] do not add up to the difference of the scores: by its
    definition they do (Shrikumar et al. 2017, eq. 1), but where an activation is no module or pools overlap captum's
    do not, and says nothing."""
    start = options.get("baselines", torch.zeros_like(image))
    with torch.no_grad():
        scores = network.module(torch.cat([image, start.expand_as(image)]))[:, target].double()
    difference, total = scores[0] - scores[1], found.detach().double()
    single = found.dtype.itemsize >= 4
    allowed = (1e-4 if single else 5e-2) * total.abs().sum() + (1e-3 if single else 5e-2) * difference.abs()
    if (total.sum() - difference).abs() > allowed:
        apart = f"{float(total.sum()):.3g} and not the {float(difference):.3g} by which the scores differ"
        raise UserError(
            f"captum.DeepLift does not apply: its attributions add up to {apart}, as where an activation is no module "
            "of its own or max-pools overlap"
        )


def _pytorch_grad_cam(
    kind: Callable[..., Any], network: Asked, image: Tensor, target: int, construct: Options, options: Options
) -> Tensor:
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        lies = {"reshape_transform": partial(_on_grid, network.grid)} if network.grid else {}
        made = kind(network.module, [_layer(network)], **{**lies, **construct})
        return torch.from_numpy(made(image, [targets.ClassifierOutputTarget(target)], **options))[0]


def _on_grid(size: tuple[int, int], native: Tensor) -> Tensor:
    """[N,C,h,w] of what a layer gives: that already, channels last, or tokens after some that are no patches."""
    if native.ndim == 3:
        return native[:, native.shape[1] - size[0] * size[1] :].transpose(1, 2).unflatten(2, size)
    return native if native.shape[2:] == size else native.permute(0, 3, 1, 2)


def _torchcam(
    score: str,
    kind: Callable[..., Any],
    network: Asked,
    image: Tensor,
    target: int,
    construct: Options,
    options: Options,
) -> Tensor:
    made = kind(network.module, _layer(network), input_shape=tuple(image.shape[1:]), **construct)
    logits = network.module(image)
    scores = logits.softmax(1) if score == "softmax" else logits
    return made([target], scores, normalized=False, **options)[0][0].detach()


ADAPTERS: dict[str, Callable[..., Tensor]] = {
    "captum": _captum,
    "pytorch_grad_cam": _pytorch_grad_cam,
    "torchcam": _torchcam,
}
SCORES = {"captum": ("logit",), "pytorch_grad_cam": ("logit",), "torchcam": ("logit", "softmax")}
MODULES = {"captum": "captum.attr", "torchcam": "torchcam.methods"}
PACKAGES = {"pytorch_grad_cam": "grad-cam"}


def _imported(library: str) -> ModuleType:
    try:
        return importlib.import_module(MODULES.get(library, library))
    except ImportError as error:
        package = PACKAGES.get(library, library)
        raise UserError(
            f"{library} cannot be imported ({error}): pip install {package}, or 'gradcam-bench[peers]'"
        ) from None


def _class(module: ModuleType, library: str, name: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        raise unknown(f"class of {library}", name, [n for n in dir(module) if inspect.isclass(getattr(module, n))])
    return found


def _layer(network: Asked) -> nn.Module:
    name, _, call = network.layer.partition("@")
    if call:
        raise UserError(f"a library's hooks do not apply: {name} is called several times, and they cannot tell which")
    return network.module.get_submodule(name)


def _tuples(options: Options) -> dict[str, Any]:
    """YAML has lists where these libraries want tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def _squares(count: int, images: Tensor) -> Tensor:
    """[1,1,H,W] int64: the number of each pixel's patch, `count` a side, row by row."""
    height, width = images.shape[-2:]
    rows, columns = ((2 * torch.arange(n) + 1) * count // (2 * n) for n in (height, width))  # by the pixel's centre
    return (rows[:, None] * count + columns)[None, None].to(images.device)


def _limited(network: Asked, make: Callable[[], Tensor]) -> Tensor:
    """What `make` returns; in a dry run, no more forward passes than it takes to believe that it works."""
    if not network.rehearsal:
        return make()
    calls = iter(range(REHEARSED))

    def count(*_: Any) -> None:
        if next(calls, None) is None:
            raise _Enough

    handle = network.module.register_forward_pre_hook(count)
    try:
        return make()
    except _Enough:
        return torch.zeros(1, 1)
    finally:
        handle.remove()
