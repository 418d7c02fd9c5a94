"""When a server that died is started again: soon, then less and less soon, and not for ever. Pure."""

from __future__ import annotations

from collections import deque

_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 10.0
_DEATHS = 10
_WITHIN_SECONDS = 600.0


class Restarts:
    """Counts deaths.

    Args:
        deaths: How many are too many.
        within_seconds: Of what time; who lived longer begins anew.
    """

    def __init__(self, *, deaths: int = _DEATHS, within_seconds: float = _WITHIN_SECONDS) -> None:
        self._most = deaths
        self._within = within_seconds
        self._deaths: deque[float] = deque()

    def delay_after(self, now: float) -> float | None:
        """Note a death, and say how many seconds to wait before the next start; None: no more.

        Args:
            now: Monotonic seconds.
        """
        self._deaths.append(now)
        while now - self._deaths[0] > self._within:
            self._deaths.popleft()
        if len(self._deaths) >= self._most:
            return None
        return min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** (len(self._deaths) - 1))
