from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cache_runtime import BlockStore, Client, plan_load, run_load
from sources import Location
from tests.cache_runtime.lake import MIB, disk_usage, inconsistencies, whole

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from sources import ObjectRef
    from tests.cache_runtime.lake import Lake

FORK = multiprocessing.get_context("fork")
SPAWN = multiprocessing.get_context("spawn")


def make_objects(lake: Lake) -> list[ObjectRef]:
    return [lake.add(f"small{n}", 2000 + 7919 * n) for n in range(60)] + [
        lake.add(f"large{n}", 3 * MIB + n * MIB) for n in range(4)
    ]


def read_at_random(lake: Lake, cache_path: Path, capacity: int, seed: int, seconds: float) -> None:
    """Read and compare; the exit code says whether all was right."""
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=capacity))
    refs = list(make_refs(lake))
    picks = random.Random(seed)
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end or rounds < 3:
        picks.shuffle(refs)
        wanted = [some_range(ref, picks) for ref in refs[:20]]
        for view, location in zip(client.read_many(wanted), wanted, strict=True):
            assert view == lake.expected(location), location
        assert client.read(whole(refs[0])) == lake.expected(whole(refs[0]))
        rounds += 1
    stats = client.stats.snapshot()
    assert stats.corrupt_blocks == stats.store_failures == 0, stats


def read_all(lake: Lake, cache_path: Path, seed: int) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=256 * MIB))
    refs = make_refs(lake)
    random.Random(seed).shuffle(refs)
    for start in range(0, len(refs), 10):
        wanted = [whole(ref) for ref in refs[start : start + 10]]
        assert [bytes(view) for view in client.read_many(wanted)] == [lake.expected(location) for location in wanted]


def make_refs(lake: Lake) -> list[ObjectRef]:
    return sorted(lake.refs, key=lambda ref: ref.key)


def some_range(ref: ObjectRef, picks: random.Random) -> Location:
    offset = picks.randrange(ref.size)
    return Location(ref, offset, picks.randint(1, ref.size - offset))


def run_all(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.daemon = True  # one that hangs must not hang the tests
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(processes)


@pytest.mark.parametrize("context", [FORK, SPAWN], ids=["fork", "spawn"])
def test_processes_that_read_the_same_objects_fetch_each_byte_once(
    lake: Lake, cache_path: Path, context: multiprocessing.context.BaseContext
) -> None:
    refs = make_objects(lake)
    run_all([context.Process(target=read_all, args=(lake, cache_path, seed)) for seed in range(4)])  # type: ignore[attr-defined]
    fetched = sum(int(line.split()[2]) for line in lake.reads())
    assert fetched == sum(ref.size for ref in refs)
    status = BlockStore.open(cache_path, capacity_bytes=256 * MIB).status()
    assert status.objects == len(refs)


def test_processes_that_evict_each_other_read_right_bytes_within_the_capacity(lake: Lake, cache_path: Path) -> None:
    make_objects(lake)
    for n in range(8):
        lake.add(f"more{n}", 5 * MIB)
    processes = [FORK.Process(target=read_at_random, args=(lake, cache_path, 40 * MIB, n, 4.0)) for n in range(4)]
    for process in processes:
        process.daemon = True
        process.start()
    end = time.monotonic() + 60
    while any(process.is_alive() for process in processes) and time.monotonic() < end:
        assert disk_usage(cache_path) <= 40 * MIB
        time.sleep(0.02)
    assert [process.exitcode for process in processes] == [0] * 4
    assert inconsistencies(cache_path) == []


def test_a_killed_filler_leaves_misses_and_never_a_wrong_byte(lake: Lake, cache_path: Path) -> None:
    make_objects(lake)
    picks = random.Random(3)
    for seed in range(10):
        process = FORK.Process(target=read_at_random, args=(lake, cache_path, 40 * MIB, seed, 30.0), daemon=True)
        process.start()
        time.sleep(0.05 + picks.random() * 0.3)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        BlockStore.open(cache_path, capacity_bytes=40 * MIB).close()
        assert inconsistencies(cache_path) == []
        read_at_random(lake, cache_path, 40 * MIB, seed, 0.0)
    assert disk_usage(cache_path) <= 40 * MIB


def test_a_child_of_a_fork_goes_on_with_its_parents_client(lake: Lake, client: Client) -> None:
    refs = make_objects(lake)
    client.read_many([whole(ref) for ref in refs[:30] + refs[-1:]])

    def read_in_child() -> None:
        assert [client.read(whole(ref)) == lake.expected(whole(ref)) for ref in refs] == [True] * len(refs)
        assert client.store is not None
        assert client.store.status().off_reason is None

    children = [FORK.Process(target=read_in_child) for _ in range(3)]
    run_all(list(children))
    assert [client.read(whole(ref)) == lake.expected(whole(ref)) for ref in refs] == [True] * len(refs)
    assert sum(int(line.split()[2]) for line in lake.reads()) == sum(ref.size for ref in refs)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forks_amid_reading_and_filling_threads_hurt_nobody(lake: Lake, cache_path: Path) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=40 * MIB))
    make_objects(lake)
    refs, wrong, stop = make_refs(lake), [], threading.Event()

    def read_on(seed: int) -> None:
        picks = random.Random(seed)
        while not stop.is_set():
            location = some_range(picks.choice(refs), picks)
            if client.read(location) != lake.expected(location):
                wrong.append(location)

    def read_in_child(seed: int) -> None:
        picks = random.Random(seed)
        for _ in range(50):
            location = some_range(picks.choice(refs), picks)
            assert client.read(location) == lake.expected(location)

    threads = [threading.Thread(target=read_on, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for n in range(5):
            run_all([FORK.Process(target=read_in_child, args=(n * 2 + k,)) for k in range(2)])
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert wrong == []
    assert client.stats.snapshot().store_failures == client.stats.snapshot().corrupt_blocks == 0


def test_a_slab_is_taken_over_when_its_writer_has_ended(lake: Lake, cache_path: Path) -> None:
    make_objects(lake)
    for seed in range(5):
        run_all([FORK.Process(target=read_all, args=(lake, cache_path, seed))])
        lake.add(f"new{seed}", 5000)
    assert len(list(cache_path.glob("slabs/*"))) == 2  # 14 MB in slabs of 16 MiB that are full at three quarters


def test_a_child_whose_cache_directory_is_gone_reads_from_the_origin(
    lake: Lake, client: Client, cache_path: Path
) -> None:
    ref = lake.add("a", 5000)
    client.read(whole(ref))
    shutil.rmtree(cache_path)

    def read_in_child() -> None:
        plan = plan_load(client, [whole(ref)])
        assert not run_load(client, plan).verified
        assert client.read(whole(ref)) == lake.expected(whole(ref))

    run_all([FORK.Process(target=read_in_child)])


def test_importing_the_package_is_light() -> None:
    heavy = "import sys, cache_runtime; print([m for m in ('torch', 'pandas', 'kubernetes') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.strip() == "[]"
