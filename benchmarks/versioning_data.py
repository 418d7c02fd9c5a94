"""What the benchmarks of versioning share: rows, repositories on a disk, files, and how much memory was used."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from sources import FileStore
from versioning import ENTRY_SCHEMA, Repository
from versioning.building import build_tree
from versioning.commits import Commit, CommitStats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Buffer

    from sources import Version
    from versioning import CommitId, Tree

compute: Any = pyarrow.compute
AUTHOR = "Ada <ada@example.org>"
BATCH = 100_000
_TIME = "2026-11-22T00:00:00.000Z"
_BLOCK = np.random.default_rng(1).bytes(8 << 20)


class CountingStore(FileStore):
    """A directory that counts the requests it gets."""

    requests = 0

    def fetch(self, key: str) -> tuple[bytes, Version]:
        self.requests += 1
        return super().fetch(key)

    def put(self, key: str, data: Buffer) -> None:
        self.requests += 1
        super().put(key, data)

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        self.requests += 1
        return super().swap(key, data, expect=expect)


def paths(numbers: Any) -> Any:
    """Name files `images/00012/000012345.jpg`: a thousand in each directory; ascending with the numbers."""
    digits = compute.utf8_lpad(pa.array(numbers).cast(pa.string()), 9, "0")
    names = compute.binary_join_element_wise(digits, ".jpg", "")
    return compute.binary_join_element_wise("images", compute.utf8_slice_codeunits(digits, 0, 6), names, "/")


def rows(numbers: Any, *, content: int = 0) -> pa.Table:
    """Return entries of imported and hashed files: every column that can be full is, and hashes are random."""
    count = len(numbers)
    path = paths(numbers)
    digests = np.random.default_rng([content, int(numbers[0]) if count else 0]).bytes(32 * count)
    version = compute.binary_join_element_wise("etag:", compute.cast(pa.array(numbers + content), pa.string()), "")
    size = pa.array(numbers % 100_000 + content)
    columns = {
        "path": path,
        "kind": pa.repeat("external", count),
        "size": size,
        "oid": pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), count, [None, pa.py_buffer(digests)]),
        "crc32c": pa.array((numbers * 2654435761 % 2**32).astype(np.uint32)),
        "store": pa.repeat("s3://bucket", count),
        "key": path,
        "version": version,
        "offset": pa.repeat(0, count),
        "object_size": size,
        "source": version,
        "mtime_ns": pa.array(numbers * 1_000_003),
        "meta": pa.nulls(count, pa.string()),
    }
    return pa.table(columns, schema=ENTRY_SCHEMA)


def batches(count: int) -> Iterator[pa.Table]:
    for start in range(0, count, BATCH):
        yield rows(np.arange(start, min(start + BATCH, count)))


def prefix_of(directory: Path) -> str:
    return f"{directory}/repo/"[1:]


def filled_repository(directory: Path, count: int) -> tuple[Repository, CommitId]:
    """Make a repository whose branch main has `count` paths, without keeping them in memory."""
    repository = Repository.init(FileStore(directory), prefix_of(directory))
    tree = build_tree(repository.nodes, batches(count))
    stats = CommitStats(count, 0, count, 0, 0, 0)
    commit = Commit(_tree_id(repository, tree), (), AUTHOR, AUTHOR, _TIME, _TIME, "filled", stats, 1)
    identity = repository.commits.write(commit)
    repository.create_branch("main", identity)
    return repository, identity


def _tree_id(repository: Repository, root: Any) -> Any:
    from versioning.trees import Tree

    tree: Tree = Tree(repository.nodes, root)
    return tree.id


def peak_mib() -> float:
    """Return the most memory that this process has had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_files(directory: Path, count: int, size: int) -> None:
    """Write files of incompressible bytes, all different, a thousand in each directory."""
    for number in range(count):
        folder = directory / f"{number // 1000:04d}"
        if number % 1000 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        start = number * 4099 % (len(_BLOCK) - size)
        head = b"%016d" % number
        (folder / f"{number:08d}.bin").write_bytes((head + _BLOCK[start : start + size])[:size])
