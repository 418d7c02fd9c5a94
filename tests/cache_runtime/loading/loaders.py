"""Clusters of real workers that take loads: a process each, over one Lake."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_runtime import BlockStore, Client
from cache_runtime.peers import Member, Peers, StaticMembers, Timeouts
from cache_runtime.peers.presence import find_worker
from cache_runtime.worker.config import WorkerConfig
from cache_runtime.worker.loads import LoadTable
from cache_runtime.worker.serving import serve
from sources import Origins
from tests.cache_runtime.lake import MIB
from tests.cache_runtime.worker.workers import SlowStore
from tests.services.processes import Process, free_port, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cache_runtime.lake import Lake

FAST = Timeouts(connect_seconds=0.5, silent_seconds=1.0, idle_seconds=10.0, total_seconds=30.0)


class Crowd:
    """Running workers, and those who talk to them."""

    def __init__(self, ports: dict[str, int], processes: dict[str, Process], directory: Path) -> None:
        self.members = [Member(name, f"http://127.0.0.1:{port}") for name, port in ports.items()]
        self.processes = processes
        self._directory = directory

    @property
    def peers(self) -> Peers:
        return Peers(StaticMembers(self.members), timeouts=FAST)

    def store(self, name: str, *, capacity_bytes: int = 256 * MIB) -> BlockStore:
        return BlockStore.open(self._directory / f"cache-{name}", capacity_bytes=capacity_bytes)


@contextmanager
def crowd(lake: Lake, directory: Path, *names: str, **settings: Any) -> Iterator[Crowd]:
    """Run workers that know each other; settings are `origin_seconds`, `capacity_bytes` and `replicas`."""
    ports = {name: free_port() for name in names}
    processes: dict[str, Process] = {}
    with ExitStack() as stack:
        for name in names:
            cache = directory / f"cache-{name}"
            given = {"lake": os.fspath(lake.root), "cache": os.fspath(cache), "name": name, "ports": ports, **settings}
            command = [sys.executable, "-m", "tests.cache_runtime.loading.loaders", json.dumps(given)]
            log = directory / f"{name}.log"
            processes[name] = stack.enter_context(started(command, log=log, ready=lambda _: True))
        for name in names:
            cache = directory / f"cache-{name}"
            processes[name].wait_until(lambda _, cache=cache: find_worker(cache) is not None)  # type: ignore[misc]
        yield Crowd(ports, processes, directory)


def main() -> None:
    """Be a worker."""
    settings = json.loads(sys.argv[1])
    root, name = Path(settings["lake"]), settings["name"]
    origins = Origins()
    store = SlowStore(root, root / "reads.log", settings.get("origin_seconds", 0.0))
    origins.add(os.fspath(root)[1:] + "/", store)
    capacity = settings.get("capacity_bytes", 256 * MIB)
    members = StaticMembers(Member(one, f"http://127.0.0.1:{port}") for one, port in settings["ports"].items())
    peers = Peers(members, name=name, serves=True, replicas=settings.get("replicas", 1), timeouts=FAST)
    client = Client(origins, BlockStore.open(Path(settings["cache"]), capacity_bytes=capacity), peers=peers)
    config = WorkerConfig(name, Path(settings["cache"]), port=settings["ports"][name], drain_seconds=2.0)
    serve(config, client=client, origins=origins, loads=LoadTable(client), neighbours=peers)
    client.close()


if __name__ == "__main__":
    main()
