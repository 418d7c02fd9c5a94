"""The time of a file system, to tell whether a file may have changed in the tick in which it was looked at."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from types import TracebackType

_TICK_SECONDS = 0.001
_WAIT_SECONDS = 0.05  # a tick of a local disk is 1 to 10 ms; files of a coarser one are hashed again by the next look


class Clock(Protocol):
    """Tells the time in the ticks of the file system."""

    def now(self) -> int:
        """Return nanoseconds since 1970, as a file that is written now would get them."""
        ...


class FileClock:
    """Asks the file system itself: a server's clock may differ from ours, and its ticks are coarse.

    Args:
        path: A file on it that may be touched; created if it is missing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def __enter__(self) -> FileClock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def now(self) -> int:
        """See `Clock.now`."""
        os.utime(self._fd)
        return os.fstat(self._fd).st_mtime_ns


class NoClock:
    """Knows no time, where nothing can be written: nothing is known to be settled then."""

    def __enter__(self) -> NoClock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def now(self) -> int:
        """See `Clock.now`."""
        return 0


def next_tick(clock: Clock) -> int:
    """Wait until what is written gets a later time than what was written so far, and return the time.

    Gives up after 50 ms: the caller compares.
    """
    before = now = clock.now()
    deadline = time.monotonic() + _WAIT_SECONDS
    while now <= before and time.monotonic() < deadline:
        time.sleep(_TICK_SECONDS)
        now = clock.now()
    return now
