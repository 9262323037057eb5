"""What a caller of the Python interface hands over: of the right kind and shape, or a UserError that names it.

Arguments are `Any` here: the annotations of `api` are a promise that no one has kept yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradcam_bench.errors import UserError
from gradcam_bench.geometry import Size


def check_model(model: Any) -> None:
    """An nn.Module whose layers can be looked at."""
    if not isinstance(model, nn.Module):
        raise UserError(f"model must be an nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError("the layers of a TorchScript module cannot be looked at: give the nn.Module it was made of")


def check_images(images: Any) -> None:
    """[B,C,H,W] of floats."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise UserError(f"images must be a tensor of floats, normalised as the model wants them, got {got}")
    if images.ndim != 4:
        raise UserError(f"images must be [B,3,H,W], got {list(images.shape)}")


def check_targets(targets: Any) -> None:
    """Whole numbers or callables, in something that has a length."""
    given = targets.tolist() if isinstance(targets, Tensor) else targets
    if not hasattr(given, "__len__") or isinstance(given, str):
        raise UserError(f"targets must be a list, a class index or a callable a case, got {given!r}")
    for n, one in enumerate(given):
        if not (callable(one) or hasattr(one, "__index__") or (isinstance(one, float) and one.is_integer())):
            raise UserError(f"targets[{n}] is {one!r}: a class index or a callable of the model's output is needed")


def check_colours(mean: Sequence[float], std: Sequence[float]) -> None:
    """Of red, green and blue each."""
    if len(mean) != 3 or len(std) != 3 or not all(one > 0 for one in std):
        raise UserError(f"mean and std are of red, green and blue, std above 0, got {tuple(mean)} and {tuple(std)}")


def check_alike(model: nn.Module, images: Tensor, error: RuntimeError) -> None:
    """Raises UserError from the error of a look where the images are of another dtype, or elsewhere, than the model:
    some models take such images all the same, so that they are not refused before."""
    weights = next((one for one in model.parameters() if one.is_floating_point()), images)
    mine, theirs = (f"{one.dtype} on {one.device}" for one in (images, weights))
    if mine != theirs:
        raise UserError(f"images are {mine}, the model is {theirs}: bring them together") from error


def names(what: str, given: Any) -> Sequence[Any]:
    """A list of names, not one."""
    if isinstance(given, str):
        raise UserError(f"{what} takes a list of names: {what}=['{given}']")
    if not isinstance(given, Iterable):
        raise UserError(f"{what} takes a list of names, got {given!r}")
    return list(given)


def maps(given: Any) -> Tensor:
    """[..., h, w], not empty."""
    if not isinstance(given, Tensor):
        raise UserError(f"heatmaps must be a tensor [...,h,w], got {type(given).__name__}: torch.as_tensor makes one")
    if given.ndim < 2 or 0 in given.shape[-2:]:
        raise UserError(f"heatmaps must be [...,h,w], got {list(given.shape)}")
    return given


def size(what: str, given: Any) -> Size:
    """(height, width), both whole and above 0."""
    try:
        height, width = (int(one) for one in given if int(one) == one and one > 0)
    except (TypeError, ValueError):
        raise UserError(f"{what} must be (height, width), whole numbers above 0, got {given!r}") from None
    return height, width


def mask(what: str, given: Any) -> Tensor:
    """[H,W] bool."""
    made = torch.as_tensor(given)
    if made.ndim != 2:
        raise UserError(f"{what} must be [H,W], got {list(made.shape)}")
    return made.bool()


def corners(what: str, given: Any) -> list[list[float]]:
    """Boxes [N,4], also none."""
    try:
        made = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} must be [N,4], half-open xyxy: {error}") from None
    if made.numel() and (made.ndim != 2 or made.shape[1] != 4):
        raise UserError(f"{what} must be [N,4], half-open xyxy, got {list(made.shape)}")
    return [[float(one) for one in box] for box in made] if made.numel() else []
