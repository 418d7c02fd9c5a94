from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cache_runtime import Client
from cache_runtime.errors import CacheTimeoutError
from cache_runtime.store.index import open_index
from cache_runtime.store.locks import WRITE_LOCK, RangeLocks
from tests.cache_runtime.lake import MIB, inconsistencies, whole
from tests.cache_runtime.objects import SMALL, found, make_refs, open_cache, put_all

if TYPE_CHECKING:
    from pathlib import Path

    from cache_runtime.store.tables import Tables
    from tests.cache_runtime.lake import Lake

FORK = multiprocessing.get_context("fork")


def add_one(tables: Tables) -> int:
    tables.set_counter(b"test", tables.counter(b"test") + 1)
    return tables.counter(b"test")


def test_a_stopped_writer_makes_fills_time_out_and_reads_go_on(
    lake: Lake, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache_runtime.store.index._WRITE_SECONDS", 0.3)
    store = open_cache(cache_path)
    client = Client(lake.origins, store)
    cached, missing = lake.add("cached", 5000), [lake.add(f"missing{n}", 5000) for n in range(5)]
    large = lake.add("large", 5 * MIB)
    client.read(whole(cached))
    here, there = FORK.Pipe()

    def write() -> None:
        def stop(_: Tables) -> None:
            there.send("writing")
            os.kill(os.getpid(), signal.SIGSTOP)

        open_index(os.fspath(cache_path / "index.lmdb")).change(stop)

    child = FORK.Process(target=write, daemon=True)
    child.start()
    assert child.pid is not None
    try:
        assert here.poll(20)
        begun = time.monotonic()
        for ref in [cached, *missing, large, cached]:
            assert client.read(whole(ref)) == lake.expected(whole(ref))
        assert time.monotonic() - begun < 5
        assert store.off_reason is None
        with pytest.raises(CacheTimeoutError):
            store._index.change(add_one)
    finally:
        os.kill(child.pid, signal.SIGCONT)
        child.join(20)
    assert child.exitcode == 0
    assert store._index.change(add_one) == 1
    assert inconsistencies(cache_path) == []


def test_a_killed_writer_frees_the_lock(cache_path: Path) -> None:
    store = open_cache(cache_path)
    put_all(store, SMALL[:1])

    def die() -> None:
        open_index(os.fspath(cache_path / "index.lmdb")).change(lambda _: os.kill(os.getpid(), signal.SIGKILL))

    child = FORK.Process(target=die, daemon=True)
    child.start()
    child.join(20)
    assert child.exitcode == -signal.SIGKILL
    put_all(store, SMALL[1:2])
    assert found(store, SMALL[0])
    assert found(store, SMALL[1])


def test_opening_waits_for_a_stopped_writer_no_longer_than_the_time_out(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_cache(cache_path)
    monkeypatch.setattr("cache_runtime.store.index._WRITE_SECONDS", 0.2)
    with (
        RangeLocks(os.fspath(cache_path / "locks")).fixed(WRITE_LOCK, seconds=1),
        pytest.raises(CacheTimeoutError),
    ):
        open_cache(cache_path)
    assert open_cache(cache_path).status().objects == 0


INTERRUPTED = """
import os, signal, sys, threading, time
from pathlib import Path
from cache_runtime.store.index import open_index
from tests.cache_runtime.test_index import add_one

index = open_index(sys.argv[1])
changes = 0

def work():
    global changes
    while interrupts < 10 and time.monotonic() < deadline:
        for _ in range(100):
            index.change(add_one)
        with lock:
            changes += 100

lock = threading.Lock()
own = interrupts = 0
deadline = time.monotonic() + 60
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
armed = False

def interrupt(*_):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)  # as Ctrl-C, many times
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
while interrupts < 10 and time.monotonic() < deadline:
    try:
        armed = True
        while time.monotonic() < deadline:
            index.change(add_one)
            own += 1
        armed = False
    except KeyboardInterrupt:
        interrupts += 1
signal.setitimer(signal.ITIMER_REAL, 0)
for thread in threads:  # not before: interrupted at the wrong moment, it takes a living one for dead (Python 3.11)
    thread.join(20)
print(sum(thread.is_alive() for thread in threads), changes, own, interrupts, index.change(add_one) - 1)
"""


def test_an_interrupted_thread_loses_no_change_of_the_others(cache_path: Path) -> None:
    open_cache(cache_path)
    script = [sys.executable, "-c", INTERRUPTED, os.fspath(cache_path / "index.lmdb")]
    answer = subprocess.run(script, capture_output=True, text=True, timeout=90, check=True)
    alive, others, own, interrupts, counted = map(int, answer.stdout.split())
    assert alive == 0
    assert interrupts == 10
    # what is interrupted between its commit and its return may have happened, once more even
    assert others + own <= counted <= others + own + 2 * interrupts


def test_threads_share_commits_and_each_gets_its_own_answer(cache_path: Path) -> None:
    index = open_cache(cache_path)._index
    answers: list[int] = []
    refused: list[int] = []

    def work(number: int) -> None:
        def refuse(_: Tables) -> None:
            raise ValueError(number)

        for _ in range(100):
            answers.append(index.change(add_one))
            with pytest.raises(ValueError, match=str(number)):
                index.change(refuse)
            refused.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answers) == list(range(1, 801))
    assert len(refused) == 800


def test_an_index_is_not_marked_while_another_process_commits(cache_path: Path) -> None:
    store = open_cache(cache_path)
    put_all(store, SMALL[:1])
    assert store._index.settle()
    marked = (cache_path / "index.lmdb-clean").stat().st_ino
    assert store._index.settle()
    assert (cache_path / "index.lmdb-clean").stat().st_ino == marked
    put_all(store, make_refs(1, 3000))
    assert not (cache_path / "index.lmdb-clean").exists()
