"""How far long work is, on stderr, if that is a terminal; rich is loaded only where there is something to show."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.progress import Progress

_PATIENCE_SECONDS = 0.5


class LateProgress:
    """A display that begins when the work takes longer than a moment, as git's does. Thread-safe.

    Args:
        make: Makes what is displayed.
    """

    def __init__(self, make: Callable[[], Progress]) -> None:
        self._make = make
        self._is_shown = sys.stderr.isatty()
        self._due = time.monotonic() + _PATIENCE_SECONDS
        self._tasks: list[dict[str, Any]] = []
        self._bar: Progress | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> LateProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.stop()

    def add_task(self, description: str, *, total: float | None = None, **fields: Any) -> int:
        """Begin to count something, and return its number."""
        with self._lock:
            self._tasks.append({"description": description, "total": total, "completed": 0, **fields})
            if self._bar is not None:
                self._bar.add_task(**self._tasks[-1])
            return len(self._tasks) - 1

    def update(self, task: int, **changes: Any) -> None:
        """Say how far it is: `completed`, `total`, and fields of the display."""
        if not self._is_shown:
            return
        with self._lock:
            self._tasks[task] |= changes
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[task], **changes)
            elif time.monotonic() >= self._due:
                self._begin()

    def _begin(self) -> None:
        self._bar = self._make()
        for task in self._tasks:
            self._bar.add_task(**task)
        self._bar.start()


def bytes_progress() -> LateProgress:
    """Return a bar for work counted in bytes."""
    return LateProgress(_bytes_bar)


def count_progress() -> LateProgress:
    """Return a counter for work whose end is not known; its tasks have a field `rate`."""
    return LateProgress(count_bar)


def count_bar() -> Progress:
    """Return the display of `count_progress`; on anything but a terminal it shows nothing."""
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from ds.output import errors

    console = errors()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description} {task.completed:,.0f}"),
        TextColumn("{task.fields[rate]}"),
        console=console,
        disable=not console.is_terminal,
    )


def _bytes_bar() -> Progress:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from ds.output import errors

    console = errors()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
