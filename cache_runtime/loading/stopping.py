"""Ending a load before its end: a deadline, an event of the caller, an error elsewhere."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from cache_runtime.loading.progress import LoadStop

if TYPE_CHECKING:
    from sources import ObjectRef

_REASONS = {LoadStop.CANCELLED: "the load was cancelled", LoadStop.DEADLINE: "its deadline came first"}


def tell_stop(ref: ObjectRef, stop: LoadStop) -> str:
    """Return for people why an object was not fetched."""
    return f"{ref.uri}: not fetched, {_REASONS[stop]}; load again"


class Stopper:
    """Tells all threads of a load when to end.

    Args:
        deadline_seconds: From now on; None: no deadline.
        cancel: Set by the caller; None: never.
    """

    def __init__(self, *, deadline_seconds: float | None = None, cancel: threading.Event | None = None) -> None:
        self._deadline = None if deadline_seconds is None else time.monotonic() + deadline_seconds
        self._cancel = cancel
        self._halted = threading.Event()

    @property
    def reason(self) -> LoadStop | None:
        """Why the load ends, None while it goes on."""
        if self._halted.is_set() or (self._cancel is not None and self._cancel.is_set()):
            return LoadStop.CANCELLED
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return LoadStop.DEADLINE
        return None

    @property
    def left_seconds(self) -> float | None:
        """Until the deadline, at least a tenth of a second; None without one."""
        return None if self._deadline is None else max(0.1, self._deadline - time.monotonic())

    def halt(self) -> None:
        """End it from inside."""
        self._halted.set()

    def pause(self, seconds: float) -> None:
        """Wait so long, or less where the load is halted or its deadline comes first."""
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - time.monotonic())
        if seconds > 0:
            self._halted.wait(seconds)
