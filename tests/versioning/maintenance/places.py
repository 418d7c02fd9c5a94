"""A store with a clock of its own, faults at any request, and repositories in it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sources import ObjectStat, SourceUnavailableError
from tests.versioning.samples import TINY
from tests.versioning.stores import MemoryStore
from versioning import PackWriter, Repository, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from sources import Version
    from versioning import Entry

DAY = 86_400
QUICK = RetryPolicy(deadline_seconds=5, first_seconds=0.001, cap_seconds=0.001)


class Clock:
    """A time that passes when told to, and a microsecond at each look, so that no two times are equal."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        with self._lock:
            self.now += timedelta(microseconds=1)
            return self.now

    def nanoseconds(self) -> int:
        return int(self().timestamp() * 1e6) * 1000

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class CrashError(SourceUnavailableError):
    """The process has died here."""


class ClockedStore(MemoryStore):
    """Tells when objects were written.

    Attributes:
        before: Called before each request with its number, method and key; may raise, or use the store itself.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.times: dict[str, int] = {}
        self.before: Callable[[int, str, str], None] | None = None
        self.after: Callable[[int, str, str], None] | None = None
        self.requests = 0
        self.calls: list[tuple[str, str]] = []
        self._counting = threading.Lock()

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        number = self._begin("list", prefix)
        found = [self._stat(key) for key in sorted(self.objects) if key.startswith(prefix)]
        self._end(number, "list", prefix)
        return iter(found)

    def stat(self, key: str) -> ObjectStat:
        number = self._begin("stat", key)
        found = self._stat(key)
        self._end(number, "stat", key)
        return found

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> bytes:
        number = self._begin("read", key)
        found = super().fetch(key)[0][start : start + length]
        self._end(number, "read", key)
        return found

    def fetch(self, key: str) -> tuple[bytes, Version]:
        number = self._begin("fetch", key)
        found = super().fetch(key)
        self._end(number, "fetch", key)
        return found

    def put(self, key: str, data: Buffer) -> None:
        number = self._begin("put", key)
        self.times[key] = self.clock.nanoseconds()
        super().put(key, data)
        self._end(number, "put", key)

    def delete(self, key: str) -> None:
        number = self._begin("delete", key)
        super().delete(key)
        self._end(number, "delete", key)

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        number = self._begin("swap", key)
        with self._lock:
            pass
        version = super().swap(key, data, expect=expect)
        self.times[key] = self.clock.nanoseconds()
        self._end(number, "swap", key)
        return version

    def _stat(self, key: str) -> ObjectStat:
        data, version = MemoryStore.fetch(self, key)
        return ObjectStat(key, len(data), version, self.times[key])

    def _begin(self, method: str, key: str) -> int:
        with self._counting:
            self.requests += 1
            number = self.requests
            self.calls.append((method, key))
        if self.before is not None:
            self.before(number, method, key)
        return number

    def _end(self, number: int, method: str, key: str) -> None:
        if self.after is not None:
            self.after(number, method, key)

    def quiet(self) -> None:
        """Nothing happens at requests any more; count from 0."""
        self.before = self.after = None
        self.requests = 0
        self.calls = []

    def crash_at(self, number: int, *, after_effect: bool = False) -> None:
        """Let the process die at a request: nothing reaches the store afterwards."""
        self.quiet()

        def die_before(at: int, method: str, key: str) -> None:
            if at > number or (at == number and not after_effect):
                raise CrashError(f"dead at {number}: {method} {key}")

        def die_after(at: int, method: str, key: str) -> None:
            if at == number:
                raise CrashError(f"dead after {number}: {method} {key}")

        self.before, self.after = die_before, die_after if after_effect else None


def make_repository(store: ClockedStore) -> Repository:
    """Create a repository and forget what that asked of the store."""
    Repository.init(store, "repo/", spec=TINY)
    store.quiet()
    return reopened(store)


def reopened(store: ClockedStore) -> Repository:
    """The repository as another process sees it."""
    return Repository(store, "repo/", TINY, clock=store.clock, retry=QUICK)


def packed(repository: Repository, files: dict[str, bytes]) -> list[Entry]:
    """Upload files in one pack."""
    with PackWriter(repository) as writer:
        members = [(path, writer.add(path, data)) for path, data in sorted(files.items())]
        packs = writer.finish()
    return [packs.entry(path, member) for path, member in members]
