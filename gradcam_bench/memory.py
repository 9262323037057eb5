"""The allocator's settings for many equal large tensors, one after the other."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Lets glibc keep what a batch frees for the next, instead of returning it to the kernel and faulting it in again,
    which costs a CPU up to half of its time at large batches. True where that was possible (Linux with glibc)."""
    if platform.system() != "Linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, 2**31 - 1), mallopt(M_TOP_PAD, 2**28)])
