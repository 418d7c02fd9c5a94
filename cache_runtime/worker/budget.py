"""Memory promised to answers: refused at once beyond the limit, never queued for."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cache_runtime.errors import WorkerBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Budget:
    """Bytes in flight; used by the event loop's thread only.

    Attributes:
        used_bytes: Promised now.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.used_bytes = 0

    def has_room(self, size: int) -> bool:
        """Say whether bytes would be promised now."""
        return not self.used_bytes or self.used_bytes + size <= self._limit_bytes

    @contextmanager
    def holding_at_any_rate(self, size: int) -> Iterator[None]:
        """Count bytes that are there already for the time of the block; what comes next may be refused for them."""
        self.used_bytes += size
        try:
            yield
        finally:
            self.used_bytes -= size

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Promise bytes for the time of the block.

        One answer is always let in when there is no other: a limit below its size would refuse it for ever.

        Raises:
            WorkerBusyError: If they are over the limit.
        """
        if not self.has_room(size):
            raise WorkerBusyError("too many bytes are in flight; ask again in a second, or another worker")
        with self.holding_at_any_rate(size):
            yield
