"""What can go wrong with a store, grouped by what a caller would do about it.

SourceError
├── SourceConfigError       (ValueError)         the URI or its options are wrong: fix the input
├── SourceAuthError         (PermissionError)    the store refuses these credentials
├── SourceNotFoundError     (FileNotFoundError)  no such bucket, directory or object
├── SourceChangedError                           the object is no longer the one that was pinned
├── SourceUnavailableError  (ConnectionError)    network, throttling, time-out: try again later
├── SourceFullError         (OSError)            the store has no room left
├── SwapLostError                                another writer won the compare-and-swap
└── UnsafeSwapError                              the store does not heed the conditions of writes: use another one
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class SourceError(Exception):
    """Base of every error of this package."""

    kind = "source"


class SourceConfigError(SourceError, ValueError):
    """The URI or its options cannot name a store; nothing was contacted."""

    kind = "source_config"


class SourceAuthError(SourceError, PermissionError):
    """The store answered that these credentials may not do this."""

    kind = "source_auth"


class SourceNotFoundError(SourceError, FileNotFoundError):
    """The store answers, the bucket, directory or object is not there."""

    kind = "source_not_found"

    def __init__(self, uri: str, what: str = "object") -> None:
        """Name the missing `what` ("object", "bucket", "directory") at `uri`."""
        super().__init__(f"no such {what}: {uri}")
        self.uri = uri
        self.what = what

    def __str__(self) -> str:
        return f"no such {self.what}: {self.uri}"


class SourceChangedError(SourceError):
    """The object exists with another version than the one pinned; no byte of it was returned."""

    kind = "source_changed"

    def __init__(self, uri: str, *, expected: str, found: str) -> None:
        """Carry the URI, the pinned version and the version found ("gone" when it was deleted)."""
        super().__init__(f"{uri} changed at its source: expected {expected}, found {found}")
        self.uri = uri
        self.expected = expected
        self.found = found


class SourceUnavailableError(SourceError, ConnectionError):
    """The store could not be reached, throttles, or its answer broke off; the same call may succeed later."""

    kind = "source_unavailable"

    def __init__(
        self,
        message: str,
        *,
        throttled: bool = False,
        retry_after: float | None = None,
        received: int = 0,
        retryable: bool = True,
    ) -> None:
        """Carry what a caller that tries again needs to know.

        Args:
            message: What, where, and what to do next.
            throttled: The store asks for fewer requests.
            retry_after: For how many seconds, if the store said so.
            received: How many bytes of the caller's buffer were filled before the answer broke off.
            retryable: False where asking again cannot help, such as an object shorter than was asked for.
        """
        super().__init__(message)
        self.throttled = throttled
        self.retry_after = retry_after
        self.received = received
        self.retryable = retryable


class SourceFullError(SourceError, OSError):
    """The store has no room for the write; what was there before is untouched."""

    kind = "source_full"


class SwapLostError(SourceError):
    """The key does not hold the expected version: another writer was first. Nothing was written."""

    kind = "swap_lost"

    def __init__(self, uri: str, *, expected: str | None) -> None:
        """Carry the URI and the version that was expected there (None: that nothing is there)."""
        super().__init__(f"{uri} is not at {expected or 'absent'} any more: another writer was first")
        self.uri = uri
        self.expected = expected


class UnsafeSwapError(SourceError):
    """The store takes conditional writes and does not heed their conditions: refs in it would be lost."""

    kind = "unsafe_swap"

    def __init__(self, uri: str, *, broken: tuple[str, ...]) -> None:
        """Carry the URI that was probed, and what did not hold."""
        super().__init__(f"{uri} cannot hold a repository: {'; '.join(broken)}; keep the repository in another store")
        self.uri = uri
        self.broken = broken


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came of, at most ten: a library's own error is often the last of several."""
    link: BaseException | None = error
    for _ in range(10):
        if link is None:
            return
        yield link
        link = link.__cause__ or link.__context__
