"""Finding out whether a store's compare-and-swap can be trusted with refs."""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sources import SwapLostError
from versioning.errors import UnsafeStoreError

if TYPE_CHECKING:
    from sources import RepositoryStore, Version

_WRITERS = 2
_ROUNDS = 3
_WAIT_SECONDS = 120  # longer than a store's own retries


def probe_swap(store: RepositoryStore, prefix: str, *, uri: str) -> None:
    """Let two writers race to create a key and then to replace it, a few times, and delete the key.

    Raises:
        UnsafeStoreError: If not exactly one of them wins each race, or the loser's content is what stays.
        SourceError: If the store cannot be written to.
    """
    key = f"{prefix}probe-{secrets.token_hex(8)}"
    expect: Version | None = None
    try:
        with ThreadPoolExecutor(_WRITERS, "forebay-probe") as pool:
            for number in range(_ROUNDS):
                expect = _race(store, key, expect, pool=pool, number=number, uri=uri)
        _check_stale_writer(store, key, uri=uri)
    finally:
        store.delete(key)


def _race(
    store: RepositoryStore, key: str, expect: Version | None, *, pool: ThreadPoolExecutor, number: int, uri: str
) -> Version:
    """Run one race; return the version that the winner left."""
    barrier = threading.Barrier(_WRITERS, timeout=_WAIT_SECONDS)

    def write(data: bytes) -> Version | None:
        barrier.wait()
        try:
            return store.swap(key, data, expect=expect)
        except SwapLostError:
            return None

    contents = [f"round {number} writer {writer}".encode() for writer in range(_WRITERS)]
    running = [pool.submit(write, content) for content in contents]
    results = [future.result(_WAIT_SECONDS) for future in running]
    wins = [(content, version) for content, version in zip(contents, results, strict=True) if version is not None]
    if len(wins) != 1:
        raise UnsafeStoreError(uri, detail=f"{len(wins)} of {_WRITERS} racing writers won a compare-and-swap")
    found, version = store.fetch(key)
    if found != wins[0][0] or version != wins[0][1]:
        raise UnsafeStoreError(uri, detail="the content of a writer that lost a compare-and-swap stayed")
    return version


def _check_stale_writer(store: RepositoryStore, key: str, *, uri: str) -> None:
    """Check that a create-only write loses against what is there."""
    try:
        store.swap(key, b"stale", expect=None)
    except SwapLostError:
        return
    raise UnsafeStoreError(uri, detail="a create-only write replaced an object")
