from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import pytest
from blake3 import blake3

from cache_runtime import BlockStore, CacheRangeError, ChecksumError, Client
from cache_runtime.async_client import AsyncClient
from cache_runtime.store.ghosts import MissReason
from cache_runtime.store.layout import BlockRun
from sources import Location, ObjectRef, SourceChangedError, SourceUnavailableError, Version
from tests.cache_runtime.lake import MIB, whole

if TYPE_CHECKING:
    from pathlib import Path

    from sources import Origins
    from tests.cache_runtime.lake import Lake


@pytest.mark.parametrize("size", [1, 10_240, MIB, MIB + 1, 4 * MIB, 9 * MIB + 17])
def test_a_second_read_comes_from_the_store(lake: Lake, client: Client, size: int) -> None:
    ref = lake.add("a", size)
    assert client.read(whole(ref)) == lake.expected(whole(ref))
    before = client.stats.snapshot()
    assert client.read(whole(ref)) == lake.expected(whole(ref))
    happened = client.stats.snapshot() - before
    assert (happened.reads_local, happened.bytes_local, happened.reads_origin) == (1, size, 0)
    assert sum(int(line.split()[2]) for line in lake.reads()) == size == client.stats.snapshot().bytes_origin


@pytest.mark.parametrize("offset", [0, 4 * MIB - 3, 4 * MIB, 8 * MIB - 1])
def test_a_range_over_block_boundaries_is_contiguous_and_fetches_only_its_blocks(
    lake: Lake, client: Client, offset: int
) -> None:
    ref = lake.add("large", 12 * MIB)
    location = Location(ref, offset, 7)
    view = client.read(location)
    assert view.contiguous
    assert view.readonly
    assert view == lake.expected(location)
    assert client.stats.snapshot().bytes_origin == (4 * MIB if offset in (0, 4 * MIB) else 8 * MIB)


def test_read_many_keeps_the_order_and_joins_neighbouring_blocks(lake: Lake, client: Client) -> None:
    large, other = lake.add("large", 18 * MIB), lake.add("other", 5 * MIB)
    small = [lake.add(f"small{n}", 1000 + n) for n in range(20)]
    wanted = [Location(large, n * MIB // 2, 300) for n in reversed(range(36))]
    wanted += [whole(ref) for ref in small] * 2 + [Location(other, 10, 5 * MIB - 10), Location(small[3], 4, 0)]
    assert [bytes(view) for view in client.read_many(wanted)] == [lake.expected(location) for location in wanted]
    large_reads = [line for line in lake.reads() if line.startswith(large.key + " ")]
    assert sorted(int(line.split()[2]) for line in large_reads) == [2 * MIB, 16 * MIB]
    assert len(lake.reads()) == 2 + 1 + 20
    before = client.stats.snapshot()
    assert [bytes(view) for view in client.read_many(wanted)] == [lake.expected(location) for location in wanted]
    assert (client.stats.snapshot() - before).reads_origin == 0


def test_nothing_is_read_for_empty_objects_and_ranges(lake: Lake, client: Client) -> None:
    empty, full = lake.add("empty", 0), lake.add("full", 10)
    assert bytes(client.read(whole(empty))) == b""
    assert bytes(client.read(Location(full, 10, 0))) == b""
    assert [bytes(view) for view in client.read_many([whole(empty), Location(full, 3, 0)])] == [b"", b""]
    assert client.read_many([]) == []
    assert lake.reads() == []


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (0, 11), (10, 1), (5, -1), (11, 0)])
def test_a_range_outside_of_the_object_is_refused(lake: Lake, client: Client, offset: int, length: int) -> None:
    ref = lake.add("ten", 10)
    with pytest.raises(CacheRangeError, match="outside"):
        client.read(Location(ref, offset, length))
    with pytest.raises(ValueError, match="which has 10 bytes"):
        client.read_many([whole(ref), Location(ref, offset, length)])
    assert lake.reads() == []


