"""What does a local hit of a large range cost through `Client.read`, beside a plain file that is read or mapped?

    .bench-venv/bin/python -m benchmarks.cache_hits --rounds 15 --json cache_hits.json

Ranges of 4 MiB (starts random, at multiples of 4 KiB) and whole objects of 64 MiB, of 8 objects, warm page cache. A
view of a mapping costs nothing until it is touched, so all do the same work with what they get:

- `copied`: the bytes arrive in one and the same buffer, as of a loader that fills a pinned batch: `client.read` and
  `mmap` are copied into it, `pread` is received into it by the kernel (`os.preadv`).
- `summed`: every byte is looked at once (NumPy's sum of 64-bit words) in what the call returned: the view, the
  mapping's slice, or the fresh bytes of `os.pread`.

Files are open and mapped before; Forebay compared its checksums on the first read. Rounds are interleaved, medians
(quartiles), the processor time that of the process.
"""

from __future__ import annotations

import mmap
import os
import random
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.rounds import (
    Cost,
    Stopwatch,
    chosen,
    machine,
    parser,
    shown,
    spread,
    table,
    take_turns,
    write_json,
)
from benchmarks.source_data import body_of
from cache_runtime import BlockStore, Client
from sources import FileStore, Location, ObjectRef, Origins

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    Get = Callable[[Location], Buffer]
    Use = Callable[[Location], object]

MIB = 1 << 20
OBJECT_BYTES = 64 * MIB
ROUND_BYTES = 512 * MIB
WAYS = ("client.read", "pread", "mmap")
_PAGE_BYTES = 4096


def run(
    *,
    objects: int = 8,
    rounds: int = 15,
    round_bytes: int = ROUND_BYTES,
    directory: Path | None = None,
    only: Sequence[str] = WAYS,
) -> dict[str, Any]:
    """Measure, and return the machine, the settings and GiB/s and seconds of the processor for each GiB."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-hits-", dir=directory)))
        uses = _uses(stack, scratch, objects, only)
        refs = next(iter(uses.values()))["refs"]
        rows = []
        for size in (4 * MIB, OBJECT_BYTES):
            for work in ("copied", "summed"):
                turns = {name: partial(_turn, use[work], refs, size, round_bytes) for name, use in uses.items()}
                rows += _rows(work, size, round_bytes / (1 << 30), take_turns(turns, rounds))
    return {"machine": machine(), "objects": objects, "rounds": rounds, "page_cache": "warm", "rows": rows}


def _uses(stack: ExitStack, scratch: Path, objects: int, only: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Make the files, and for each contestant what copies and what sums a range."""
    refs, fds = _write(scratch, objects)
    for fd in fds.values():
        stack.callback(os.close, fd)
    maps = {key: mmap.mmap(fd, OBJECT_BYTES, prot=mmap.PROT_READ) for key, fd in fds.items()}
    views = {key: memoryview(mapped) for key, mapped in maps.items()}
    origins = Origins()
    origins.add("", FileStore(scratch))
    client = Client(origins, BlockStore.open(scratch / "cache", capacity_bytes=2 * objects * OBJECT_BYTES))
    stack.callback(client.close)
    buffer = np.empty(OBJECT_BYTES, dtype=np.uint8)

    def mapped(location: Location) -> Buffer:
        return views[location.object.key][location.offset : location.offset + location.length]

    def pread(location: Location) -> Buffer:
        return os.pread(fds[location.object.key], location.length, location.offset)

    def pread_into(location: Location) -> None:
        got = os.preadv(fds[location.object.key], [memoryview(buffer)[: location.length]], location.offset)
        assert got == location.length

    copies: dict[str, Use] = {
        "client.read": lambda location: _copy(buffer, client.read(location)),
        "pread": pread_into,
        "mmap": lambda location: _copy(buffer, mapped(location)),
    }
    gets: dict[str, Get] = {"client.read": client.read, "pread": pread, "mmap": mapped}
    found = {name: {"copied": copies[name], "summed": partial(_sum, gets[name]), "refs": refs} for name in only}
    _warm(refs, gets, found, buffer)
    return found


