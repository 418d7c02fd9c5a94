"""Processes that share a directory under odd circumstances: other capacities, other PID namespaces, stopped ones."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from cache_runtime import BlockStore, CacheTimeoutError
from cache_runtime.errors import CacheIndexError
from cache_runtime.store.environments import LOCK_FILE_BYTES
from cache_runtime.store.locks import OPEN_LOCK
from tests.cache_runtime.lake import MIB, disk_usage, inconsistencies
from tests.cache_runtime.objects import ALL, CAPACITY, SMALL, content, found, make_refs, open_cache, put_all

if TYPE_CHECKING:
    from pathlib import Path

FORK = multiprocessing.get_context("fork")
READ_AND_FILL = """
import sys
from pathlib import Path
from tests.cache_runtime.objects import SMALL, content, found, make_refs, open_cache
store = open_cache(Path(sys.argv[1]))
more = make_refs(1, 5000, name="more")[0]
print(found(store, SMALL[0]), store.put(more, 0, content(more)), store.status().off_reason, flush=True)
sys.stdin.readline()
"""


def can_make_namespaces() -> bool:
    return subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_make_namespaces(), reason="may not make PID namespaces here")
def test_of_two_processes_with_one_id_in_two_pid_namespaces_both_read_and_the_first_one_fills(cache_path: Path) -> None:
    put_all(open_cache(cache_path), SMALL)
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", READ_AND_FILL, str(cache_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first:  # type: ignore[call-overload]
        assert first.stdout.readline() == "True True None\n"
        with subprocess.Popen(command, **pipes) as second:  # type: ignore[call-overload]
            assert second.stdout.readline().startswith("True False a process in another PID namespace")
            second.stdin.close()
        store = open_cache(cache_path)
        put_all(store, make_refs(3, 5000, name="later"))
        assert inconsistencies(cache_path) == []
        first.stdin.close()
    assert (cache_path / "boot").exists()  # nobody took the index for damaged


def test_a_process_stopped_with_a_snapshot_does_not_make_the_index_grow_for_ever(cache_path: Path) -> None:
    store = open_cache(cache_path)
    here, there = FORK.Pipe()

    def stop() -> None:
        with store._index.reading() as tables:
            tables.totals()
            there.send("stopping")
            os.kill(os.getpid(), signal.SIGSTOP)

    child = FORK.Process(target=stop, daemon=True)
    child.start()
    assert child.pid is not None
    try:
        assert here.poll(30)
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        refs = make_refs(2500, 1000)
        assert all(store.put(ref, 0, bytes(1000)) for ref in refs)
        assert store._index.pages_bytes() < 4 * MIB
        assert disk_usage(cache_path) <= CAPACITY
        assert store.missing_ids([ref.id for ref in refs]) == []
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join(30)
    assert inconsistencies(cache_path) == []


def test_room_that_the_index_took_for_many_small_objects_is_given_back(cache_path: Path) -> None:
    store = open_cache(cache_path)
    tiny = make_refs(40_000, 1, name="tiny")
    store.put_many([(ref, b"x") for ref in tiny])
    large = store._index.pages_bytes()
    store.evict(share="")
    put_all(store, make_refs(80, 500_000, name="big"))
    assert store._index.pages_bytes() < large / 4
    assert store.status().blocks >= 35
    store.close()
    assert open_cache(cache_path).status().blocks >= 35
    assert inconsistencies(cache_path) == []


def test_a_process_that_only_fills_takes_the_new_index(cache_path: Path) -> None:
    store = open_cache(cache_path)
    here, there = FORK.Pipe()

    def fill() -> None:
        mine = open_cache(cache_path)
        put_all(mine, SMALL[:1])
        there.send("ready")
        assert there.recv() == "rebuilt"
        with pytest.raises(CacheIndexError, match="try again"):
            mine._index.change(lambda tables: tables.set_counter(b"x", 1))
        put_all(mine, SMALL[1:])
        there.send("filled")

    child = FORK.Process(target=fill, daemon=True)
    child.start()
    assert here.poll(30)
    (cache_path / "FORMAT").write_text("99\n")
    store = open_cache(cache_path)
    here.send("rebuilt")
    child.join(30)
    assert child.exitcode == 0
    assert sum(found(store, ref) for ref in SMALL) >= len(SMALL) - 1
    assert inconsistencies(cache_path) == []


def test_processes_with_different_capacities_keep_each_its_own(cache_path: Path) -> None:
    def fill(capacity: int, seed: int) -> None:
        mine = open_cache(cache_path, capacity)
        for ref in make_refs(120, 400_000, name=f"s{seed}"):
            mine.put(ref, 0, content(ref))
            view = mine.find(ref, 0, ref.size)
            assert view is None or view == content(ref)
        assert mine.stats.store_failures == 0

    sizes = [(CAPACITY, 1), (2 * CAPACITY, 2)]
    children = [FORK.Process(target=fill, args=terms, daemon=True) for terms in sizes]
    for child in children:
        child.start()
    while any(child.is_alive() for child in children):
        assert disk_usage(cache_path) <= 2 * CAPACITY
        time.sleep(0.02)
    assert [child.exitcode for child in children] == [0, 0]
    open_cache(cache_path)
    assert disk_usage(cache_path) <= CAPACITY
    assert inconsistencies(cache_path) == []


def test_whoever_opens_waits_as_long_as_the_new_index_grows(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cache_runtime.store.directory._LOOK_SECONDS", 0.2)
    monkeypatch.setattr("cache_runtime.store.directory._OPEN_SECONDS", 0.6)
    store = open_cache(cache_path)
    here, there = FORK.Pipe()

    def rebuild() -> None:
        with store.locks.fixed(OPEN_LOCK, seconds=5):
            there.send("held")
            for number in range(15):
                (cache_path / "index.lmdb.new").write_text(str(number))
                time.sleep(0.1)
        with store.locks.fixed(OPEN_LOCK, seconds=5):
            there.send("stuck")
            time.sleep(20)

    child = FORK.Process(target=rebuild, daemon=True)
    child.start()
    try:
        assert here.poll(30)
        assert here.recv() == "held"
        with suppress(CacheTimeoutError):  # of the second holder, if that was faster than we
            BlockStore.open(cache_path, capacity_bytes=CAPACITY)
        assert "makes a new index" in caplog.text
        assert here.recv() == "stuck"
        with pytest.raises(CacheTimeoutError):
            BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    finally:
        child.kill()
        child.join(30)
    BlockStore.open(cache_path, capacity_bytes=CAPACITY)


def test_the_lock_file_has_no_hole_that_a_full_disk_could_not_fill(cache_path: Path) -> None:
    store = open_cache(cache_path)
    put_all(store, ALL)
    assert (cache_path / "index.lmdb-lock").stat().st_blocks * 512 >= LOCK_FILE_BYTES