def test_origin_errors_pass_through_and_nothing_is_cached(lake: Lake, client: Client) -> None:
    ref = lake.add("a", 5000)
    lake.write("a", b"other bytes")
    for _ in range(2):
        with pytest.raises(SourceChangedError):
            client.read(whole(ref))
    gone = lake.add("b", 5 * MIB)
    (lake.root / "objects" / "b").unlink()
    with pytest.raises(SourceChangedError):
        client.read_many([whole(gone), whole(ref)])
    assert client.store is not None
    assert client.store.status().objects == 0


def test_bytes_that_do_not_hash_to_the_version_are_refused(lake: Lake, client: Client) -> None:
    real = lake.add("a", 5000)
    good = ObjectRef(real.store, real.key, Version(f"oid:{blake3(lake.bytes[real.id]).hexdigest()}"), real.size)
    assert client.read(whole(good)) == lake.bytes[real.id]
    bad = ObjectRef(real.store, real.key, Version(f"oid:{blake3(b'').hexdigest()}"), real.size)
    with pytest.raises(ChecksumError, match="hash to"):
        client.read(whole(bad))
    assert client.store is not None
    assert client.store.missing_blocks(bad, [0]) == [0]


def test_without_a_store_exactly_the_range_is_read_from_the_origin(lake: Lake) -> None:
    client = Client(lake.origins, None)
    location = Location(lake.add("large", 9 * MIB), 4 * MIB - 5, 10)
    assert client.read(location) == lake.expected(location)
    assert client.read_many([location] * 2) == [lake.expected(location)] * 2
    assert client.stats.snapshot().bytes_origin == 30


class SlowOrigins:
    """Origins whose reads wait until the test lets them go."""

    def __init__(self, lake: Lake) -> None:
        self._origins = lake.origins
        self.go = threading.Event()

    def read(self, ref: ObjectRef, *, start: int, length: int) -> object:
        assert self.go.wait(20)
        return self._origins.read(ref, start=start, length=length)


def test_threads_that_miss_the_same_bytes_fetch_them_once(lake: Lake, store: BlockStore) -> None:
    origins = SlowOrigins(lake)
    client = Client(cast("Origins", origins), store)
    small, large = lake.add("small", 9000), lake.add("large", 7 * MIB)
    wanted = [whole(small), Location(large, 10, 20), Location(large, 0, 7 * MIB)] * 4
    with ThreadPoolExecutor(12) as pool:
        reads = [pool.submit(client.read, location) for location in wanted]
        origins.go.set()
        assert all(read.result(30) == lake.expected(loc) for read, loc in zip(reads, wanted, strict=True))
    assert sum(int(line.split()[2]) for line in lake.reads()) == 9000 + 7 * MIB


def test_all_who_wait_for_a_failing_fetch_get_its_error(lake: Lake, store: BlockStore) -> None:
    ref = lake.add("a", 100)
    lake.store.broken.add(ref.key)
    origins = SlowOrigins(lake)
    client = Client(cast("Origins", origins), store)
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(client.read, whole(ref)) for _ in range(8)]
        origins.go.set()
        for read in reads:
            with pytest.raises(SourceUnavailableError, match="broken"):
                read.result(30)
    lake.store.broken.clear()
    assert client.read(whole(ref)) == lake.expected(whole(ref))


def test_a_stopped_holder_of_the_lock_delays_a_read_and_does_not_stop_it(lake: Lake, store: BlockStore) -> None:
    client = Client(lake.origins, store, fill_wait_seconds=0.2)
    ref = lake.add("a", 100)
    with store.locks.fill(ref.id, BlockRun(0, 0), seconds=1):
        assert client.read(whole(ref)) == lake.expected(whole(ref))


def test_a_pickled_client_reads_the_same_store(lake: Lake, client: Client) -> None:
    ref = lake.add("a", 100)
    client.read(whole(ref))
    copy: Client = pickle.loads(pickle.dumps(client))
    assert copy.read(whole(ref)) == lake.expected(whole(ref))
    assert len(lake.reads()) == 1


