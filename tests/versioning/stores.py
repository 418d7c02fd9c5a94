"""Stores for tests: one in memory, and one that fails when told to."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from blake3 import blake3

from sources import (
    ObjectStat,
    SourceNotFoundError,
    SourceUnavailableError,
    StoreId,
    SwapLostError,
    Version,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from sources import RepositoryStore


class MemoryStore:
    """A RepositoryStore in a dictionary: quick enough for thousands of Hypothesis steps."""

    def __init__(self) -> None:
        self.id = StoreId("memory://test")
        self.objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        return iter([self.stat(key) for key in sorted(self.objects) if key.startswith(prefix)])

    def stat(self, key: str) -> ObjectStat:
        data, version = self.fetch(key)
        return ObjectStat(key, len(data), version)

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> bytes:
        del version
        return self.fetch(key)[0][start : start + length]

    def put(self, key: str, data: Buffer) -> None:
        self.objects[key] = bytes(data)

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def fetch(self, key: str) -> tuple[bytes, Version]:
        try:
            data = self.objects[key]
        except KeyError:
            raise SourceNotFoundError(f"memory://test/{key}") from None
        return data, _version(data)

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        with self._lock:
            found = self.objects.get(key)
            if (None if found is None else _version(found)) != expect:
                raise SwapLostError(f"memory://test/{key}", expected=expect)
            self.objects[key] = data
        return _version(data)


class FailingStore:
    """Passes everything on to a store, until the k-th write, which fails; after that (unless `once`) nothing works.

    Args:
        inner: The store.
        after_effect: The failing write takes effect, only its answer is lost.
        once: Later requests work again.
    """

    def __init__(self, inner: RepositoryStore, *, after_effect: bool = False, once: bool = False) -> None:
        self.inner = inner
        self.id = inner.id
        self.fail_at: int | None = None
        self.writes = 0
        self.only_swaps = False
        self._after_effect = after_effect
        self._once = once
        self._dead = False
        self._lock = threading.Lock()

    def arm(self, write: int | None, *, only_swaps: bool = False) -> None:
        """Let the `write`-th write from now on fail (1: the next); None: none."""
        self.writes, self.fail_at, self.only_swaps, self._dead = 0, write, only_swaps, False

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        self._check()
        return self.inner.list(prefix)

    def stat(self, key: str) -> ObjectStat:
        self._check()
        return self.inner.stat(key)

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        self._check()
        return self.inner.read(key, start=start, length=length, version=version)

    def fetch(self, key: str) -> tuple[bytes, Version]:
        self._check()
        return self.inner.fetch(key)

    def put(self, key: str, data: Buffer) -> None:
        failing = self._count(swap=False)
        if not failing or self._after_effect:
            self.inner.put(key, data)
        self._fail(failing)

    def delete(self, key: str) -> None:
        self._check()
        self.inner.delete(key)

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        failing = self._count(swap=True)
        if failing and not self._after_effect:
            self._fail(failing)
        try:
            return self.inner.swap(key, data, expect=expect)
        finally:
            self._fail(failing)

    def _count(self, *, swap: bool) -> bool:
        self._check()
        with self._lock:
            if self.only_swaps and not swap:
                return False
            self.writes += 1
            return self.writes == self.fail_at

    def _fail(self, failing: bool) -> None:
        if failing:
            self._dead = not self._once
            raise SourceUnavailableError("injected: no answer")

    def _check(self) -> None:
        if self._dead:
            raise SourceUnavailableError("injected: the store is gone")


def _version(data: bytes) -> Version:
    return Version(f"oid:{blake3(data).hexdigest()}")
