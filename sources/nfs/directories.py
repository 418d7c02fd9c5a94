"""Handles of directories that were looked up a moment ago."""

from __future__ import annotations

import time

_KEPT_SECONDS = 3.0
"""As long as a kernel's client keeps attributes at least; many small files are read from a directory meanwhile."""
_MOST = 4096


class Directories:
    """Where paths of directories led to. Only for reads that check what they find: a path may lead elsewhere by now.

    Thread-safe: every step is one operation of a dict.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, bytes]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, path: str) -> bytes | None:
        """Return the handle of a directory if it was looked up within the last seconds."""
        found = self._known.get(path)
        return found[1] if found is not None and time.monotonic() < found[0] else None

    def keep(self, path: str, handle: bytes) -> None:
        """Note where a path leads to now."""
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[path] = time.monotonic() + _KEPT_SECONDS, handle
