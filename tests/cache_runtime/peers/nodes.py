"""Clusters of real workers for the tests: a process each, over one Lake, members by a file."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cache_runtime import BlockStore, Client
from cache_runtime.peers import FileMembers, Peers, PeerSecurity, Timeouts
from cache_runtime.peers.presence import find_worker
from cache_runtime.worker.config import WorkerConfig
from cache_runtime.worker.serving import serve
from sources import Origins
from tests.cache_runtime.lake import MIB
from tests.cache_runtime.worker.workers import SlowStore
from tests.services.processes import Process, free_port, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cache_runtime.lake import Lake

CAPACITY = 256 * MIB
TOKEN = "a token of the tests"
FAST = Timeouts(connect_seconds=0.5, silent_seconds=1.0, probe_seconds=0.5, idle_seconds=5.0, total_seconds=20.0)


class Cluster:
    """Workers that come and go; `members` is the file that all of them, and all clients, look at."""

    def __init__(self, lake: Lake, directory: Path) -> None:
        self.lake = lake
        self.members = directory / "members"
        self._directory = directory
        self._stack = ExitStack()
        self._ports: dict[str, int] = {}
        self.processes: dict[str, Process] = {}

    def start(self, *names: str, origin_seconds: float = 0.0) -> None:
        """Add members, and run their workers."""
        for name in names:
            self._ports.setdefault(name, free_port())
        self.list_members(*sorted({*self.processes, *names}))
        for name in names:
            settings = {
                "lake": os.fspath(self.lake.root),
                "cache": os.fspath(self.cache(name)),
                "name": name,
                "port": self._ports[name],
                "members": os.fspath(self.members),
                "origin_seconds": origin_seconds,
            }
            command = [sys.executable, "-m", "tests.cache_runtime.peers.nodes", json.dumps(settings)]
            log = self._directory / f"{name}.log"
            self.processes[name] = self._stack.enter_context(started(command, log=log, ready=lambda _: True))
        for name in names:
            cache = self.cache(name)
            self.processes[name].wait_until(lambda _, cache=cache: find_worker(cache) is not None)  # type: ignore[misc]

    def list_members(self, *names: str) -> None:
        """Write the members file, as whoever runs a cluster does."""
        new = self.members.with_suffix(".new")
        new.write_text("".join(f"{name} http://127.0.0.1:{self._ports[name]}\n" for name in names))
        new.rename(self.members)

    def restore(self, *names: str) -> None:
        """Run these and no others."""
        for name in {*self.processes} - {*names}:
            self.processes.pop(name).stop()
        self.start(*(name for name in names if not self.processes[name].is_running))

    def cache(self, name: str) -> Path:
        return self._directory / f"cache-{name}"

    def peers(self, *, timeouts: Timeouts = FAST, token: str = TOKEN) -> Peers:
        """What a process that is no member uses."""
        security = PeerSecurity(token=token)
        return Peers(FileMembers(self.members, refresh_seconds=0.05), security=security, timeouts=timeouts)

    def client(self, *, timeouts: Timeouts = FAST, token: str = TOKEN) -> Client:
        """Return a client without a store."""
        return Client(self.lake.origins, None, peers=self.peers(timeouts=timeouts, token=token))

    def node_client(self, name: str) -> Client:
        """Return a client of another process on a worker's node."""
        store = BlockStore.open(self.cache(name), capacity_bytes=CAPACITY)
        peers = Peers(
            FileMembers(self.members, refresh_seconds=0.05),
            directory=store.directory,
            security=PeerSecurity(token=TOKEN),
            timeouts=FAST,
        )
        return Client(self.lake.origins, store, peers=peers)

    def close(self) -> None:
        self._stack.close()


@contextmanager
def clustered(lake: Lake, directory: Path, *names: str, origin_seconds: float = 0.0) -> Iterator[Cluster]:
    """Run a cluster."""
    cluster = Cluster(lake, directory)
    try:
        cluster.start(*names, origin_seconds=origin_seconds)
        yield cluster
    finally:
        cluster.close()


def main() -> None:
    """Be a worker."""
    settings = json.loads(sys.argv[1])
    root = Path(settings["lake"])
    origins = Origins()
    origins.add(os.fspath(root)[1:] + "/", SlowStore(root, root / "reads.log", settings["origin_seconds"]))
    store = BlockStore.open(Path(settings["cache"]), capacity_bytes=CAPACITY)
    peers = Peers(
        FileMembers(settings["members"], refresh_seconds=0.05),
        name=settings["name"],
        serves=True,
        security=PeerSecurity(token=TOKEN),
        timeouts=FAST,
    )
    config = WorkerConfig(
        settings["name"], Path(settings["cache"]), port=settings["port"], tokens=(TOKEN,), drain_seconds=2.0
    )
    client = Client(origins, store, peers=peers)
    serve(config, client=client, origins=origins, neighbours=peers)
    client.close()


if __name__ == "__main__":
    main()
