"""Batches decoded ahead, in processes of their own, and how such a process begins and ends."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from gradcam_bench.samples import Batch, Samples, Skipped, collate


def load(
    samples: Samples, batch_size: int, workers: int, pin_memory: bool = False, alone: bool = False
) -> Iterator[tuple[list[Batch], list[Skipped]]]:
    """Batches in order, decoded in `workers` processes (0: in this one). pin_memory: ready for copying to a GPU. alone:
    as in `collate`."""
    processes = 0 if samples.unseen else min(workers, math.ceil(len(samples) / batch_size))
    loader: Any = torch.utils.data.DataLoader(
        samples,
        batch_size=batch_size,
        num_workers=processes,
        multiprocessing_context=start_method() if processes else None,
        pin_memory=pin_memory and not samples.unseen,
        collate_fn=partial(collate, alone=alone),
        worker_init_fn=as_worker,
        generator=torch.Generator(),  # the workers' seeds: not drawn from the caller's random state
    )
    yield from loader


def start_method() -> str | None:
    """How processes that decode are started, None: as ever. In a process of joblib's the start method is its own,
    which DataLoader's processes do not know."""
    known = multiprocessing.get_all_start_methods()  # the platform's own first
    return None if multiprocessing.get_start_method(allow_none=True) in (None, *known) else known[0]


def as_worker(_worker: int) -> None:
    """How a process that decodes begins. Batch systems and `timeout` send SIGTERM to a whole group of processes: the
    one that asks for pictures ends the others when it has written what it has, and would take their death for a
    fault. So a SIGTERM ends this process if its parent sent it (one that exits without having closed its loader, and
    waits), and not otherwise."""
    torch.set_num_threads(1)  # the network needs the cores; decoding is parallel over images already
    if hasattr(signal, "sigwaitinfo"):  # only that says who sent a signal; macOS has it not
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = os.getppid()
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
