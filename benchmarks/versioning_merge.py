"""How long does a merge of two branches with some changes each take in a large dataset?

quiet python benchmarks/versioning_merge.py --paths 1000000 --changes 1000

Builds one tree in a directory, commits CHANGES random paths (of equal layout) on each of two branches, then merges with
a repository opened anew, so nothing is decoded yet (cold), and plans the same merge once more (warm). Files of this
machine, so the disk is the page cache. Prints one JSON object: seconds, nodes read and written.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sources import FileStore
from versioning import ENTRY_SCHEMA, ChangeSet, CommitId, Repository

if TYPE_CHECKING:
    from collections.abc import Sequence

AUTHOR = "bench <bench@example.org>"


def entries(numbers: Sequence[int] | range, *, content: int) -> pa.Table:
    """Return entries of numbered paths, whose bytes are number `content`."""
    count = len(numbers)
    oids = np.zeros((count, 4), dtype=np.uint64)
    oids[:, 0], oids[:, 1] = numbers, content
    columns = {
        "path": [f"images/{number // 1000:05d}/{number:08d}.png" for number in numbers],
        "kind": ["packed"] * count,
        "size": np.full(count, 10_000),
        "oid": pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), count, [None, pa.py_buffer(oids.tobytes())]),
        "crc32c": np.zeros(count, dtype=np.uint32),
        "store": [""] * count,
        "key": ["packs/00/0.tar"] * count,
        "version": ["oid:0"] * count,
        "offset": np.zeros(count, dtype=np.int64),
        "object_size": np.full(count, 20_000),
        "source": pa.nulls(count, pa.string()),
        "mtime_ns": pa.nulls(count, pa.int64()),
        "meta": pa.nulls(count, pa.string()),
    }
    return pa.table(columns, schema=ENTRY_SCHEMA)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paths", type=int, default=1_000_000)
    parser.add_argument("--changes", type=int, default=1000)
    options = parser.parse_args()
    chosen = random.Random(1).sample(range(options.paths), 2 * options.changes)
    with tempfile.TemporaryDirectory() as directory:
        store, prefix = FileStore(directory), f"{directory}/"[1:]
        repository = Repository.init(store, prefix)
        root = commit(repository, "main", entries(range(options.paths), content=0), None)
        repository.create_branch("side", root)
        commit(repository, "main", entries(sorted(chosen[: options.changes]), content=1), root)
        theirs = commit(repository, "side", entries(sorted(chosen[options.changes :]), content=2), root)
        cold = Repository.open(store, prefix)
        start = time.perf_counter()
        cold.merge(theirs, "main", author=AUTHOR)
        merged = time.perf_counter()
        result = {"paths": options.paths, "changes_per_side": options.changes, "cold_seconds": merged - start}
        result |= {"nodes_read": cold.nodes.reads, "nodes_written": cold.nodes.writes}
        start = time.perf_counter()
        cold.plan_merge(theirs, cold.resolve("main^1"))
        result["warm_plan_seconds"] = time.perf_counter() - start
        print(json.dumps(result))


def commit(repository: Repository, branch: str, rows: pa.Table, base: CommitId | None) -> CommitId:
    """Commit entries."""
    return repository.commit_changes(branch, ChangeSet.of_table(rows), message="bench", author=AUTHOR, base=base)


if __name__ == "__main__":
    main()
