"""How a pack shows that it goes on: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from ds.durations import human_seconds
from ds.output import errors, human_bytes, plural

if TYPE_CHECKING:
    from types import TracebackType

    from loaders import PackProgress

_LINE_SECONDS = 10.0


class PackDisplay:
    """Shows the progress of one pack on stderr; use it in a `with` block."""

    def __init__(self) -> None:
        self._console = errors()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[pace]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("packing", pace="")
        self._next_line = time.monotonic() + _LINE_SECONDS

    def __enter__(self) -> PackDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, now: PackProgress) -> None:
        """Show how far it is."""
        if self._console.is_terminal:
            text = f"packing, shard {now.shards:,} of {now.total_shards:,}"
            done, total = now.done_bytes, now.total_bytes
            self._bar.update(self._task, description=text, completed=done, total=total, pace=describe_pace(now))
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_SECONDS
            self._console.print(f"packing: {describe_progress(now)}", markup=False)


def describe_progress(now: PackProgress) -> str:
    """Write one line about a pack: shards, bytes, pace, time left, what was skipped."""
    parts = [
        f"{now.shards:,} of {plural(now.total_shards, 'shard')}",
        f"{human_bytes(now.done_bytes)} of {human_bytes(now.total_bytes)}",
        describe_pace(now),
    ]
    if now.skipped:
        parts.append(f"{plural(now.skipped, 'input')} skipped")
    return ", ".join(part for part in parts if part)


def describe_pace(now: PackProgress) -> str:
    """Write rate and time left; "" before anything was stored."""
    if now.eta_seconds is None:
        return ""
    return f"{human_bytes(now.bytes_per_second)}/s, {human_seconds(now.eta_seconds)} left"