def test_a_closed_client_keeps_its_views_and_can_go_on(lake: Lake, client: Client, cache_path: Path) -> None:
    ref = lake.add("large", 5 * MIB)
    view = client.read(whole(ref))
    client.close()
    open_files = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_link(fd)}
    assert not [path for path in open_files if str(cache_path / "slabs") in path]
    assert view == lake.expected(whole(ref))
    assert client.read(whole(ref)) == lake.expected(whole(ref))


def _is_link(fd: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{fd}")


STUCK = """
import os, signal, sys, threading, time
from pathlib import Path
from cache_runtime import BlockStore, Client
from sources import Location, Origins
from tests.cache_runtime.lake import Lake, whole

class Stuck(Origins):
    def read(self, ref, *, start, length):
        time.sleep(600)

lake = Lake(Path(sys.argv[1]))
refs = [lake.add(f"small{n}", 100) for n in range(50)]
client = Client(Stuck(), BlockStore.open(Path(sys.argv[1]) / "cache", capacity_bytes=64 << 20))
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    client.read_many([whole(ref) for ref in refs])
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_ends_a_process_whose_origin_hangs(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", STUCK, os.fspath(tmp_path / "lake")],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert ended.stdout == "interrupted\n"


def test_an_async_client_returns_hits_at_once_and_waits_for_the_rest_in_threads(lake: Lake, client: Client) -> None:
    refs = [lake.add(f"small{n}", 1000 + n) for n in range(40)] + [lake.add("large", 9 * MIB)]
    asynchronous = AsyncClient(client)

    async def read_all() -> None:
        views = await asyncio.gather(*(asynchronous.read(whole(ref)) for ref in refs))
        assert list(views) == [lake.expected(whole(ref)) for ref in refs]
        views = await asynchronous.read_many([whole(ref) for ref in refs])
        assert list(views) == [lake.expected(whole(ref)) for ref in refs]
        assert (await asynchronous.explain(whole(refs[0]))).cached
        with pytest.raises(CacheRangeError):
            await asynchronous.read(Location(refs[0], 0, 5000))

    asyncio.run(read_all())
    assert sum(int(line.split()[2]) for line in lake.reads()) == sum(ref.size for ref in refs)


def test_a_cancelled_async_read_is_cached_all_the_same(lake: Lake, store: BlockStore) -> None:
    origins = SlowOrigins(lake)
    client = Client(cast("Origins", origins), store)
    ref = lake.add("a", 100)

    async def cancel() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(AsyncClient(client).read(whole(ref)), 0.1)
        origins.go.set()

    asyncio.run(cancel())
    deadline = time.monotonic() + 10
    while store.missing_blocks(ref, [0]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert client.read(whole(ref)) == lake.expected(whole(ref))
    assert len(lake.reads()) == 1


def test_misses_are_counted_by_why(lake: Lake, client: Client) -> None:
    ref = lake.add("a", 100)
    assert client.explain(whole(ref)).reason == MissReason.NEVER_CACHED
    client.read(whole(ref))
    assert client.stats.miss_never_cached == 1
    told = client.explain(whole(ref))
    assert (told.cached, told.reason, told.groups[0].candidates) == (True, None, ())
    assert client.store is not None
    client.store.evict([ref.id])
    assert client.explain(whole(ref)).reason == MissReason.EVICTED
    client.read(whole(ref))
    assert client.stats.miss_evicted == 1


def test_a_location_opens_as_a_file(lake: Lake, client: Client) -> None:
    ref = lake.add("file", 5 * MIB + 3)
    location = Location(ref, 7, 5 * MIB - 20)
    expected = bytes(lake.expected(location))
    with client.open(location) as file:
        assert file.read(10) == expected[:10]
        file.seek(-5, 2)
        assert file.read() == expected[-5:]
        file.seek(0)
        assert file.read() == expected
