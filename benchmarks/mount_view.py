"""What does a mount pay to find a name, a row and a listing in a commit's tree, and how much memory does it take?

    .venv/bin/python -m benchmarks.mount_view --scale 1 [--json mount_view.json]

At --scale 1 the dataset has 10^7 paths, a thousand in each directory; the default is a tenth. Processor time, which the
rest of the machine disturbs least. *near*: neighbours, whose leaf was the last one asked; *warm*: random rows of as
many leaves as the cache holds; *cold*: random rows of all, whose leaves are mapped anew from the node cache on the
disk (the first time, in `stat`, they are decoded from the repository). The growth of the process is that of all of it.
"""

from __future__ import annotations

import random
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rounds import machine, parser, spread, table, write_json
from benchmarks.versioning_data import filled_repository, prefix_of
from cache_runtime.mount.view import ROOT, Place
from ds.mounting.opening import open_view
from sources import FileStore
from versioning import NodeFiles, Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ds.mounting.view import MountedVersion
    from versioning import CommitId

PATHS = 10_000_000
LOOKS = 20_000


def _build(directory: Path, paths: int) -> CommitId:
    return filled_repository(directory, paths)[1]


def _us(action: Callable[[Any], object], things: Iterable[Any]) -> float:
    given = list(things)
    started = time.process_time()
    for thing in given:
        action(thing)
    return (time.process_time() - started) / len(given) * 1e6


def _rss() -> dict[str, float]:
    """Return MiB of memory of this process: its own, and mapped files."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: round(int(fields[name].split()[0]) / 1024, 1) for name in ("RssAnon", "RssFile")}


def _listing(view: MountedVersion, directory: Place) -> int:
    count, row = 0, directory.row
    while True:
        part = view.children(directory, row)
        count += len(part.names)
        if part.next_row is None:
            return count
        row = part.next_row


def run(directory: Path, *, paths: int, rounds: int) -> dict[str, Any]:
    """Measure, and return microseconds of the processor."""
    with ProcessPoolExecutor(1, get_context("spawn")) as other:  # this one's memory is measured
        commit = other.submit(_build, directory / "repo", paths).result(3600)
    repository = Repository.open(FileStore(directory / "repo"), prefix_of(directory / "repo"))
    repository.nodes.files = NodeFiles(directory / "nodes", max_bytes=16 << 30)
    before = _rss()
    view = open_view(repository, commit)
    images = view.find(ROOT, b"images")
    assert images is not None
    assert view.rows == paths
    costs: dict[str, list[float]] = {}
    draw = random.Random(3)
    for _ in range(rounds):
        near = draw.randrange(view.rows - 200_000)
        kinds = {
            "near": [near + draw.randrange(4000) for _ in range(LOOKS)],
            "warm": [near + draw.randrange(150_000) for _ in range(LOOKS)],
            "cold": [draw.randrange(view.rows) for _ in range(LOOKS // 20)],
        }
        for kind, rows in kinds.items():
            places = [Place(row, 0) for row in rows]
            if kind != "cold":
                for place in places:
                    view.stat(place)
            costs.setdefault(f"{kind}: stat", []).append(_us(view.stat, places))
            costs.setdefault(f"{kind}: file", []).append(_us(view.file, rows))
            names = [(Place(row - row % 1000, 3), f"{row:09d}.jpg".encode()) for row in rows]
            costs.setdefault(f"{kind}: find", []).append(_us(lambda at: view.find(*at), names))
        some = Place(near - near % 1000, 3)
        costs.setdefault("list 1,000 files, per child", []).append(_us(lambda at: _listing(view, at), [some]) / 1000)
        directories = _listing(view, images.place)
        cost = _us(lambda at: _listing(view, at), [images.place]) / directories
        costs.setdefault(f"list {directories:,} directories, per child", []).append(cost)
    after = _rss()
    return {
        "machine": machine(),
        "paths": paths,
        "rounds": rounds,
        "cpu_us": {name: spread(found, 2) for name, found in costs.items()},
        "grown_mib": {name: round(after[name] - before[name], 1) for name in after},
    }


def main() -> None:
    """Parse the command line, measure and print."""
    made = parser(__doc__, rounds=3)
    made.set_defaults(scale=0.1)
    options = made.parse_args()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.directory)))
        result = run(scratch, paths=int(PATHS * options.scale), rounds=options.rounds)
    rows = [[name, row["median"], row["q1"], row["q3"]] for name, row in result["cpu_us"].items()]
    print(f"{result['machine']}, {result['paths']:,} paths, {result['rounds']} rounds\n")
    print(table(["CPU us", "median", "q1", "q3"], rows))
    print(f"\nmemory grown: {result['grown_mib']} MiB")
    write_json(options.json, result)


if __name__ == "__main__":
    main()
