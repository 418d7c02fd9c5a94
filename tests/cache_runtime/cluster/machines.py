"""A cluster of machines: a worker and a training on each, in network namespaces, before a real S3 server."""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_runtime import BlockStore
from cache_runtime.peers.presence import find_worker
from ds.lock_checks import check_readers, held_for_long
from tests.cache_runtime.cluster.roles import Machine, Report
from tests.cache_runtime.lake import MIB, disk_usage, inconsistencies
from tests.services.processes import Process, started

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.cache_runtime.cluster.pool import Pool
    from tests.services.netns import Fabric
    from tests.services.weed import S3Server

CAPACITY = 96 * MIB
PORT = 7070
TOKEN = "a token of the cluster's tests"
_NAMES = {"FORMAT", "boot", "index.lmdb", "index.lmdb-lock", "index.lmdb-clean", "slabs", "files", "checksums"} | {
    "visited.map",
    "locks",
    "load-rate.json",
    "worker.json",
}


class Orders:
    """What one training was ordered to do."""

    def __init__(self, process: Process, answer: Path) -> None:
        self._process = process
        self._answer = answer

    def report(self, *, seconds: float = 60.0) -> Report:
        """Wait for its report."""
        self._process.wait_until(lambda _: self._answer.exists(), seconds=seconds)
        return Report(**json.loads(self._answer.read_text()))


class Machines:
    """Workers and trainings that come and go; `members` is the file that all of them look at."""

    def __init__(self, net: Fabric, server: S3Server, directory: Path) -> None:
        self.net = net
        self.server = server
        self.members = directory / "members"
        self.workers: dict[str, Process] = {}
        self.trainings: dict[str, Process] = {}
        self._directory = directory
        self._orders: dict[str, int] = {}
        self._stack = ExitStack()

    def start(self, *names: str) -> None:
        """Run workers; they are members from before they answer, as a restarted one is."""
        self.list_members(*sorted({*self.workers, *names}))
        for name in names:
            self.set_token(name, TOKEN)
            self.workers[name] = self._run(name, "worker")
        for name in names:
            cache = self.cache(name)
            self.workers[name].wait_until(lambda _, cache=cache: find_worker(cache) is not None)  # type: ignore[misc]

    def start_trainings(self, *names: str) -> None:
        """Run trainings that wait for orders."""
        for name in names:
            orders = self._directory / f"orders-{name}"
            orders.mkdir(exist_ok=True)
            self.trainings[name] = self._run(name, "training")
        for name in names:
            self.trainings[name].wait_until(lambda process: process.says("training"))

    def order(self, name: str, pool: Pool, *, seed: int = 0, pause: float = 0.0, **terms: Any) -> Orders:
        """Have a training read; give `epochs` or `seconds`."""
        stored = self._directory / f"{pool.directory.name}.pool"
        if not stored.exists():
            stored.write_bytes(pickle.dumps(pool))
        number = self._orders.get(name, 0)
        self._orders[name] = number + 1
        orders = self._directory / f"orders-{name}"
        terms = {"pool": os.fspath(stored), "seed": seed, "pause": pause, "epochs": None, "seconds": None, **terms}
        new = orders / "order.new"
        new.write_text(json.dumps(terms))
        new.rename(orders / f"order-{number}.json")
        return Orders(self.trainings[name], orders / f"report-{number}.json")

    def order_all(self, pool: Pool, **terms: Any) -> dict[str, Orders]:
        """Have all trainings read, each in its own order."""
        return {name: self.order(name, pool, seed=n, **terms) for n, name in enumerate(self.trainings)}

    def read_epochs(self, pool: Pool, epochs: int = 1) -> dict[str, Report]:
        """Have all trainings read all of it, and wait."""
        return reports(self.order_all(pool, epochs=epochs))

    def list_members(self, *names: str) -> None:
        """Write the members file, as whoever runs a cluster does."""
        new = self.members.with_suffix(".new")
        new.write_text("".join(f"{name} http://{self.net.address(name)}:{PORT}\n" for name in names))
        new.rename(self.members)

    def set_token(self, name: str, token: str) -> None:
        """Give a machine a token, for its worker and for what it shows to others."""
        path = self._directory / f"token-{name}"
        new = path.with_suffix(".new")
        new.write_text(f"{token}\n")
        new.rename(path)

    def restore(self, *names: str) -> None:
        """Heal the network, and run these workers and no others."""
        self.net.heal()
        for name in {*self.workers} - {*names}:
            self.workers.pop(name).stop()
        self.start(*(name for name in names if name not in self.workers or not self.workers[name].is_running))

    def cache(self, name: str) -> Path:
        return self._directory / f"cache-{name}"

    def log(self, name: str, role: str = "worker") -> str:
        return (self._directory / f"{name}-{role}.log").read_text()

    def overfull(self) -> list[str]:
        """Return the directories that take more than they may."""
        return [name for name in self.workers if disk_usage(self.cache(name)) > CAPACITY]

    def check_live(self) -> None:
        """Check that no lock is stuck while the processes run."""
        for name in self.workers:
            assert held_for_long(os.fspath(self.cache(name) / "locks")) == [], name
            assert _locks_of(self.cache(name) / "locks") == [], name

    def check_directories(self) -> None:
        """End all processes, and check what they leave on their disks."""
        names = sorted({*self.workers, *self.trainings})
        self.close()
        for name in names:
            check_directory(self.cache(name))

    def close(self) -> None:
        self._stack.close()
        self.workers, self.trainings = {}, {}

    def _run(self, name: str, role: str) -> Process:
        machine = Machine(
            name=name,
            role=role,
            cache=os.fspath(self.cache(name)),
            capacity_bytes=CAPACITY,
            members=os.fspath(self.members),
            token_file=os.fspath(self._directory / f"token-{name}"),
            host=self.net.address(name),
            port=PORT,
            orders=os.fspath(self._directory / f"orders-{name}"),
            options=self.server.options,
        )
        command = [*self.net.inside(name), sys.executable, "-m", "tests.cache_runtime.cluster.roles"]
        log = self._directory / f"{name}-{role}.log"
        grace = 0.0 if role == "training" else 5.0
        return self._stack.enter_context(
            started([*command, json.dumps(asdict(machine))], log=log, ready=lambda _: True, grace_seconds=grace)
        )


def reports(orders: Mapping[str, Orders], *, seconds: float = 90.0) -> dict[str, Report]:
    """Wait for all reports; every byte of them must be right."""
    end = time.monotonic() + seconds
    found = {name: order.report(seconds=max(1.0, end - time.monotonic())) for name, order in orders.items()}
    assert [wrong for report in found.values() for wrong in report.wrong] == []
    return found


def check_directory(path: Path, *, capacity: int = CAPACITY) -> None:
    """Check a cache directory that nobody uses now: nothing lost, nothing too much, nothing damaged."""
    assert {entry.name for entry in path.iterdir()} <= _NAMES
    check_readers(os.fspath(path))
    store = BlockStore.open(path, capacity_bytes=capacity)
    assert inconsistencies(path) == []
    assert disk_usage(path) <= capacity
    found = store.scrub()
    assert (found.bad_parts, found.bad_units, found.complete) == (0, 0, True)
    store.close()


def _locks_of(path: Path) -> list[str]:
    """Return the lines of /proc/locks about a file."""
    inode = path.stat().st_ino
    return [line for line in Path("/proc/locks").read_text().splitlines() if f":{inode} " in line]
