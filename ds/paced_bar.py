"""How work on many bytes shows that it goes on: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from ds.output import errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

_LINE_SECONDS = 10.0


class PacedBar:
    """Shows on stderr how far something is; use it in a `with` block.

    Args:
        what: What is done: "loading".
        total: Bytes, if they are known.
    """

    def __init__(self, what: str, *, total: int | None = None) -> None:
        self._what = what
        self._console = errors()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[pace]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=total, pace="")
        self._next_line = time.monotonic() + _LINE_SECONDS

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, *, completed: int, total: int, pace: str, line: Callable[[], str], step: str = "") -> None:
        """Show how far it is.

        Args:
            completed: Bytes.
            total: Bytes.
            pace: Rate and time left.
            line: Writes it all for what is no terminal.
            step: What it is at.
        """
        if self._console.is_terminal:
            text = f"{self._what}, {step}" if step else self._what
            self._bar.update(self._task, description=text, completed=completed, total=total, pace=pace)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_SECONDS
            self._console.print(f"{self._what}: {line()}", markup=False)
