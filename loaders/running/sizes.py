"""How large batches are, and how many of them may be begun."""

from __future__ import annotations

from typing import Any

_ALWAYS = 16  # so many batches are measured at first, then one in so many


class ByteBudget:
    """Bounds the bytes of the batches that wait, by the largest one that was seen. Its races do no harm.

    Args:
        limit_bytes: Of all of them; one batch is always allowed.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.largest = 0
        self._seen = 0

    def measure(self, batch: Any) -> None:
        """Look at a batch that was made."""
        self._seen += 1
        if self._seen <= _ALWAYS or self._seen % _ALWAYS == 0:
            self.largest = max(self.largest, batch_bytes(batch))

    def allows(self, count: int) -> bool:
        """Return whether so many batches fit."""
        return count <= 1 or count * self.largest <= self.limit_bytes


def batch_bytes(batch: Any) -> int:
    """Return about how many bytes a batch takes: those of its arrays, tensors and strings."""
    size = getattr(batch, "nbytes", None)
    if isinstance(size, int):
        return size
    if isinstance(batch, dict):
        return sum(map(batch_bytes, batch.values()))
    if isinstance(batch, (list, tuple)):
        return sum(map(batch_bytes, batch))
    return len(batch) if isinstance(batch, (bytes, bytearray, str)) else 32
