"""gradcam-bench: a benchmark suite for class-activation maps and weakly-supervised localization.

The functions are imported when they are first asked for (PEP 562), as torch takes seconds.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradcam_bench.errors import UserError

if TYPE_CHECKING:
    from gradcam_bench import targets
    from gradcam_bench.api import annotate, boxes, explain, normalize, rectify, resize, score

    __version__: str

__all__ = ["UserError", "annotate", "boxes", "explain", "normalize", "rectify", "resize", "score", "targets"]


class _Package(ModuleType):
    """`explain` is the function: a module of that name lies in the package too, and importing it would hide it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "targets" or not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "__version__":
        found: Any = importlib.import_module("importlib.metadata").version("gradcam-bench")
    elif name == "targets":
        found = importlib.import_module("gradcam_bench.targets")
    elif name in __all__:
        found = getattr(importlib.import_module("gradcam_bench.api"), name)
    else:
        raise AttributeError(f"module 'gradcam_bench' has no attribute '{name}'")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
