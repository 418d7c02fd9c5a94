"""Small files of an S3 server that many readers miss at the same time."""

from __future__ import annotations

import errno
import os
import secrets
from typing import TYPE_CHECKING

import pytest

from cache_runtime import BlockStore, Client
from cache_runtime.mount import gathering
from cache_runtime.mount.counters import Counters
from cache_runtime.mount.gathering import Gathering, Read
from cache_runtime.mount.waiting import Waiting
from sources import Location, ObjectRef, Origins, open_store
from tests.cache_runtime.mount.mounted import until
from tests.cache_runtime.mount.test_ways_and_walks import QuietKernel
from tests.cache_runtime.objects import CAPACITY
from tests.conftest import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from typing_extensions import Buffer

    from cache_runtime.fetching import Taker
    from cache_runtime.store.shares import Share
    from tests.services.weed import S3Server


class Answers(QuietKernel):
    """A kernel that keeps its answers."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[int, bytes] = {}
        self.errors: dict[int, int] = {}

    def reply(self, unique: int, *parts: Buffer) -> bool:
        assert unique not in self.bytes
        self.bytes[unique] = b"".join(bytes(part) for part in parts)
        return True

    def fail(self, unique: int, number: int) -> None:
        self.errors[unique] = number


class CountingClient(Client):
    """Keeps how many objects were fetched at a time."""

    def fetch_each(self, refs: Sequence[ObjectRef], taker: Taker, *, share: Share | None = None) -> None:
        self.__dict__.setdefault("groups", []).append(len(refs))
        super().fetch_each(refs, taker, share=share)


class Desk:
    """Reads of a mount without a mount."""

    def __init__(self, client: CountingClient) -> None:
        self.client = client
        self.kernel = Answers()
        self.counters = Counters()
        self.waiting = Waiting(self.kernel, self.counters, threads=4, seconds=30)
        self.gathering = Gathering(client, self.waiting)

    def ask(self, unique: int, location: Location) -> None:
        self.gathering.submit(Read(unique, f"path=/{unique}", location))

    def wait_for(self, count: int) -> None:
        until(lambda: len(self.kernel.bytes) + len(self.kernel.errors) == count)


class Lake:
    """Small objects in S3."""

    def __init__(self, server: S3Server) -> None:
        self.store = open_store(f"s3://{BUCKET}/", server.options)
        self.prefix = f"gathering/{secrets.token_hex(4)}/"
        self.origins = Origins()
        self.origins.add(self.prefix, self.store)

    def add(self, name: str, data: bytes) -> ObjectRef:
        key = self.prefix + name
        self.store.put(key, data)
        stat = self.store.stat(key)
        return ObjectRef(self.store.id, key, stat.version, len(data))


@pytest.fixture
def lake(s3: S3Server) -> Lake:
    return Lake(s3)


@pytest.fixture
def desk(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(gathering, "_GATHER_SECONDS", 0.3)  # so that what is asked for in a test comes together
    desk = Desk(CountingClient(lake.origins, BlockStore.open(tmp_path / "cache", capacity_bytes=CAPACITY)))
    yield desk
    desk.waiting.close()
    desk.client.close()


def test_those_who_come_together_are_answered_from_one_fetch(desk: Desk, lake: Lake) -> None:
    data = [os.urandom(1 + 501 * number) for number in range(40)]
    refs = [lake.add(f"{number}", each) for number, each in enumerate(data)]
    for number, ref in enumerate(refs):
        desk.ask(number, Location(ref, 0, ref.size))
    desk.ask(100, Location(refs[7], 100, 300))
    desk.wait_for(41)
    assert desk.kernel.bytes == {**dict(enumerate(data)), 100: data[7][100:400]}
    groups = desk.client.__dict__["groups"]
    assert (len(groups) <= 2, sum(groups)) == (True, 40)  # the first one did not wait for others
    assert (desk.client.stats.reads_origin, desk.counters.reads_waited) == (40, 41)
    until(lambda: all(desk.client.find(Location(ref, 0, ref.size)) is not None for ref in refs))


def test_what_is_here_or_fetched_by_another_thread_is_not_fetched_again(desk: Desk, lake: Lake) -> None:
    here, other = lake.add("here", b"here"), lake.add("other", b"other")
    desk.client.read(Location(here, 0, 4))
    desk.ask(1, Location(other, 0, 5))
    for unique, ref in ((2, here), (3, other)):
        desk.ask(unique, Location(ref, 0, ref.size))
    desk.wait_for(3)
    assert desk.kernel.bytes == {1: b"other", 2: b"here", 3: b"other"}
    assert desk.client.stats.reads_origin == 2


def test_one_that_has_changed_fails_alone(desk: Desk, lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    refs = [lake.add(f"{number}", b"before%d" % number) for number in range(5)]
    lake.add("3", b"after-3")
    for number, ref in enumerate(refs):
        desk.ask(number, Location(ref, 0, ref.size))
    desk.wait_for(5)
    assert desk.kernel.errors == {3: errno.EIO}
    assert desk.kernel.bytes == {number: b"before%d" % number for number in (0, 1, 2, 4)}
    assert "path=/3 times=1 reason=the source changed since the commit" in caplog.text


def test_who_was_interrupted_gets_nothing_and_the_others_all(desk: Desk, lake: Lake) -> None:
    refs = [lake.add(f"{number}", b"%d" % number) for number in range(3)]
    for number, ref in enumerate(refs):
        desk.ask(number, Location(ref, 0, 1))
    desk.waiting.interrupt(2)
    desk.wait_for(3)
    assert (desk.kernel.bytes, desk.kernel.errors) == ({0: b"0", 1: b"1"}, {2: errno.EINTR})


def test_a_disk_that_fails_costs_nobody_an_answer(desk: Desk, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.EIO, "broken disk")

    assert desk.client.store is not None
    monkeypatch.setattr(desk.client.store, "missing_among", fail)
    refs = [lake.add(f"{number}", b"%d" % number) for number in range(3)]
    for number, ref in enumerate(refs):
        desk.ask(number, Location(ref, 0, 1))
    desk.wait_for(3)
    assert desk.kernel.errors == dict.fromkeys(range(3), errno.EIO)
