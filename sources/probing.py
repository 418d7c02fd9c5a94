"""Finding out whether a store's conditional writes can be trusted with refs."""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sources.errors import SwapLostError, UnsafeSwapError
from sources.locations import join_uri

if TYPE_CHECKING:
    from sources.locations import Version
    from sources.stores import RepositoryStore

_WRITERS = 4
_ROUNDS = 3
_WAIT_SECONDS = 120  # longer than a store's own retries


@dataclass(frozen=True)
class SwapReport:
    """What a probe found.

    Attributes:
        uri: Where it wrote.
        broken: The conditions that do not hold, in people's words; empty if the store may hold a repository.
    """

    uri: str
    broken: tuple[str, ...]

    @property
    def is_safe(self) -> bool:
        """Whether every condition was heeded."""
        return not self.broken

    def require_safe(self) -> None:
        """Refuse a store that is not safe.

        Raises:
            UnsafeSwapError: Naming what did not hold.
        """
        if self.broken:
            raise UnsafeSwapError(self.uri, broken=self.broken)


def probe_swaps(store: RepositoryStore, prefix: str) -> SwapReport:
    """Write to a key of its own below `prefix` under conditions that hold and that do not, and delete the key.

    First one writer at a time (create over what is there, replace what is not there any more), then several racing
    ones (create, then replace, a few rounds). About 25 requests.

    Args:
        store: Its swaps must be single attempts, or retries that read back.
        prefix: "" or ending in "/".

    Raises:
        SourceError: If the store cannot be read or written at all; nothing is known then.
    """
    key = f"{prefix}probe-{secrets.token_hex(8)}"
    broken: list[str] = []
    try:
        if not _wins(store, key, b"first", expect=None):
            return SwapReport(join_uri(store.id, prefix), ("a create-only write of a new key was refused",))
        _probe_stale_writers(store, key, broken)
        store.delete(key)
        with ThreadPoolExecutor(_WRITERS, "forebay-probe") as pool:
            expect: Version | None = None
            for number in range(_ROUNDS):
                expect = _race(store, key, expect, pool=pool, number=number, broken=broken)
    finally:
        store.delete(key)
    return SwapReport(join_uri(store.id, prefix), tuple(dict.fromkeys(broken)))


def _probe_stale_writers(store: RepositoryStore, key: str, broken: list[str]) -> None:
    _, first = store.fetch(key)
    if _wins(store, key, b"created twice", expect=None):
        broken.append("a create-only write replaced an object (If-None-Match: * is ignored)")
    found, current = store.fetch(key)
    if found != b"first":  # the condition above was ignored: go on from what is there
        first = current
    if not _wins(store, key, b"second", expect=first):
        broken.append("a write that expected the version that is there was refused")
    if _wins(store, key, b"stale", expect=first):
        broken.append("a write replaced another version than the one it expected (If-Match is ignored)")
    store.delete(key)
    if _wins(store, key, b"absent", expect=first):
        broken.append("a write that expected a version created an object (If-Match is ignored where nothing is)")


def _wins(store: RepositoryStore, key: str, data: bytes, *, expect: Version | None) -> bool:
    try:
        store.swap(key, data, expect=expect)
    except SwapLostError:
        return False
    return True


def _race(  # one round
    store: RepositoryStore,
    key: str,
    expect: Version | None,
    *,
    pool: ThreadPoolExecutor,
    number: int,
    broken: list[str],
) -> Version:
    """Let several writers race for one swap; return the version that is there afterwards."""
    barrier = threading.Barrier(_WRITERS, timeout=_WAIT_SECONDS)

    def write(data: bytes) -> bool:
        barrier.wait()
        return _wins(store, key, data, expect=expect)

    contents = [f"round {number} writer {writer}".encode() for writer in range(_WRITERS)]
    running = [pool.submit(write, content) for content in contents]
    won = [future.result(_WAIT_SECONDS) for future in running]
    winners = [content for content, is_winner in zip(contents, won, strict=True) if is_winner]
    what = "create" if expect is None else "replace"
    if len(winners) != 1:
        broken.append(f"{len(winners)} of {_WRITERS} racing writers won the same {what}")
    found, version = store.fetch(key)
    if winners and found not in winners:
        broken.append(f"what a writer left that lost a {what} is what stayed")
    return version
