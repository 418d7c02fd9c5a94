"""What does a hit on another worker cost, next to nginx, and what does a batch save?

Peer hit: 4 MiB ranges of 64 MiB objects, random, from a worker and from nginx (`sendfile on`, one process, as the
worker is one) that serves the same bytes from plain files. Both send from the warm page cache over loopback to one
client: bare sockets that receive into a buffer, a thread for each connection, so that the client costs as little as it
can. Rounds alternate. CPU is that of the server's process, user and system, per GiB. The worker does what it always
does: it looks the range up, checks a block on its first read, and sends the blocks' checksums along; the client of this
benchmark compares no checksum, with either server.

Batch: 64 random objects of 10 KiB by one `POST /v1/batch`, against one GET each on one kept connection (the GETs by the
same bare socket; by urllib3, which clients use, they are slower). Both from the same worker, which has all of them and
has checked each once. The two alternate with each 64 objects. The batch includes what its client does: it writes the
request, takes the answer apart and compares each checksum. The GETs' client does none of that; what the checksums of 64
objects cost is a row of its own.

    python -m benchmarks.peer_hit --rounds 15 --json peer_hit.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.rounds import spread
from cache_runtime import BlockStore, Client
from cache_runtime.peers.presence import find_worker
from cache_runtime.protocol import BATCH_PATH, encode_batch, format_range, object_target, split_batch
from cache_runtime.store.layout import checksums_in
from cache_runtime.worker.config import WorkerConfig
from cache_runtime.worker.serving import serve
from sources import FileStore, Location, ObjectRef, Origins
from tests.services.http import nginx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MIB = 1 << 20
LARGE_BYTES, RANGE_BYTES = 64 * MIB, 4 * MIB
SMALL_BYTES, BATCH_ITEMS = 10 << 10, 64
_TICK = os.sysconf("SC_CLK_TCK")


class Server(NamedTuple):
    """One contestant: where it listens, its process, and how it names a range."""

    port: int
    pid: int
    target: Callable[[Location], str]


def run(
    *, objects: int = 8, requests: int = 64, small: int = 2000, batches: int = 20, rounds: int = 15
) -> dict[str, Any]:
    """Measure, and return the machine, the settings and the results."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        web = stack.enter_context(nginx(scratch))
        large_refs = _write_objects(web.root, objects, LARGE_BYTES)
        small_refs = _write_objects(web.root, small, SMALL_BYTES)
        _fill(web.root, scratch / "cache", large_refs + small_refs)
        port, pid = stack.enter_context(_worker(web.root, scratch / "cache"))
        root = os.fspath(web.root)[1:] + "/"
        servers = {
            "worker": Server(port, pid, lambda location: object_target(location.object, fill=False)),
            "nginx": Server(web.port, _listener(web.port), lambda one: f"/{one.object.key.removeprefix(root)}"),
        }
        blocks = [Location(ref, at, RANGE_BYTES) for ref in large_refs for at in range(0, LARGE_BYTES, RANGE_BYTES)]
        return {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
            "python": platform.python_version(),
            "page_cache": "warm",
            "rounds": rounds,
            "peer_hit": {n: _compare(servers, blocks, requests, rounds, connections=n) for n in (1, 8)},
            "batch": _compare_batch(servers["worker"], small_refs, batches, rounds),
        }


def _write_objects(root: Path, count: int, size: int) -> list[ObjectRef]:
    files, refs = FileStore(root), []
    (root / f"{size}").mkdir(parents=True)
    for number in range(count):
        path = root / f"{size}" / f"{number}.bin"
        path.write_bytes(os.urandom(size))
        stat = files.stat(os.fspath(path)[1:])
        refs.append(ObjectRef(files.id, stat.key, stat.version, stat.size))
    return refs


def _client(root: Path, cache: Path) -> tuple[Client, Origins]:
    origins = Origins()
    origins.add(os.fspath(root)[1:] + "/", FileStore(root))
    return Client(origins, BlockStore.open(cache, capacity_bytes=4 << 30)), origins


