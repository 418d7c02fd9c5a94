"""How a load shows that it goes on: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from ds.durations import human_seconds
from ds.output import errors, human_bytes

if TYPE_CHECKING:
    from types import TracebackType

    from cache_runtime import LoadProgress

_LINE_SECONDS = 10.0


class LoadDisplay:
    """Shows the progress of one load on stderr; use it in a `with` block.

    Args:
        total_bytes: Of the plan.
    """

    def __init__(self, total_bytes: int) -> None:
        self._console = errors()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[pace]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("loading", total=total_bytes, pace="")
        self._next_line = _LINE_SECONDS

    def __enter__(self) -> LoadDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, now: LoadProgress) -> None:
        """Show how far it is."""
        if self._console.is_terminal:
            self._bar.update(self._task, completed=now.bytes_done, pace=describe_pace(now))
        elif now.seconds >= self._next_line:
            self._next_line = now.seconds + _LINE_SECONDS
            self._console.print(f"loading: {describe_progress(now)}", markup=False)


def describe_progress(now: LoadProgress) -> str:
    """Write one line about a load: done, total, pace, time left, failures."""
    percent = 100 * now.bytes_done // now.bytes_total if now.bytes_total else 100
    parts = [f"{human_bytes(now.bytes_done)} of {human_bytes(now.bytes_total)} ({percent} %)", describe_pace(now)]
    if now.failed_objects:
        parts.append(f"{now.failed_objects:,} failed")
    return ", ".join(part for part in parts if part)


def describe_pace(now: LoadProgress) -> str:
    """Write the rate of the last seconds and the time left; "" before anything came."""
    if not now.bytes_per_second:
        return ""
    left = "" if now.eta_seconds is None else f", {human_seconds(now.eta_seconds)} left"
    return f"{human_bytes(now.bytes_per_second)}/s{left}"
