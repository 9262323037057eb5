"""The decorator of the kernels: Numba where there is one, plain Python otherwise.

Without Numba, or with NUMBA_DISABLE_JIT=1, the same functions run uncompiled: equal results, but seconds for one map.
"""

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile at the first call, keep the machine code on disk where that is possible, and release the GIL."""
    try:
        from numba import njit
    except ImportError:
        return function
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # Numba found no folder it may write its cache to
        return njit(nogil=True)(function)
