"""Loads into 1 and 4 workers of one machine, and what the S3 server sent for them. Run by `benchmarks.prewarm cluster`.

The workers, the server and the loader share the cores: the times say nothing about four machines, the bytes do.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.source_contestants import forebay_store, keys, pinned
from tests.services.processes import free_port, started

if TYPE_CHECKING:
    from benchmarks.source_data import Work


def measure_cluster(*works: Work) -> list[dict[str, Any]]:
    """Return a row for each work and number of workers: seconds, and the bytes that the server sent over the data's."""
    rows = []
    for work in works:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-prewarm-")))
            place = work.prepare(stack, directory, work)
            for count, replicas in ((1, 1), (4, 1), (4, 2)):
                with ExitStack() as workers:
                    ports = _start(workers, directory / f"{count}-{replicas}", place, count, replicas)
                    rows.append({"objects": work.count, "size": work.size, **_load(place, ports, replicas)})
                    print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _start(stack: ExitStack, directory: Path, place: dict[str, Any], count: int, replicas: int) -> list[int]:
    from cache_runtime.peers.presence import find_worker

    ports = [free_port() for _ in range(count)]
    for number in range(count):
        cache = directory / str(number)
        cache.parent.mkdir(parents=True, exist_ok=True)
        given = {"place": place, "cache": os.fspath(cache), "ports": ports, "number": number, "replicas": replicas}
        command = [sys.executable, "-m", "benchmarks.prewarm_cluster", json.dumps(given)]
        ready = lambda _, cache=cache: find_worker(cache) is not None  # noqa: E731
        stack.enter_context(started(command, log=directory / f"{number}.log", ready=ready))
    return ports


def _peers(ports: list[int], **options: Any) -> Any:
    from cache_runtime.peers import Member, Peers, StaticMembers

    members = [Member(f"w{number}", f"http://127.0.0.1:{port}") for number, port in enumerate(ports)]
    return Peers(StaticMembers(members), **options)


def _load(place: dict[str, Any], ports: list[int], replicas: int) -> dict[str, Any]:
    from benchmarks.prewarm import sent_bytes
    from cache_runtime.loading import plan_distributed, run_distributed
    from sources import Location, ObjectRef

    store = forebay_store(place)
    ranges = [found for _, found in sorted(pinned(store, "data/").items())]
    locations = [Location(ObjectRef(store.id, one.key, one.version, one.length), 0, one.length) for one in ranges]
    assert len(locations) == len(keys(place))
    peers, before = _peers(ports), sent_bytes(place)
    report = run_distributed(peers, plan_distributed(peers, locations, replicas=replicas))
    assert report.verified, report
    sent = (sent_bytes(place) - before) / (place["count"] * place["size"])
    return {"workers": len(ports), "replicas": replicas, "seconds": round(report.seconds, 2), "origin": round(sent, 4)}


def main() -> None:
    """Be a worker."""
    from cache_runtime import BlockStore, Client
    from cache_runtime.worker.config import WorkerConfig
    from cache_runtime.worker.loads import LoadTable
    from cache_runtime.worker.serving import serve
    from sources import Origins

    given = json.loads(sys.argv[1])
    origins, cache, name = Origins(), Path(given["cache"]), f"w{given['number']}"
    origins.add("", forebay_store(given["place"]))
    peers = _peers(given["ports"], name=name, serves=True, replicas=given["replicas"])
    client = Client(origins, BlockStore.open(cache, capacity_bytes=4 << 30), peers=peers)
    config = WorkerConfig(name, cache, port=given["ports"][given["number"]], drain_seconds=1.0)
    serve(config, client=client, origins=origins, loads=LoadTable(client))


if __name__ == "__main__":
    main()