def _write(scratch: Path, objects: int) -> tuple[list[ObjectRef], dict[str, int]]:
    files, refs, fds = FileStore(scratch), [], {}
    for number in range(objects):
        path = scratch / f"{number}.bin"
        path.write_bytes(np.roll(np.frombuffer(body_of(0, OBJECT_BYTES), dtype=np.uint8), number + 1))
        stat = files.stat(os.fspath(path)[1:])
        refs.append(ObjectRef(files.id, stat.key, stat.version, stat.size))
        fds[stat.key] = os.open(path, os.O_RDONLY)
    return refs, fds


def _warm(refs: Sequence[ObjectRef], gets: dict[str, Get], uses: dict[str, Any], buffer: np.ndarray[Any, Any]) -> None:
    """Read everything once in every way, and compare."""
    for ref in refs:
        location = Location(ref, 0, ref.size)
        gets["client.read"](location)  # fills
        wanted = bytes(gets["pread"](location))
        for name, use in uses.items():
            use["copied"](location)
            if memoryview(buffer) != wanted or bytes(gets[name](location)) != wanted:
                raise AssertionError(f"{name} reads other bytes")


def _copy(buffer: np.ndarray[Any, Any], view: Buffer) -> None:
    found = np.frombuffer(view, dtype=np.uint8)
    buffer[: len(found)] = found


def _sum(get: Get, location: Location) -> int:
    return int(np.frombuffer(get(location), dtype=np.uint64).sum())


def _turn(use: Use, refs: Sequence[ObjectRef], size: int, round_bytes: int, number: int) -> Cost:
    picks = random.Random(number)
    starts = range(0, OBJECT_BYTES - size + 1, _PAGE_BYTES)
    wanted = [Location(picks.choice(refs), picks.choice(starts), size) for _ in range(round_bytes // size)]
    for location in wanted:  # the kernel may have dropped some of it since the last round
        use(location)
    watch = Stopwatch()
    for location in wanted:
        use(location)
    return watch.cost()


def _rows(work: str, size: int, gib: float, costs: dict[str, list[Cost]]) -> list[dict[str, Any]]:
    rows = [
        {
            "work": work,
            "mib": size >> 20,
            "way": name,
            "gib_per_second": spread([gib / cost.wall for cost in found]),
            "cpu_seconds_per_gib": spread([cost.cpu / gib for cost in found]),
        }
        for name, found in costs.items()
    ]
    ours = rows[0]["gib_per_second"]["median"]
    cpu = rows[0]["cpu_seconds_per_gib"]["median"]
    for row in rows:
        row["ratio"] = round(ours / row["gib_per_second"]["median"], 2)
        row["cpu_ratio"] = round(row["cpu_seconds_per_gib"]["median"] / cpu, 2)
    return rows


def report(result: dict[str, Any]) -> str:
    head = ["range", "work", "way", "GiB/s", "CPU s/GiB", "client.read's speed (goal 0.95)", "the same in CPU"]
    rows = [
        [
            f"{row['mib']} MiB", row["work"], row["way"], shown(row["gib_per_second"]),
            shown(row["cpu_seconds_per_gib"]), row["ratio"], row["cpu_ratio"],
        ]
        for row in result["rows"]
    ]  # fmt: skip
    return table(head, rows)


def main() -> None:
    """Parse the command line, measure and print."""
    options = parser(__doc__, rounds=15).parse_args()
    only = list(dict.fromkeys(["client.read", *chosen(options, WAYS)]))
    objects = max(1, int(8 * options.scale))
    result = run(objects=objects, rounds=options.rounds, directory=options.directory, only=only)
    print(f"{result['machine']}, warm page cache, {result['rounds']} rounds\n\n{report(result)}")
    write_json(options.json, result)


if __name__ == "__main__":
    main()
