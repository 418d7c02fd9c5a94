"""A real S3 server behind a proxy that breaks what passes: what `SteadyStore` makes of it."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from sources import Range, SourceChangedError, SourceUnavailableError, SteadyStore, Version, object_clients, open_store
from sources.reading import Limits, RetryPolicy
from sources.s3 import S3Store
from tests.conftest import BUCKET
from tests.services.faults import FaultProxy, Faults

if TYPE_CHECKING:
    from tests.services.weed import S3Server

MIB = 1 << 20
SIZE = 64 * MIB
KEY = "faults/large"
QUICK = RetryPolicy(base_seconds=0.01, cap_seconds=0.1, patience_seconds=8, first_contact_seconds=3)
TIMES_OUT_AFTER = 1


@pytest.fixture(scope="module")
def large(s3: S3Server) -> tuple[bytes, Version]:
    """A large object and its version."""
    data = random.Random(64).randbytes(SIZE)
    store = open_store(f"s3://{BUCKET}/", s3.options)
    store.put(KEY, data)
    return data, store.stat(KEY).version


@pytest.fixture
def store(s3: S3Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> SteadyStore:
    """The bucket through the proxy, with a budget of its own that has seen an answer."""
    monkeypatch.setattr(object_clients, "IDLE_SECONDS", TIMES_OUT_AFTER)
    opened = SteadyStore(S3Store(BUCKET, {**s3.options, "endpoint_url": proxy.url}), Limits(), policy=QUICK)
    opened.stat(KEY)
    proxy.counts.bytes_down = 0
    proxy.heads.clear()
    return opened


def ranges_asked(proxy: FaultProxy) -> list[tuple[int, int]]:
    """First and last byte of each request, in order."""
    texts = [head.headers["range"].removeprefix("bytes=") for head in proxy.heads if "range" in head.headers]
    return [(int(first), int(last)) for first, _, last in (text.partition("-") for text in texts)]


def digest(data: object) -> str:
    return hashlib.sha256(memoryview(data)).hexdigest()  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["reset", "truncate"])
def test_a_broken_body_is_resumed_at_its_byte_of_the_same_version(
    store: SteadyStore, proxy: FaultProxy, large: tuple[bytes, Version], fault: str
) -> None:
    data, version = large
    setattr(proxy.faults, f"{fault}_after", 3 * MIB + 7)
    setattr(proxy.faults, f"{fault}_times", 1)
    found = store.read(KEY, start=MIB, length=8 * MIB, version=version)
    assert digest(found) == digest(data[MIB : 9 * MIB])
    first, second = ranges_asked(proxy)
    assert first == (MIB, 9 * MIB - 1)
    assert second[1] == 9 * MIB - 1
    assert MIB < second[0] <= 4 * MIB + 7
    assert second[0] > 3 * MIB  # at most what obstore had not handed out yet is asked for again
    assert {head.headers["if-match"] for head in proxy.heads} == {version.removeprefix("etag:")}


def test_a_large_read_that_breaks_often_costs_little_more_than_its_bytes(
    store: SteadyStore, proxy: FaultProxy, large: tuple[bytes, Version]
) -> None:
    data, version = large
    proxy.faults = Faults(reset_after=5 * MIB, reset_times=6)
    found = store.read(KEY, start=0, length=SIZE, version=version)
    assert digest(found) == digest(data)
    assert proxy.counts.struck == 6
    assert proxy.counts.bytes_down < 1.15 * SIZE


def test_a_burst_of_503_slows_down_and_is_survived(
    store: SteadyStore, proxy: FaultProxy, large: tuple[bytes, Version]
) -> None:
    data, version = large
    proxy.faults = Faults(unavailable_times=40, unavailable_headers={"Content-Type": "application/xml"})
    proxy.faults.unavailable_body = b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>"
    begun = time.monotonic()
    places = [number * 200_000 for number in range(200)]
    found = store.read_many([Range(KEY, version, start, 1000) for start in places], max_gap_bytes=0)
    assert [bytes(one) for one in found] == [data[start : start + 1000] for start in places]
    assert proxy.counts.struck == 40
    assert proxy.counts.requests < 200 + 40 + 10  # each that was refused was asked again, and nothing else
    assert time.monotonic() - begun < 10
    assert store.budget.pace.window < store.limits.concurrency  # it slowed down, and comes back only bit by bit


def test_a_server_that_hangs_ends_in_an_error_and_in_time(
    store: SteadyStore, proxy: FaultProxy, large: tuple[bytes, Version]
) -> None:
    _, version = large
    proxy.faults.hang = True
    store._policy = RetryPolicy(base_seconds=0.01, cap_seconds=0.1, patience_seconds=1.5)
    begun = time.monotonic()
    with pytest.raises(SourceUnavailableError):
        store.read(KEY, start=0, length=10, version=version)
    assert TIMES_OUT_AFTER < time.monotonic() - begun < 3 * TIMES_OUT_AFTER + 3


def test_a_body_that_hangs_in_its_middle_is_given_up_and_resumed(
    store: SteadyStore, proxy: FaultProxy, large: tuple[bytes, Version]
) -> None:
    data, version = large
    proxy.faults.drip_bytes_per_second = 20 * MIB
    hang = threading.Thread(target=_hang_after, args=(proxy, 2 * MIB))
    hang.start()
    found = store.read(KEY, start=0, length=8 * MIB, version=version)
    hang.join()
    assert digest(found) == digest(data[: 8 * MIB])
    first, second = ranges_asked(proxy)
    assert first == (0, 8 * MIB - 1)
    assert MIB <= second[0] < 8 * MIB
    assert second[1] == first[1]


def _hang_after(proxy: FaultProxy, nbytes: int) -> None:
    while proxy.counts.bytes_down < nbytes:
        time.sleep(0.005)
    proxy.faults.hang = True
    before, until = proxy.counts.connections, time.monotonic() + 5 * TIMES_OUT_AFTER
    while proxy.counts.connections == before and time.monotonic() < until:  # until it is given up
        time.sleep(0.005)
    proxy.heal()


def test_a_slow_drip_is_waited_for_as_long_as_bytes_come(
    store: SteadyStore, proxy: FaultProxy, large: tuple[bytes, Version]
) -> None:
    data, version = large
    proxy.faults.drip_bytes_per_second = 1_000_000
    begun = time.monotonic()
    assert digest(store.read(KEY, start=0, length=2_500_000, version=version)) == digest(data[:2_500_000])
    assert time.monotonic() - begun > 2 * TIMES_OUT_AFTER
    assert len(ranges_asked(proxy)) == 1


def test_latency_is_paid_once_by_all_ranges_together(
    store: SteadyStore, proxy: FaultProxy, large: tuple[bytes, Version]
) -> None:
    data, version = large
    proxy.faults.latency_seconds = 0.2
    places = [number * 1_500_000 for number in range(30)]
    begun = time.monotonic()
    found = store.read_many([Range(KEY, version, start, 1000) for start in places])
    assert [bytes(one) for one in found] == [data[start : start + 1000] for start in places]
    assert time.monotonic() - begun < 20 * 0.2  # one after the other they take 30


def test_an_object_that_changes_while_its_body_is_broken_is_refused(
    store: SteadyStore, proxy: FaultProxy, s3: S3Server
) -> None:
    direct = open_store(f"s3://{BUCKET}/", s3.options)
    direct.put("faults/changing", bytes(4 * MIB))
    version = direct.stat("faults/changing").version
    read = store._reads_into
    assert read is not None

    def change_after(key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        try:
            read(key, start=start, buffer=buffer, version=version)
        except SourceUnavailableError:
            direct.put(key, b"x" * 4 * MIB)
            raise

    store._reads_into = change_after
    proxy.faults = Faults(truncate_after=2 * MIB, truncate_times=1)
    with pytest.raises(SourceChangedError):
        store.read("faults/changing", start=0, length=4 * MIB, version=version)


def test_a_server_that_is_down_for_a_moment_is_waited_for(
    store: SteadyStore, proxy: FaultProxy, large: tuple[bytes, Version]
) -> None:
    data, version = large
    proxy.refuse()
    begun = time.monotonic()
    back = threading.Timer(0.5, proxy.heal)
    back.start()
    assert bytes(store.read(KEY, start=0, length=10, version=version)) == data[:10]
    assert time.monotonic() - begun > 0.4
    back.join()
