"""One machine's processes on one cache directory: a worker, who asks it, a reader, and a filler; each may be killed."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache_runtime import BlockStore, Client, Member, Peers, StaticMembers, Timeouts, plan_load, run_load
from cache_runtime.peers.presence import find_worker
from cache_runtime.worker.config import WorkerConfig
from cache_runtime.worker.loads import LoadTable
from cache_runtime.worker.serving import serve
from sources import Location
from tests.cache_runtime.lake import disk_usage, whole
from tests.services.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from sources import ObjectRef
    from tests.cache_runtime.lake import Lake

ROLES = ("worker", "reader", "filler", "asker")
VICTIMS = ROLES[:3]
PROGRESS_SECONDS = 20.0
_FORK = multiprocessing.get_context("fork")
_FAST = Timeouts(connect_seconds=0.5, silent_seconds=1.0, probe_seconds=0.5, idle_seconds=5.0, total_seconds=20.0)


@dataclass
class _Running:
    process: BaseProcess
    done: int  # what the counter said when it began


class Household:
    """The processes of one machine.

    Args:
        lake: What they read.
        path: Their cache directory.
        capacity: And its limit, bytes.
        floor: Free space that they leave alone, bytes.
        slack: How much of that they may take for a moment.
    """

    def __init__(self, lake: Lake, path: Path, *, capacity: int, floor: int = 0, slack: int = 0) -> None:
        self.lake = lake
        self.path = path
        self._capacity = capacity
        self._floor = floor
        self._slack = slack
        self._port = free_port()
        self._counters = {role: _FORK.Value("Q", 0) for role in ROLES}
        self._running: dict[str, _Running] = {}

    def start(self, *roles: str) -> None:
        """Run them."""
        for role in roles:
            seed = random.getrandbits(32)
            process = _FORK.Process(target=self._be, args=(role, seed), daemon=True)
            self._running[role] = _Running(process, self._counters[role].value)
            process.start()

    def wait_for_worker(self) -> None:
        """Wait until the worker answers."""
        end = time.monotonic() + PROGRESS_SECONDS
        while find_worker(self.path) is None:
            assert time.monotonic() < end, "the worker does not come up"
            time.sleep(0.01)

    def restart(self, role: str) -> None:
        """Run it anew."""
        if role in self._running:
            self.kill(role)
        self.start(role)

    def kill(self, *roles: str) -> None:
        """Kill them, wherever they are in their work."""
        for role in roles:
            process = self._running[role].process
            assert process.exitcode is None, f"the {role} ended by itself"
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join(30)
            del self._running[role]

    def wait_for_progress(self, times: int = 2) -> None:
        """Wait until each that runs has done so much more; no lock may keep it from that, and nothing end it."""
        for running, counter in ((self._running[role], self._counters[role]) for role in self._running):
            running.done = counter.value
        end = time.monotonic() + PROGRESS_SECONDS
        while slow := [role for role, one in self._running.items() if self._counters[role].value < one.done + times]:
            self.check_disk()
            if time.monotonic() > end:
                self._show_stacks(slow)
                raise AssertionError(f"{slow} make no progress")
            assert [role for role, one in self._running.items() if one.process.exitcode is not None] == []
            time.sleep(0.01)

    def _show_stacks(self, roles: list[str]) -> None:
        for role in roles:
            print(f"stacks of the {role}:", file=sys.stderr, flush=True)
            os.kill(self._running[role].process.pid or 0, signal.SIGUSR1)
            time.sleep(1.0)

    def check_disk(self) -> None:
        """Check what is promised about the disk."""
        used = disk_usage(self.path)
        if used > self._capacity:
            raise AssertionError(f"{used} bytes are used, {self._capacity} are allowed")
        disk = os.statvfs(self.path)
        free = disk.f_bavail * disk.f_frsize
        if free < self._floor - self._slack:
            raise AssertionError(f"{free} bytes are free, {self._floor} are promised")

    def in_child(self, work: Callable[[], None]) -> None:
        """Do something in a process of its own, which ends well within a minute."""
        child = _FORK.Process(target=work, daemon=True)
        child.start()
        child.join(60)
        assert child.exitcode == 0

    def read_some(self, refs: Sequence[ObjectRef]) -> None:
        """Read and compare objects, as a process that just began."""
        client = Client(self.lake.origins, self._open())
        for ref in refs:
            assert client.read(whole(ref)) == self.lake.expected(whole(ref))
        assert client.stats.corrupt_blocks == client.stats.store_failures == 0

    def close(self) -> None:
        """Kill all of them."""
        for running in self._running.values():
            running.process.kill()
            running.process.join(30)
        self._running = {}

    def _open(self) -> BlockStore:
        return BlockStore.open(self.path, capacity_bytes=self._capacity, free_floor_bytes=self._floor)

    def _peers(self, **terms: object) -> Peers:
        members = StaticMembers([Member("w", f"http://127.0.0.1:{self._port}")])
        return Peers(members, timeouts=_FAST, **terms)  # type: ignore[arg-type] # as given

    def _be(self, role: str, seed: int) -> None:
        logging.disable(logging.CRITICAL)
        faulthandler.register(signal.SIGUSR1, file=2)
        picks = random.Random(seed)
        if role == "worker":
            self._serve()
        elif role == "filler":
            self._fill(picks)
        else:
            self._read(picks, Client(self.lake.origins, None, peers=self._peers()) if role == "asker" else None)

    def _serve(self) -> None:
        counter = self._counters["worker"]
        peers = self._peers(name="w", serves=True)
        client = _CountingClient(self.lake.origins, self._open(), peers=peers)
        client.counter = counter
        config = WorkerConfig("w", self.path, port=self._port, drain_seconds=2.0)
        serve(config, client=client, origins=self.lake.origins, loads=LoadTable(client))

    def _fill(self, picks: random.Random) -> None:
        client = Client(self.lake.origins, self._open())
        counter = self._counters["filler"]
        while True:
            refs = picks.sample(self.lake.refs, 12)
            run_load(client, plan_load(client, [whole(ref) for ref in refs]))
            counter.value += 1

    def _read(self, picks: random.Random, client: Client | None) -> None:
        counter = self._counters["reader" if client is None else "asker"]
        if client is None:
            store = self._open()
            client = Client(self.lake.origins, store, peers=self._peers(directory=store.directory))
        while True:
            wanted = [_some_range(self.lake, picks) for _ in range(picks.choice([1, 8]))]
            for location, view in zip(wanted, client.read_many(wanted), strict=True):
                assert view == self.lake.expected(location), location
            assert client.stats.corrupt_blocks == 0
            counter.value += 1


class _CountingClient(Client):
    """The worker's progress is what it fetches."""

    counter: object

    def read_many(self, locations, *, share=None):  # type: ignore[no-untyped-def]
        found = super().read_many(locations, share=share)
        self.counter.value += 1  # type: ignore[attr-defined]
        return found


def _some_range(lake: Lake, picks: random.Random) -> Location:
    ref = picks.choice(lake.refs)
    offset = picks.randrange(ref.size)
    return Location(ref, offset, picks.randint(1, ref.size - offset))
