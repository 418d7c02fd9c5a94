"""What does a local hit of a small object cost through `Client.read`?

Compared, in one process and one run, in rounds that alternate, over the same objects in the same random order, with
    - a bare `os.pread` of the same bytes of the same slabs, open already: what the kernel takes, the floor;
    - open + read + close of one loose file per object, unbuffered, paths made beforehand.
All three read from the warm page cache, and every object was read before (so its checksum was compared before: the
client compares on the first read in a process only). Medians over the rounds; the spread is the interquartile range.

    python benchmarks/local_hit.py --objects 20000 --rounds 15 --json local_hit.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_runtime import BlockStore, Client
from cache_runtime.layout import RECORD_HEADER
from sources import FileStore, Location, ObjectRef, Origins

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OBJECT_BYTES = 10 << 10


def run(*, objects: int = 20_000, rounds: int = 15, directory: Path | None = None) -> dict[str, Any]:
    """Measure, and return the machine, the settings and the results in microseconds per read."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        return _measure(Path(scratch), objects, rounds)


def _measure(scratch: Path, objects: int, rounds: int) -> dict[str, Any]:
    paths = [scratch / "loose" / f"{n % 256:02x}" / f"{n}.bin" for n in range(objects)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(OBJECT_BYTES))
    files = FileStore(scratch)
    origins = Origins()
    origins.add("", files)
    client = Client(origins, BlockStore.open(scratch / "cache", capacity_bytes=max(256 << 20, objects * 16384)))
    locations = [_locate(files, path) for path in paths]
    for start in range(0, objects, 512):
        client.read_many(locations[start : start + 512])
    slabs = _find_records(scratch / "cache", {location.object.id for location in locations})
    order = random.Random(0).sample(range(objects), objects)
    hits = [locations[n] for n in order]
    places = [slabs[locations[n].object.id] for n in order]
    loose = [os.fspath(paths[n]) for n in order]
    for location, place, name in zip(hits, places, loose, strict=True):
        if not client.read(location) == _pread(place) == _read_file(name):
            raise AssertionError(f"{name}: the three ways read different bytes")
    ways: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
        "client.read": (client.read, hits),
        "os.pread": (_pread, places),
        "file": (_read_file, loose),
    }
    times = _time_rounds(ways, rounds)
    if client.stats.snapshot().reads_origin > objects:
        raise AssertionError("the measured reads were not hits")
    return _summarise(times, objects, rounds)


def _locate(files: FileStore, path: Path) -> Location:
    stat = files.stat(os.fspath(path)[1:])
    return Location(ObjectRef(files.id, stat.key, stat.version, stat.size), 0, stat.size)


def _find_records(cache: Path, wanted: set[bytes]) -> dict[bytes, tuple[int, int]]:
    """Walk the slabs and return the descriptor and offset of each object's bytes."""
    found: dict[bytes, tuple[int, int]] = {}
    for path in sorted((cache / "slabs").iterdir()):
        fd = os.open(path, os.O_RDONLY)
        offset = 0
        while len(header := os.pread(fd, RECORD_HEADER.size, offset)) == RECORD_HEADER.size:
            _, object_id, size, _ = RECORD_HEADER.unpack(header)
            if object_id in wanted:
                found[object_id] = (fd, offset + RECORD_HEADER.size)
            offset += RECORD_HEADER.size + size
    return found


def _pread(place: tuple[int, int]) -> bytes:
    return os.pread(place[0], OBJECT_BYTES, place[1])


def _read_file(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _time_rounds(ways: dict[str, tuple[Callable[[Any], object], Sequence[Any]]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (way, arguments) in ways.items():
            start = time.perf_counter()
            for argument in arguments:
                way(argument)
            times[name].append((time.perf_counter() - start) / len(arguments) * 1e6)
    return times


def _summarise(times: dict[str, list[float]], objects: int, rounds: int) -> dict[str, Any]:
    median = {name: statistics.median(values) for name, values in times.items()}
    quartiles = {name: statistics.quantiles(values, n=4) for name, values in times.items()}
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "python": platform.python_version(),
        "object_bytes": OBJECT_BYTES,
        "objects": objects,
        "rounds": rounds,
        "page_cache": "warm",
        "microseconds": {name: round(value, 3) for name, value in median.items()},
        "interquartile": {name: [round(q[0], 3), round(q[2], 3)] for name, q in quartiles.items()},
        "client_to_pread": round(median["client.read"] / median["os.pread"], 3),
        "file_to_client": round(median["file"] / median["client.read"], 3),
    }


def _print_table(result: dict[str, Any]) -> None:
    print(f"{result['machine']}, Python {result['python']}, warm page cache")
    print(f"{result['objects']} objects of {result['object_bytes']} bytes, {result['rounds']} rounds, us per read")
    for name, value in result["microseconds"].items():
        low, high = result["interquartile"][name]
        print(f"  {name:12} {value:8.2f}   ({low:.2f} .. {high:.2f})")
    print(f"client.read / os.pread: {result['client_to_pread']:.2f}   (goal: at most 1.6)")
    print(f"open+read+close / client.read: {result['file_to_client']:.2f}   (goal: at least 2)")


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=15, help="at least 2")
    parser.add_argument("--directory", type=Path, help="where to make the scratch directory; default: the system's")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    arguments = parser.parse_args()
    result = run(objects=arguments.objects, rounds=arguments.rounds, directory=arguments.directory)
    _print_table(result)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
