"""Small files that many readers miss at the same time, fetched together by one thread instead of one each."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.mount.waiting import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from cache_runtime.client import Client
    from cache_runtime.mount.waiting import Waiting
    from sources import Location, ObjectRef

_log = logging.getLogger(__name__)
_GATHER_SECONDS = 0.0005
"""How long a thread waits for others to join while another one is fetching: little beside a request to any origin."""


class Read(NamedTuple):
    """A read of a part of a small object.

    Attributes:
        unique: Number of the request.
        what: It in words, for the log.
        location: Its bytes.
    """

    unique: int
    what: str
    location: Location


class Gathering:
    """Fetches what is missing: at once for who is alone, in groups for those who come together.

    Args:
        client: Where the bytes are.
        waiting: Has the threads, and answers.
    """

    def __init__(self, client: Client, waiting: Waiting) -> None:
        self._client = client
        self._waiting = waiting
        self._lock = threading.Lock()
        self._gathered: list[Read] = []
        self._fetching = 0

    def submit(self, read: Read) -> None:
        """Answer a read soon, from another thread."""
        self._waiting.expect(read.unique, read.what)
        pause = self._join(read)
        if pause is not None:
            self._waiting.run(lambda: self._fetch_gathered(pause))

    def fetch(self, read: Read) -> None:
        """Answer a read that `Waiting` expects already, from this thread or from the one that it joins."""
        pause = self._join(read)
        if pause is not None:
            self._fetch_gathered(pause)

    def _join(self, read: Read) -> float | None:
        """Add a read; return how long its thread is to wait for others, None if one is on its way to take it."""
        with self._lock:
            self._gathered.append(read)
            if len(self._gathered) > 1:
                return None
            return _GATHER_SECONDS if self._fetching else 0.0

    def _fetch_gathered(self, pause: float) -> None:
        if pause:
            time.sleep(pause)
        with self._lock:
            reads, self._gathered = self._gathered, []
            self._fetching += 1
        try:
            self._fetch(reads)
        finally:
            with self._lock:
                self._fetching -= 1

    def _fetch(self, reads: Sequence[Read]) -> None:
        answers = _Answers(self._client, self._waiting, reads)
        try:
            self._client.fetch_each([*answers.refs.values()], answers)
        except Exception as error:  # noqa: BLE001 # each one alone is told what is the matter with it
            _log.warning("small files are fetched one by one files=%d reason=%r", len(reads), error)
        for read in answers.rest():
            self._read_alone(read)

    def _read_alone(self, read: Read) -> None:
        self._waiting.submit(Job(read.unique, read.what, lambda: (self._client.read(read.location),)))


class _Answers:
    """Answers each read as soon as its object is here; see `fetching.Taker`.

    Attributes:
        refs: The objects, by their ids.
    """

    def __init__(self, client: Client, waiting: Waiting, reads: Sequence[Read]) -> None:
        self.refs: dict[bytes, ObjectRef] = {}
        self._client = client
        self._waiting = waiting
        self._reads: dict[bytes, list[Read]] = {}
        for read in reads:
            if waiting.is_expected(read.unique):
                ref = read.location.object
                self.refs[ref.id] = ref
                self._reads.setdefault(ref.id, []).append(read)

    def found(self, ref: ObjectRef, data: Buffer | None) -> None:
        if data is None:
            return  # in the store, where `rest` finds it
        view = memoryview(data).cast("B")
        for read in self._reads.pop(ref.id):
            start = read.location.offset
            self._waiting.answer(read.unique, (view[start : start + read.location.length],))

    def failed(self, ref: ObjectRef, error: Exception) -> None:
        for read in self._reads.pop(ref.id):
            self._waiting.fail(read.unique, read.what, error)

    def is_set(self) -> bool:
        return False  # what nobody waits for any more is fetched on, for the next one who asks

    def rest(self) -> list[Read]:
        """Return the reads that have no answer."""
        return [read for reads in self._reads.values() for read in reads]
