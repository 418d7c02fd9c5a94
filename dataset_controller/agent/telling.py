"""Tells statuses: what changed soon, the same object not too often, and nothing twice."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from dataset_controller.operator.queueing import Key, WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)
_SPACING_SECONDS = 2.0
_FRESH_SECONDS = 0.5
"""So much time of the API server for one object: of a thousand each tells that nothing changed every 500 s."""
_FRESH_AT_LEAST = 10.0
_TAKE_SECONDS = 1.0


class TellsStatus(Protocol):
    """Tells a status to whoever wants to know; see `ClusterApi.apply_status`."""

    def tell(self, key: Key, status: dict[str, Any]) -> None:
        """Tell it; an error means: try it again."""


class Teller:
    """What is to be told of each object, by parts that come from different places. Any number of threads.

    Args:
        target: Whom to tell.
        clock: Seconds that only grow.
    """

    def __init__(self, target: TellsStatus, clock: Callable[[], float] = time.monotonic) -> None:
        self._target = target
        self._clock = clock
        self._queue = WorkQueue(clock)
        self._lock = threading.Lock()
        self._parts: dict[Key, dict[str, dict[str, Any]]] = {}
        self._told: dict[Key, tuple[float, dict[str, Any]]] = {}

    def begin(self, key: Key, parts: Mapping[str, dict[str, Any]]) -> None:
        """Take over what was told of an object by another process; nothing is told."""
        with self._lock:
            if key not in self._parts:
                self._parts[key] = dict(parts)
                self._told[key] = (float("-inf"), _joined(self._parts[key]))

    def forget(self, key: Key) -> None:
        """Forget an object that is gone."""
        with self._lock:
            self._parts.pop(key, None)
            self._told.pop(key, None)

    def note(self, key: Key, part: str, fields: dict[str, Any]) -> None:
        """Let a part of an object's status be this."""
        with self._lock:
            if key not in self._parts:
                return
            self._parts[key][part] = fields
            at, told = self._told[key]
            wait = self._wait(at, told, _joined(self._parts[key]))
        if wait is not None:
            self._queue.add(key, wait)

    def known(self, key: Key) -> dict[str, Any]:
        """Return an object's status as it is to be told."""
        with self._lock:
            return _joined(self._parts.get(key, {}))

    def _wait(self, at: float, told: dict[str, Any], wanted: dict[str, Any]) -> float | None:
        """Return in how many seconds to tell; None if there is nothing to tell."""
        if wanted == told:
            return None
        # that the sources were looked at again is no news, but should not look like days ago
        is_news = {**wanted, "lastSyncTime": None} != {**told, "lastSyncTime": None}
        seconds = _SPACING_SECONDS if is_news else max(_FRESH_AT_LEAST, _FRESH_SECONDS * len(self._parts))
        return max(0.0, at + seconds - self._clock())

    def work(self) -> None:
        """Tell of one object, if one is due within a second."""
        key = self._queue.take(_TAKE_SECONDS)
        if key is None:
            return
        with self._lock:
            status = _joined(self._parts.get(key, {}))
            is_told = key not in self._told or status == self._told[key][1]
        if is_told:  # or it is gone, or it is again as it was told
            self._queue.done(key)
            return
        try:
            self._target.tell(key, status)
        except Exception as error:  # noqa: BLE001 - whatever happens to one, the others are told
            seconds = self._queue.failed(key)
            _log.warning(
                "status not told object=%s/%s again_in=%.1fs reason=%s", key.kind, key.name, seconds, _reason(error)
            )
            return
        with self._lock:
            if key in self._parts:
                self._told[key] = (self._clock(), status)
        self._queue.done(key)
        with self._lock:  # it may have become another one meanwhile
            later = self._wait(*self._told[key], _joined(self._parts[key])) if key in self._parts else None
        if later is not None:
            self._queue.add(key, later)

    def close(self) -> None:
        """Let nobody wait any more."""
        self._queue.close()


def _joined(parts: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: value for fields in parts.values() for name, value in fields.items()}


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)[:200]
