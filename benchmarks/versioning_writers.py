"""Many processes that commit to one branch: do all get in, how often do they try, how long does the slowest wait?

    .bench-venv/bin/python -m benchmarks.versioning_writers [directory s3] [--json results.json]

Each writer is a process; it commits one new path at a time, on the head that it has just read. `directory` is the local
disk, `s3` a SeaweedFS server beside the writers on the same cores: a real store answers later and has no such
neighbours, so compare retries and fairness, not seconds. A retry is a lost race: the writer rebases and tries again.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from benchmarks.rounds import machine, parser, table, write_json
from benchmarks.versioning_data import AUTHOR, prefix_of, rows
from sources import open_store
from tests.services.weed import s3_server
from versioning import ChangeSet, Repository, RetryPolicy

if TYPE_CHECKING:
    from sources import RepositoryStore

WRITERS, COMMITS = 16, 5
BASE = 20_000


class Place(NamedTuple):
    """Where the repository lies, in words that another process can open."""

    uri: str
    options: dict[str, object]
    prefix: str

    def open(self) -> RepositoryStore:
        return cast("RepositoryStore", open_store(self.uri, self.options))


class _Counted(RetryPolicy):
    """Counts the waits of this process."""

    waits = 0

    def wait(self, attempt: int) -> None:
        _Counted.waits += 1
        super().wait(attempt)


def write(place: Place, writer: int, commits: int, start_at: float) -> dict[str, Any]:
    """Commit some paths and say how long each commit took, and how many races were lost."""
    store = place.open()
    opened = Repository.open(store, place.prefix)
    repository = Repository(store, place.prefix, opened.spec, retry=_Counted())
    time.sleep(max(0.0, start_at - time.time()))
    seconds = []
    for number in range(commits):
        change = ChangeSet.of_table(rows(np.array([BASE + writer * commits + number])))
        begun = time.perf_counter()
        repository.commit_changes("main", change, message="", author=AUTHOR, base=repository.head("main"))
        seconds.append(time.perf_counter() - begun)
    return {"seconds": seconds, "retries": _Counted.waits, "ended_at": time.time()}


def measure(place: Place, writers: int, commits: int) -> dict[str, Any]:
    repository = Repository.init(place.open(), place.prefix)
    first = ChangeSet.of_table(rows(np.arange(BASE)))
    repository.commit_changes("main", first, message="", author=AUTHOR, base=None)
    start_at = time.time() + 1 + writers / 4  # starting a process takes a quarter of a second of both cores
    with ProcessPoolExecutor(writers, multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(write, place, writer, commits, start_at) for writer in range(writers)]
        found = [future.result(300) for future in running]
    history = sum(1 for _ in repository.log("main")) - 1
    assert history == writers * commits, f"{history} of {writers * commits} commits are there"
    assert repository.tree("main").rows == BASE + writers * commits
    waits = sorted(second for one in found for second in one["seconds"])
    wall = max(one["ended_at"] for one in found) - start_at
    return {
        "commits": history,
        "wall": wall,
        "retries": sum(one["retries"] for one in found),
        "median": float(np.median(waits)),
        "worst": waits[-1],
        "fewest_retries": min(one["retries"] for one in found),
        "most_retries": max(one["retries"] for one in found),
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    command = parser(__doc__, rounds=1)
    command.add_argument("places", nargs="*", default=["directory", "s3"])
    command.add_argument("--writers", type=int, default=WRITERS)
    options = command.parse_args(arguments)
    commits = max(1, int(COMMITS * options.scale))
    results: dict[str, dict[str, Any]] = {}
    for name in options.places:
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.directory)))
            if name == "s3":
                server = stack.enter_context(s3_server(scratch / "s3", buckets=("bench",)))
                place = Place("s3://bench", server.options, "repo/")
            else:
                place = Place(f"file://{scratch}", {}, prefix_of(scratch))
            results[name] = measure(place, options.writers, commits)
    print(machine())
    head = ["store", "writers", "commits", "commits/s", "retries/commit", "of a writer", "median s", "worst s"]
    lines = [
        [
            name,
            options.writers,
            row["commits"],
            f"{row['commits'] / row['wall']:.1f}",
            f"{row['retries'] / row['commits']:.2f}",
            f"{row['fewest_retries']} - {row['most_retries']}",
            f"{row['median']:.2f}",
            f"{row['worst']:.2f}",
        ]
        for name, row in results.items()
    ]
    print(table(head, lines))
    write_json(options.json, {"machine": machine(), "writers": options.writers, "results": results})
    return results


if __name__ == "__main__":
    main()
