"""The decorator of the kernels: Numba where there is one, plain Python otherwise.

Without Numba, or with NUMBA_DISABLE_JIT=1, the same functions run uncompiled: equal results, but around a second a map.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])

# Numba's cache looks at a kernel's own file, not at the kernels and tables it takes from others; the name has to tell.
SOURCES = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
VERSION = hashlib.sha256(SOURCES).hexdigest()[:8]


def compiled(function: Function) -> Function:
    """Compile at the first call, keep the machine code on disk where that is possible, and release the GIL."""
    try:
        from numba import njit
    except ImportError:
        return function
    function.__qualname__ += f"_{VERSION}"
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # Numba found no folder it may write its cache to
        return njit(nogil=True)(function)
