"""What runs on the machines of a cluster: a worker, and a training that reads through the same cache directory.

A training does what is ordered by a file `order-N.json` of its directory, and writes `report-N.json`.
"""

from __future__ import annotations

import json
import logging
import pickle
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_runtime import BlockStore, Client, FileMembers, Peers, PeerSecurity
from cache_runtime.worker.config import WorkerConfig
from cache_runtime.worker.loads import LoadTable
from cache_runtime.worker.serving import serve
from sources import SourceError
from tests.cache_runtime.cluster.pool import open_origins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sources import Location
    from tests.cache_runtime.cluster.pool import Pool

DRAIN_SECONDS = 15.0
_BATCH = 4
_SLOW_SECONDS = 1.0
_REFRESH_SECONDS = 0.2


@dataclass(frozen=True)
class Machine:
    """What a role is told."""

    name: str
    role: str
    cache: str
    capacity_bytes: int
    members: str
    token_file: str
    host: str
    port: int
    orders: str
    options: dict[str, object]


@dataclass
class Report:
    """What a training saw.

    Attributes:
        reads, bytes: What it read and compared.
        wrong: Reads with a wrong byte.
        failed: Reads that an error of the origin ended.
        longest, p99: Seconds of one call.
        slow: When (seconds from the start) and for how long calls took more than a second.
        stats: What its client counted meanwhile.
    """

    reads: int = 0
    bytes: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    longest: float = 0.0
    p99: float = 0.0
    slow: list[tuple[float, float]] = field(default_factory=list)
    stats: dict[str, int] = field(default_factory=dict)


def run_worker(machine: Machine) -> None:
    """Serve until told to leave."""
    origins = open_origins(machine.options)
    store = BlockStore.open(Path(machine.cache), capacity_bytes=machine.capacity_bytes)
    peers = Peers(
        FileMembers(machine.members, refresh_seconds=_REFRESH_SECONDS),
        name=machine.name,
        serves=True,
        security=PeerSecurity(token_file=machine.token_file),
    )
    client = Client(origins, store, peers=peers)
    config = WorkerConfig(
        machine.name,
        Path(machine.cache),
        host=machine.host,
        port=machine.port,
        token_file=Path(machine.token_file),
        drain_seconds=DRAIN_SECONDS,
    )
    serve(config, client=client, origins=origins, loads=LoadTable(client), neighbours=peers)
    client.close()


def run_training(machine: Machine) -> None:
    """Do order after order, until killed."""
    store = BlockStore.open(Path(machine.cache), capacity_bytes=machine.capacity_bytes)
    peers = Peers(
        FileMembers(machine.members, refresh_seconds=_REFRESH_SECONDS),
        directory=store.directory,
        security=PeerSecurity(token_file=machine.token_file),
    )
    client = Client(open_origins(machine.options), store, peers=peers)
    orders = Path(machine.orders)
    print("training", flush=True)
    number = 0
    while True:
        path = orders / f"order-{number}.json"
        if not path.exists():
            time.sleep(0.02)
            continue
        report = train(client, **json.loads(path.read_text()))
        new = orders / "report.new"
        new.write_text(json.dumps(asdict(report)))
        new.rename(orders / f"report-{number}.json")
        number += 1


def train(
    client: Client, *, pool: str, seed: int, epochs: int | None, seconds: float | None, pause: float = 0.0
) -> Report:
    """Read epochs, each in another random order, and compare every byte; so many, or as many as the time allows."""
    data: Pool = pickle.loads(Path(pool).read_bytes())
    picks, report = random.Random(seed), Report()
    times: list[float] = []
    before, begin = client.stats.snapshot(), time.monotonic()
    end = None if seconds is None else begin + seconds
    epoch = 0
    while epochs is None or epoch < epochs:
        samples = data.samples()
        picks.shuffle(samples)
        for start in range(0, len(samples), _BATCH):
            if end is not None and time.monotonic() > end:
                return _finished(report, times, client, before)
            _read(client, data, samples[start : start + _BATCH], one_by_one=start % 3 == 0, report=report, times=times)
            if times and times[-1] > _SLOW_SECONDS:
                report.slow.append((round(time.monotonic() - times[-1] - begin, 2), round(times[-1], 2)))
            time.sleep(pause)
        epoch += 1
    return _finished(report, times, client, before)


def _read(
    client: Client,
    data: Pool,
    batch: Sequence[Location],
    *,
    one_by_one: bool,
    report: Report,
    times: list[float],
) -> None:
    for part in [[sample] for sample in batch] if one_by_one else [batch]:
        began = time.monotonic()
        try:
            views = client.read_many(part) if len(part) > 1 else [client.read(part[0])]
        except SourceError as error:
            report.failed.append(str(error)[:200])
            views = []
        times.append(time.monotonic() - began)
        for sample, view in zip(part, views, strict=False):
            report.reads += 1
            report.bytes += len(view)
            if view != data.part(sample):
                report.wrong.append(f"{sample.object.uri} {sample.offset}+{sample.length}")


def _finished(report: Report, times: list[float], client: Client, before: Any) -> Report:
    times.sort()
    if times:
        report.longest, report.p99 = times[-1], times[int(0.99 * (len(times) - 1))]
    report.stats = asdict(client.stats.snapshot() - before)
    return report


def main() -> None:
    """Be what the argument says."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    machine = Machine(**json.loads(sys.argv[1]))
    {"worker": run_worker, "training": run_training}[machine.role](machine)


if __name__ == "__main__":
    main()