def _fill(root: Path, cache: Path, refs: Sequence[ObjectRef]) -> None:
    client, _ = _client(root, cache)
    for ref in refs:
        client.read_many([Location(ref, 0, ref.size)])
    client.close()


def _serve(root: Path, cache: Path) -> None:
    client, origins = _client(root, cache)
    serve(WorkerConfig(name="bench", directory=cache), client=client, origins=origins)


@contextmanager
def _worker(root: Path, cache: Path) -> Iterator[tuple[int, int]]:
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(root, cache), daemon=True)
    process.start()
    try:
        deadline = time.monotonic() + 60
        while (found := find_worker(cache)) is None:
            if time.monotonic() > deadline or not process.is_alive():
                raise RuntimeError("the worker did not start")
            time.sleep(0.05)
        yield int(urlsplit(found.url).port or 0), found.pid
    finally:
        process.terminate()
        process.join(30)


def _listener(port: int) -> int:
    """Find the process that listens on a port, by its socket's inode."""
    wanted = f"0100007F:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inode = next(row[9] for row in rows if row[1] == wanted and row[3] == "0A")
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == f"socket:[{inode}]":
                return int(link.parts[2])
        except OSError:  # it ended, or is not ours
            continue
    raise RuntimeError(f"nobody listens on {port}")


def _compare(
    servers: dict[str, Server], blocks: list[Location], requests: int, rounds: int, *, connections: int
) -> dict[str, Any]:
    """Time rounds that alternate, and sum up."""
    picks = random.Random(connections)
    clients = {name: [_Connection(server.port) for _ in range(connections)] for name, server in servers.items()}
    for name, server in servers.items():  # warms the page cache, and the worker checks each block once
        for block in blocks:
            clients[name][0].get(server.target(block), block)
    rates: dict[str, list[float]] = {name: [] for name in servers}
    costs: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(rounds):
        wanted = picks.choices(blocks, k=requests)
        for name in (list(servers), list(reversed(servers)))[number % 2]:
            before, start = _cpu_seconds(servers[name].pid), time.perf_counter()
            _get_all(clients[name], servers[name], wanted)
            gib = requests * RANGE_BYTES / (1 << 30)
            rates[name].append(gib / (time.perf_counter() - start))
            costs[name].append((_cpu_seconds(servers[name].pid) - before) / gib)
    for connections_to in clients.values():
        for connection in connections_to:
            connection.close()
    return {
        "gib_per_second": {name: spread(values) for name, values in rates.items()},
        # the kernel counts in ticks of 10 ms: the mean of all rounds is finer than the median of one
        "cpu_seconds_per_gib": {name: round(statistics.fmean(values), 3) for name, values in costs.items()},
    }


