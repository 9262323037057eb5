"""Weights from a local file: .safetensors, or a PyTorch file read with `weights_only=True`. Nothing is unpickled.

Training frameworks save more than the network and call it by names of their own; what they wrap round it is taken off:
keys such as `state_dict` above the tensors, prefixes such as `module.` before their names, a loss function's weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gradcam_bench.errors import UserError

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "state_dict_ema",
    "model_ema",
    "ema",
)  # the first there is
COMPILED = "_orig_mod."  # torch.compile puts it into the names, wherever a module was compiled


def read(path: Path) -> dict[str, Tensor]:
    """The tensors in a checkpoint, by parameter name; raises UserError naming the file where it is no checkpoint."""
    if not path.is_file():
        raise UserError(f"model.weights: {path} is not there (a file, DEFAULT, none, or a weights enum's name)")
    try:
        loaded: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # on bytes that are no checkpoint the readers raise whatever they stumble over
        raise UserError(f"model.weights: {path} cannot be read as weights ({_reason(error)})") from None
    while isinstance(loaded, Mapping):
        inner = [loaded[wrapper] for wrapper in WRAPPERS if isinstance(loaded.get(wrapper), Mapping)]
        if not inner:
            break
        loaded = inner[0]
    tensors = loaded if isinstance(loaded, Mapping) else {}
    tensors = {str(k).replace(COMPILED, ""): v for k, v in tensors.items() if isinstance(v, Tensor)}
    if not tensors:
        raise UserError(f"model.weights: {path} holds no tensors by name")
    return tensors


def _reason(error: Exception) -> str:
    """Why a file was not read, in one line; objects beside tensors are named."""
    if str(error).startswith("Weights only load failed"):  # PyTorch goes on to say how to read it all the same
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        objects = f"it holds Python objects, {found[1]}, which" if found else "it holds more than tensors, which"
        return f"{objects} could run code: save plain tensors, model.state_dict()"
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def classes_in(tensors: Mapping[str, Tensor], like: nn.Module, classes: int) -> int | None:
    """The number of classes of a classifier's checkpoint. like: the same architecture with `classes` classes, whose
    last parameter of that length is the head's; None where the file has no such parameter."""
    heads = [name for name, tensor in like.state_dict().items() if tensor.ndim and len(tensor) == classes]
    found = [tensor for name, tensor in tensors.items() if heads and f".{name}".endswith(f".{heads[-1]}")]
    return len(found[0]) if found and found[0].ndim else None


def fitting(
    construct: Callable[[int | None], nn.Module], tensors: Mapping[str, Tensor], asked: int | None, origin: str
) -> tuple[nn.Module, int | None]:
    """A network of as many classes as the file has, and their number. construct: makes one of so many classes (None: as
    many as it usually has). asked: the number that the user gave, if any; raises UserError if the file has another."""
    module = construct(asked)
    usual = asked or int(getattr(module, "num_classes", 1000))
    found, needed = classes_in(tensors, module, usual), _needed(module.state_dict())
    if found in (None, usual) or set(needed) - set(_under_one_prefix(tensors, needed, origin)):
        return module, asked  # it fits, or is another network's file, which `load` says
    if asked is not None:
        raise UserError(f"model.weights: {origin} has {found} classes, model.num_classes={asked} asked")
    return construct(found), found


def load(module: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Loads tensors strictly, under whatever prefix (`module.`, `model.backbone.`) they are; half precision becomes
    float32. What lies outside the prefix is left out."""
    wanted = module.state_dict()
    tensors = _under_one_prefix(tensors, _needed(wanted), origin)
    missing, extra = sorted(set(_needed(wanted)) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or extra:
        parts = [
            f"{len(names)} {what} (such as {names[0]})"
            for what, names in (("missing", missing), ("unexpected", extra))
            if names
        ]
        raise UserError(f"model.weights: {origin} does not fit {type(module).__name__}: {', '.join(parts)}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            got, want = tuple(tensor.shape), tuple(wanted[name].shape)
            raise UserError(f"model.weights: {origin}: {name} has shape {got}, {type(module).__name__} wants {want}")
    module.load_state_dict({name: t.to(wanted[name].dtype) for name, t in tensors.items()}, strict=False)


def _needed(wanted: Mapping[str, Tensor]) -> list[str]:
    """The names that a file must have: counters of batches play no part."""
    return [name for name in wanted if not name.endswith("num_batches_tracked")]


def _under_one_prefix(tensors: Mapping[str, Tensor], needed: list[str], origin: str) -> dict[str, Tensor]:
    """The tensors by the network's own names: below the one prefix under which all that it needs is there; as they are
    where there is none such. Two networks of this kind in one file (a student and its teacher) are refused."""
    first = f".{needed[0]}" if needed else "."
    found = {f".{name}".removesuffix(first) for name in tensors if f".{name}".endswith(first)}
    prefixes = {f"{prefix[1:]}." if prefix else "" for prefix in found}
    whole = sorted(prefix for prefix in prefixes if all(f"{prefix}{name}" in tensors for name in needed))
    if len(whole) > 1 and whole[0]:
        raise UserError(f"model.weights: {origin} holds several such networks ({', '.join(whole)}): save one alone")
    prefix = whole[0] if whole else (prefixes.pop() if len(prefixes) == 1 else "")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
