"""Origins that are down: a load ends soon, rather than each object's patience later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sources import SourceAuthError, SourceUnavailableError

if TYPE_CHECKING:
    from sources import ObjectRef

_DOWN_AFTER = 8  # failures in a row, of as many objects


class Outages:
    """Which origins gave nothing but failures lately, so that a load stops asking them. For any number of threads."""

    def __init__(self) -> None:
        self._in_a_row: dict[str, int] = {}
        self._down: dict[str, str] = {}

    def reason(self, ref: ObjectRef) -> str | None:
        """Return why an object's origin is not asked any more; None while it is."""
        return self._down.get(ref.store) if self._down else None

    def note_success(self, ref: ObjectRef) -> None:
        """Note an answer."""
        if self._in_a_row:
            self._in_a_row.pop(ref.store, None)

    def note_failure(self, ref: ObjectRef, error: Exception) -> None:
        """Note a failure; those that are the object's own do not count."""
        if isinstance(error, SourceUnavailableError | SourceAuthError):
            count = self._in_a_row[ref.store] = self._in_a_row.get(ref.store, 0) + 1
            if count >= _DOWN_AFTER:
                self._down[ref.store] = str(error)
