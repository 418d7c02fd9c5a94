"""How fast a listing becomes a commit, beyond the listing itself, and how much memory that takes.

    .venv/bin/python -m benchmarks.versioning_import --scale 1 [--json results.json]

At --scale 1 the source has 10^6 objects; the default is a tenth. The listing is made up in memory, in columns as a real
one comes; the time that takes is told apart. Every step is the one of
`ds import && ds commit`: compare with the last version, write the stage file, read it, commit. *again* imports the same
listing once more, *one changed* with one other object: both against the version that the first made. Each import has a
process of its own, so that its peak memory is its own; numpy and pyarrow alone take about 100 MiB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from benchmarks.rounds import machine, parser, spread, table, write_json
from benchmarks.versioning_data import AUTHOR, BATCH, compute, paths, peak_mib, prefix_of
from sources import LISTING_SCHEMA, FileStore, StoreId
from versioning import NothingToCommitError, Repository, Stage, stage_import

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECTS = 1_000_000
STEPS = {"first": 0, "again": 0, "one changed": 1}


def listing(count: int, changed: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, count, BATCH // 10):
        numbers = np.arange(start, min(start + BATCH // 10, count))
        version = numbers + (numbers == count // 2) * changed
        columns = {
            "key": compute.binary_join_element_wise("raw", paths(numbers), "/"),
            "size": pa.array(numbers % 100_000),
            "version": compute.binary_join_element_wise("etag", pa.array(version).cast(pa.string()), ":"),
            "mtime_ns": pa.array(numbers * 1_000_003),
        }
        yield pa.RecordBatch.from_arrays([columns[field.name] for field in LISTING_SCHEMA], schema=LISTING_SCHEMA)


def child(directory: Path, count: int, changed: int) -> dict[str, float]:
    """Import once, and say what the steps cost."""
    times = {"listing": 0.0}

    def timed() -> Iterator[pa.RecordBatch]:
        batches = listing(count, changed)
        while True:
            begun = time.perf_counter()
            batch = next(batches, None)
            times["listing"] += time.perf_counter() - begun
            if batch is None:
                return
            yield batch

    repository = Repository.open(FileStore(directory), prefix_of(directory))
    head = repository.head("main")
    tree = repository.tree_of(head) if head else None
    start = time.perf_counter()
    found = stage_import(tree, timed(), store=StoreId("s3://b"), source_prefix="raw/", target="")
    times["compare"] = time.perf_counter() - start - times["listing"]
    start = time.perf_counter()
    stage = Stage(directory / "stage")
    stage.update(found, base=head)
    del found, tree
    times["stage"] = time.perf_counter() - start
    start = time.perf_counter()
    staged = stage.read()
    try:
        repository.commit_changes("main", staged.changes, message="", author=AUTHOR, base=staged.base)
    except NothingToCommitError:
        assert not changed
    stage.clear()
    times["commit"] = time.perf_counter() - start
    return {**times, "peak MiB": peak_mib()}


def run(directory: Path, count: int, changed: int) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.versioning_import",
        "--child",
        json.dumps([str(directory), count, changed]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    command = parser(__doc__, rounds=3)
    command.set_defaults(scale=0.1)
    command.add_argument("--child", help="for its own use")
    options = command.parse_args(arguments)
    if options.child:
        directory, count, changed = json.loads(options.child)
        print(json.dumps(child(Path(directory), count, changed)))
        return {}
    count = max(1000, int(OBJECTS * options.scale))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in STEPS}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="forebay-import-", dir=options.directory) as scratch:
            Repository.init(FileStore(scratch), prefix_of(Path(scratch)))
            for name, changed in STEPS.items():
                found[name].append(run(Path(scratch), count, changed))
    head = ["listing", "compare", "stage", "commit"]
    lines = []
    for name, costs in found.items():
        seconds = [sum(cost[step] for step in head[1:]) for cost in costs]
        medians = [f"{np.median([cost[step] for cost in costs]):.2f}" for step in head]
        rate, peak = count / float(np.median(seconds)), max(cost["peak MiB"] for cost in costs)
        lines.append([name, *medians, spread(seconds, 2)["median"], f"{rate:,.0f}", f"{peak:,.0f}"])
    print(f"{machine()}; {count:,} objects; seconds, medians of {options.rounds}")
    print(table(["import", *head, "beyond the listing", "objects/s beyond it", "peak MiB"], lines))
    result = {"machine": machine(), "objects": count, "costs": found}
    write_json(options.json, result)
    return result


if __name__ == "__main__":
    main()
