"""What libraries do by default and a benchmark on a CPU should not: give memory back, and put threads on small work."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

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


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside, for work so small that several wait for one another longer than they compute: on a busy
    machine up to a hundred times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def default_budget(device: torch.device) -> int:
    """Bytes that a method's passes may take at once where nobody said: a quarter of the device's memory. Of all that it
    has, not of what is free now, so that the same run is cut into the same blocks again."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory) // 4
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
