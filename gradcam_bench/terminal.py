"""What a person sees while a run goes on: a line now and then and a progress bar, on stderr."""

from __future__ import annotations

import os
import sys
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


def progress() -> Progress:
    """A bar with count, rate, time gone and time left, on stderr."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return _Bar(*columns, console=_Console(stderr=True))


def transfer() -> Progress:
    """A bar with bytes, rate and time left, on stderr."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=_Console(stderr=True))


class _Console(Console):
    """Goes silent when nobody reads any more; the run goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class _Bar(Progress):
    """Progress whose text `unit` is the rate in images a second."""

    def add_task(self, description: str, *args: Any, **fields: Any) -> Any:
        return super().add_task(description, *args, unit="", **fields)

    def advance(self, task_id: Any, advance: float = 1) -> None:
        super().advance(task_id, advance)
        task = self._tasks[task_id]
        self.update(task_id, unit=f"{task.speed:.1f}/s" if task.speed else "")


def say(sentence: str) -> None:
    """One line about what is going on, on stderr."""
    _Console(stderr=True).print(sentence, highlight=False, markup=False, soft_wrap=True)
