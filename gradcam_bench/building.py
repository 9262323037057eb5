"""From a mapping with `_target_` to the function that it names, with parameters that the function takes."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradcam_bench.errors import UserError, unknown

PLAIN = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def build(label: str, spec: Mapping[str, Any], meta: Sequence[str] = ()) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function named by `_target_` and its parameters: every key that is not one of `meta`."""
    if "_target_" not in spec:
        raise UserError(f"{label}: its configuration has no _target_ (the dotted name of a function)")
    return locate(str(spec["_target_"])), {k: v for k, v in spec.items() if k != "_target_" and k not in meta}


def locate(dotted: str) -> Callable[..., Any]:
    """The function or class at a dotted name such as `package.module.function`, of an installed package, of one on
    PYTHONPATH or in the working directory."""
    module, _, name = dotted.rpartition(".")
    try:
        found = getattr(_module(module), name)
    except ModuleNotFoundError as error:
        where = "; it is looked for among what is installed, on PYTHONPATH and in the working directory"
        raise UserError(f"cannot import '{dotted}': {error}{where}") from None
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"cannot import '{dotted}': {error}") from None
    except Exception as error:  # a module of the user's own
        raise UserError(f"cannot import '{dotted}': {type(error).__name__}: {error}") from error
    if not callable(found):
        raise UserError(f"'{dotted}' is no function or class")
    return found


def _module(name: str) -> types.ModuleType:
    """`python -m` looks in the working directory, the installed command does not: there it is tried last. The path
    stays, for the processes that read pictures."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        here = str(Path.cwd())
        if "" in sys.path or here in sys.path:
            raise
        sys.path.append(here)
        importlib.invalidate_caches()
        return importlib.import_module(name)


def check_parameters(
    label: str, function: Callable[..., Any], given: Mapping[str, Any], supplied: Sequence[str]
) -> None:
    """Refuses a parameter that the function does not take, naming the nearest one that it does."""
    try:
        signature = inspect.signature(function).parameters
    except ValueError:  # a builtin that does not say what it takes
        return
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    valid = [name for name in signature if name not in supplied]
    plain = _plain_types(function)
    for name, value in given.items():
        if name not in valid and not open_ended:
            raise unknown(f"parameter of {label}", name, valid or ["none"])
        kinds = plain.get(name, ())
        fits = isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)
        fits &= not isinstance(value, float) or math.isfinite(value)
        if kinds and not fits:
            words = " or ".join(PLAIN[kind] for kind in kinds if not (kind is int and float in kinds))
            raise UserError(f"{label}.{name}={value!r}: {words} is needed")


def _plain_types(function: Callable[..., Any]) -> dict[str, tuple[type, ...]]:
    """The parameters that are annotated with plain types alone (str, int, float, bool, None), with those types."""
    called: Any = vars(function).get("__init__", function) if isinstance(function, type) else function
    try:
        hints = typing.get_type_hints(called)
    except (NameError, TypeError):
        return {}
    unions = (typing.Union, types.UnionType)
    kinds = {
        name: typing.get_args(hint) if typing.get_origin(hint) in unions else (hint,) for name, hint in hints.items()
    }
    plain = {name: found for name, found in kinds.items() if all(kind in PLAIN for kind in found)}
    return {name: (*found, int) if float in found and int not in found else found for name, found in plain.items()}