def _get_all(connections: list[_Connection], server: Server, wanted: list[Location]) -> None:
    failures: list[BaseException] = []

    def get_some(number: int) -> None:
        try:
            for block in wanted[number :: len(connections)]:
                connections[number].get(server.target(block), block)
        except (OSError, ValueError) as error:
            failures.append(error)

    if len(connections) == 1:
        get_some(0)
    else:
        threads = [threading.Thread(target=get_some, args=(number,)) for number in range(len(connections))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


class _Connection:
    """A bare HTTP/1.1 client: the least that a client can cost."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(RANGE_BYTES + (64 << 10)))

    def get(self, target: str, block: Location) -> memoryview:
        """Return the bytes of a range; they are overwritten by the next request."""
        header = f"GET {target} HTTP/1.1\r\nHost: bench\r\nRange: {format_range(block.offset, block.length)}\r\n\r\n"
        return self._exchange(header.encode(), 206)

    def post(self, target: str, body: bytes) -> memoryview:
        """Return the body of an answer to a JSON body."""
        header = f"POST {target} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        return self._exchange(f"{header}Content-Length: {len(body)}\r\n\r\n".encode() + body, 200)

    def _exchange(self, request: bytes, status: int) -> memoryview:
        self._socket.sendall(request)
        got = self._socket.recv_into(self._buffer)
        while (end := bytes(self._buffer[: min(got, 4096)]).find(b"\r\n\r\n")) < 0:
            got += self._socket.recv_into(self._buffer[got:])
        lines = bytes(self._buffer[:end]).lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
        if int(lines[0].split()[1]) != status:
            raise ValueError(f"the server answered {lines[0]!r}")
        while got < end + 4 + length:
            count = self._socket.recv_into(self._buffer[got:])
            if not count:
                raise ConnectionError("the server broke off")
            got += count
        return self._buffer[end + 4 : got]

    def last(self, length: int) -> memoryview:
        """Return bytes that came, of whatever answers."""
        return self._buffer[:length]

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def _compare_batch(server: Server, refs: list[ObjectRef], batches: int, rounds: int) -> dict[str, Any]:
    picks, connection = random.Random(0), _Connection(server.port)
    for start in range(0, len(refs), BATCH_ITEMS):  # the worker checks each object once
        _get_batch(connection, server, [Location(ref, 0, ref.size) for ref in refs[start : start + BATCH_ITEMS]])
    times: dict[str, list[float]] = {"batch": [], "gets": [], "checksums": []}
    ways = {"batch": _get_batch, "gets": _get_each, "checksums": _sum_each}
    for _ in range(rounds):
        spent = dict.fromkeys(ways, 0.0)
        for _ in range(batches):
            items = [Location(ref, 0, ref.size) for ref in picks.choices(refs, k=BATCH_ITEMS)]
            for name, way in ways.items():
                began = time.perf_counter()
                way(connection, server, items)
                spent[name] += time.perf_counter() - began
        for name, seconds in spent.items():
            times[name].append(seconds / batches * 1e3)
    connection.close()
    return {"milliseconds": {name: spread(values) for name, values in times.items()}}


def _get_batch(connection: _Connection, server: Server, items: list[Location]) -> None:
    body = connection.post(BATCH_PATH, encode_batch(items, fill=False))
    if any(answer.error for answer in split_batch(body, items)):  # compares each checksum, too
        raise ValueError("an item was not cached")


def _get_each(connection: _Connection, server: Server, items: list[Location]) -> None:
    for item in items:
        connection.get(server.target(item), item)


def _sum_each(connection: _Connection, _server: Server, items: list[Location]) -> None:
    crc_of = checksums_in(connection.last(sum(item.length for item in items)))
    for number, item in enumerate(items):
        crc_of(number * SMALL_BYTES, (number + 1) * SMALL_BYTES, item.object.id)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _print_tables(result: dict[str, Any]) -> None:
    print(f"{result['machine']}, Python {result['python']}, warm page cache, {result['rounds']} rounds\n")
    print("| 4 MiB ranges | worker GiB/s | nginx GiB/s | ratio (goal 0.9) | worker CPU s/GiB | nginx CPU s/GiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for connections, row in result["peer_hit"].items():
        rate, cpu = row["gib_per_second"], row["cpu_seconds_per_gib"]
        cells = [f"{rate[name]['median']} ({rate[name]['q1']}..{rate[name]['q3']})" for name in ("worker", "nginx")]
        ratio = rate["worker"]["median"] / rate["nginx"]["median"]
        print(f"| {connections} connections | {' | '.join(cells)} | {ratio:.2f} | {cpu['worker']} | {cpu['nginx']} |")
    batch, gets, sums = (result["batch"]["milliseconds"][name] for name in ("batch", "gets", "checksums"))
    print("\n| 64 x 10 KiB | ms | times (goal 10) |\n| --- | --- | --- |")
    print(f"| one batch | {batch['median']} ({batch['q1']}..{batch['q3']}) | {gets['median'] / batch['median']:.1f} |")
    print(f"| one GET each | {gets['median']} ({gets['q1']}..{gets['q3']}) | 1 |")
    print(f"| 64 checksums, which are in the batch | {sums['median']} ({sums['q1']}..{sums['q3']}) | |")


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=8, help="of 64 MiB")
    parser.add_argument("--requests", type=int, default=64, help="of 4 MiB, in each round")
    parser.add_argument("--rounds", type=int, default=15, help="at least 2")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    arguments = parser.parse_args()
    result = run(objects=arguments.objects, requests=arguments.requests, rounds=arguments.rounds)
    _print_tables(result)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
