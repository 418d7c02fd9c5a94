"""When to try again. Pure: reads no clock and draws no random number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sources.errors import SourceUnavailableError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Full jitter on an exponential base, until patience ends ("Exponential Backoff And Jitter", AWS, 2015).

    Attributes:
        base_seconds: Longest wait before the first retry; it doubles with each.
        cap_seconds: Longest wait before any.
        patience_seconds: For how long after the first failure a store that has answered before is tried again. A store
            is rarely down for longer than a minute, and a training job that dies of it costs more.
        first_contact_seconds: The same for one that has never answered: most likely its address is wrong.
    """

    base_seconds: float = 0.1
    cap_seconds: float = 5.0
    patience_seconds: float = 60.0
    first_contact_seconds: float = 3.0

    def delay(
        self, error: SourceUnavailableError, *, retries: int, waited: float, answered: bool, random: float
    ) -> float | None:
        """Return the seconds to wait before the next try, or None: give up.

        Args:
            error: Of the try before.
            retries: How many retries there were.
            waited: Seconds since the first failure.
            answered: The store has answered some request before.
            random: In [0, 1).
        """
        if not error.retryable:
            return None
        patience = self.patience_seconds if answered or error.throttled else self.first_contact_seconds
        ceiling = min(self.cap_seconds, self.base_seconds * 2.0 ** min(retries, 30))
        delay = max(ceiling * random, error.retry_after or 0.0)
        return delay if waited + delay <= patience else None
