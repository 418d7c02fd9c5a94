"""Eviction by next use: what loops announce is not evicted before it is read, and rounds hit as often as Belady's MIN.

Real stores smaller than what is read, real clients, orders of `ElasticBatchSampler`s. An object is a sample.
"""

from __future__ import annotations

import os
import random
import signal
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cache_runtime import BlockStore, Client, Share
from sources import ObjectRef, Origins, StoreId, Version
from tests.loaders.test_half_a_cache import best_hits

if TYPE_CHECKING:
    from pathlib import Path

    from cache_runtime import Announced

STORE = StoreId("test://coming")
SIZE = (1 << 20) + 4096
OBJECTS = 100
WINDOW = 4
BODY = random.Random(0).randbytes(SIZE)
MIB = 1 << 20


class Counting:
    """A store in memory that counts what is fetched."""

    id = STORE

    def __init__(self) -> None:
        self.fetched: list[int] = []

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> memoryview:
        self.fetched.append(int(key))
        return memoryview(BODY)[start : start + length]


def client_of(directory: Path, capacity: int, share: Share) -> tuple[Client, Counting]:
    origins, source = Origins(), Counting()
    origins.add("", source)
    return Client(origins, BlockStore.open(directory, capacity_bytes=capacity), share=share), source


def ref(number: int) -> ObjectRef:
    return ObjectRef(STORE, str(number), Version("1"), SIZE)


class Job:
    """Reads objects in an order, and announces them `WINDOW` ahead."""

    def __init__(self, client: Client, order: list[int]) -> None:
        self.client = client
        self.left = deque(order)
        self.window: deque[tuple[int, Announced]] = deque()
        self.lost = 0

    def step(self) -> None:
        while self.left and len(self.window) < WINDOW:
            number = self.left.popleft()
            self.window.append((number, self.client.will_need([ref(number)], [0], [0], [SIZE])))
        number, announced = self.window.popleft()
        announced.result(60)
        store = self.client.store
        assert store is not None
        self.lost += bool(store.missing_blocks(ref(number), [0]))
        (data,) = self.client.read_ranges([ref(number)], [0], [0], [SIZE])
        assert data == BODY
        announced.passed()


@pytest.mark.parametrize(("part", "keeps"), [(0.35, False), (0.5, False), (0.75, False), (0.5, True)])
def test_rounds_hit_as_often_as_with_belady(tmp_path: Path, part: float, keeps: bool) -> None:
    share = Share("rounds", cycle_bytes=OBJECTS * SIZE if keeps else 0)
    client, source = client_of(tmp_path / "cache", int(OBJECTS * SIZE * part), share)
    orders = [random.Random(epoch).sample(range(OBJECTS), OBJECTS) for epoch in range(3)]
    hits, lost = [], 0
    for order in orders:
        job, before = Job(client, order), len(source.fetched)
        for _ in order:
            job.step()
        hits.append(OBJECTS - len(source.fetched) + before)
        lost += job.lost
    assert client.store is not None
    room = client.store.status().used_bytes // SIZE
    best = best_hits([np.array(order) for order in orders], room)
    assert sum(hits) >= 0.87 * sum(best)  # and without announcements, and without `keep`, a fifth of them
    if not keeps:  # what is not kept is read past the cache
        assert lost == 0
    client.close()


def test_two_jobs_on_a_node_never_lose_what_they_announced(tmp_path: Path) -> None:
    """Processes with one store of a third of the data, and an order of their own."""
    capacity = OBJECTS * SIZE // 3
    client_of(tmp_path / "cache", capacity, Share("rounds"))[0].close()
    children = []
    for job in range(2):
        child = os.fork()
        if child == 0:
            lost = 1
            try:
                client, _ = client_of(tmp_path / "cache", capacity, Share("rounds"))
                reading = Job(client, random.Random(job).sample(range(OBJECTS), OBJECTS))
                for _ in range(OBJECTS):
                    reading.step()
                lost = reading.lost
            finally:
                os._exit(min(lost, 255))
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


def announce_and_wait(directory: Path, tell: int) -> None:
    """Fill a cache with what comes, one object after the other, and stay."""
    try:
        client, _ = client_of(directory, 34 * MIB, Share("rounds"))
        held = []
        for number in range(50):
            held.append(client.will_need([ref(number)], [0], [0], [SIZE]))
            held[-1].result(60)
        os.write(tell, b"x")
        signal.pause()
    finally:
        os._exit(1)


def test_what_a_killed_process_announced_is_evicted_as_if_it_had_not(tmp_path: Path) -> None:
    client, _ = client_of(tmp_path / "cache", 34 * MIB, Share("rounds"))
    store = client.store
    assert store is not None
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        announce_and_wait(tmp_path / "cache", tell)
    try:
        assert os.read(told, 1) == b"x"
        here = [number for number in range(50) if not store.missing_blocks(ref(number), [0])]
        assert here == list(range(len(here)))  # what is needed first; the rest found no room
        client.read_ranges([ref(80)], [0], [0], [SIZE])
        assert store.missing_blocks(ref(80), [0])  # nobody announced it: it evicts nothing
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    store.evict([ref(0).id])  # a refusal is remembered until something is let go
    for number in range(80, 84):
        client.read_ranges([ref(number)], [0], [0], [SIZE])
        assert not store.missing_blocks(ref(number), [0])
    assert not list((tmp_path / "cache/announced").iterdir())
    client.close()
