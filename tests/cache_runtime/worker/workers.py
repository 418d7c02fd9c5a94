"""Real workers for the tests: a process each, over a Lake, on a free port of 127.0.0.1."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3

from cache_runtime import BlockStore, Client
from cache_runtime.peers.presence import find_worker
from cache_runtime.protocol import format_range, object_target
from cache_runtime.worker.config import Limits, Tls, WorkerConfig
from cache_runtime.worker.loads import LoadTable
from cache_runtime.worker.logs import JsonLines
from cache_runtime.worker.serving import serve
from sources import FileStore, Origins
from tests.cache_runtime.lake import MIB, LoggingStore
from tests.services.processes import Process, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_runtime.store.shares import Share
    from sources import Location

CAPACITY = 256 * MIB


@dataclass
class Worker:
    """A running worker and a connection pool to it."""

    name: str
    url: str
    cache: Path
    process: Process
    token: str | None = None
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(maxsize=16, retries=False))

    def ask(self, method: str, target: str, **more: Any) -> urllib3.BaseHTTPResponse:
        headers = {**({"Authorization": f"Bearer {self.token}"} if self.token else {}), **more.pop("headers", {})}
        return self.http.request(method, self.url + target, headers=headers, timeout=60, **more)

    def post(self, target: str, body: bytes) -> urllib3.BaseHTTPResponse:
        return self.ask("POST", target, body=body, headers={"Content-Type": "application/json"})

    def read(self, location: Location, *, fill: bool = True, share: Share | None = None) -> urllib3.BaseHTTPResponse:
        headers = {"Range": format_range(location.offset, location.length)}
        return self.ask("GET", object_target(location.object, fill=fill, share=share), headers=headers)

    def stats(self) -> dict[str, Any]:
        found = self.ask("GET", "/v1/stats").json()
        assert isinstance(found, dict)
        return found


@contextmanager
def worker(lake_root: Path, cache: Path, *, name: str = "w1", **settings: Any) -> Iterator[Worker]:
    """Run a worker that reads `lake_root` through a `LoggingStore`; settings are `WorkerConfig`'s and `Limits`'."""
    log = cache.parent / f"{name}.log"
    given = {"lake": os.fspath(lake_root), "cache": os.fspath(cache), "name": name, **settings}
    command = [sys.executable, "-m", "tests.cache_runtime.worker.workers", json.dumps(given)]
    with started(command, log=log, ready=lambda _: find_worker(cache) is not None) as process:
        found = find_worker(cache)
        assert found is not None
        running = Worker(name, found.url, cache, process, settings.get("tokens", [None])[0])
        try:
            yield running
        finally:
            running.http.clear()


def main() -> None:
    """Be the worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", type=json.loads)
    settings = parser.parse_args().settings
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=settings.pop("log_level", "DEBUG"), handlers=[handler])
    root, cache = Path(settings.pop("lake")), Path(settings.pop("cache"))
    origins = Origins()
    log = root / "reads.log"
    origins.add(os.fspath(root)[1:] + "/", SlowStore(root, log, settings.pop("origin_seconds", 0.0)))
    if "tls" in settings:
        settings["tls"] = Tls(*map(Path, settings["tls"]))
    settings["tokens"] = tuple(settings.get("tokens", ()))
    config = WorkerConfig(directory=cache, limits=Limits(**settings.pop("limits", {})), **settings)
    client = Client(origins, BlockStore.open(cache, capacity_bytes=CAPACITY))
    serve(config, client=client, origins=origins, loads=LoadTable(client))
    client.close()


class SlowStore(LoggingStore):
    """A LoggingStore that takes its time; what is in `broken-keys` of its directory cannot be read."""

    def __init__(self, root: Path, log: Path, seconds: float) -> None:
        super().__init__(root, log)
        self._root = root
        self._seconds = seconds

    def read(self, key: str, *, start: int, length: int, version: Any) -> Any:
        import time

        time.sleep(self._seconds)
        broken = self._root / "broken-keys"
        self.broken = set(broken.read_text().split()) if broken.exists() else set()
        return super().read(key, start=start, length=length, version=version)


__all__ = ["FileStore", "Worker", "worker"]

if __name__ == "__main__":
    main()
