"""Weights from a local file: .safetensors, or a PyTorch file read with `weights_only=True`. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gradcam_bench.errors import UserError

WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
PREFIXES = ("module.", "model.", "net.")


def read(path: Path) -> dict[str, Tensor]:
    """The tensors in a checkpoint, by parameter name; raises UserError naming the file where it is no checkpoint."""
    if not path.is_file():
        raise UserError(f"model.weights: {path} is not there (a file, DEFAULT, none, or a weights enum's name)")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on bytes that are no checkpoint the readers raise whatever they stumble over
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"model.weights: {path} cannot be read as weights ({reason})") from None
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    tensors = {k: v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, Mapping) else {}
    if not tensors:
        raise UserError(f"model.weights: {path} holds no tensors by name")
    return tensors


def classes_in(tensors: Mapping[str, Tensor], like: nn.Module) -> int | None:
    """The number of classes of a classifier's checkpoint: the length of what is the last bias of a module like it."""
    last = [name for name in like.state_dict() if name.endswith("bias")][-1]
    found = [tensor for name, tensor in tensors.items() if name == last or name.endswith(f".{last}")]
    return len(found[0]) if found else None


def load(module: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Loads tensors strictly; wrappers' prefixes (`module.`, `model.`) are dropped, half precision becomes float32."""
    wanted = module.state_dict()
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors) and not set(tensors) & set(wanted):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    missing, extra = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
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
