"""How long commits, diffs and merges take in a dataset of many paths, and how many requests and leaves they need.

    .venv/bin/python -m benchmarks.versioning_trees --scale 1 [--reuse DIRECTORY] [--json results.json]

At --scale 1 the dataset has 10^7 paths; the default is a hundredth of that. The repository is a directory on a disk, so
each write is fsynced; requests are counted at the store, nodes by the engine. *warm*: a process that has seen the nodes
before; *cold*: one that has opened the repository just now, its nodes in the kernel's page cache; *cached*: the same
with a node cache that has seen them. *scattered*: over the whole dataset, which touches half of all leaves; *close*:
neighbours. What is not in here: the time that an object store takes to answer. With --reuse the repository is made in
that directory, or found there, and stays.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.rounds import machine, parser, spread, table, write_json
from benchmarks.versioning_data import AUTHOR, CountingStore, filled_repository, peak_mib, prefix_of, rows
from versioning import ChangeSet, NodeFiles, Repository

if TYPE_CHECKING:
    from collections.abc import Callable

    from versioning import CommitId

PATHS = 10_000_000
MERGED = 1000
CACHE_BYTES = 8 << 30  # four times the usual limit: the scattered changes of some rounds at --scale 1 need it


class Work:
    """Times work on one repository; what it measures is in `costs`."""

    def __init__(self, directory: Path, count: int, first: CommitId) -> None:
        self._directory = directory
        self._count = count
        self._random = np.random.default_rng(2)
        self.first = first
        self.costs: dict[str, list[dict[str, float]]] = {}

    def timed(self, name: str, repository: Repository, action: Callable[[], Any]) -> Any:
        store: Any = repository.store
        before = store.requests, repository.nodes.reads, repository.nodes.writes
        start, used = time.perf_counter(), time.process_time()
        result = action()
        wall, cpu = (time.perf_counter() - start) * 1000, (time.process_time() - used) * 1000
        after = store.requests, repository.nodes.reads, repository.nodes.writes
        requests, reads, writes = (now - then for now, then in zip(after, before, strict=True))
        self.costs.setdefault(name, []).append(
            {"ms": wall, "CPU ms": cpu, "requests": requests, "nodes read": reads, "nodes written": writes}
        )
        return result

    def changes(self, how_many: int, *, content: int, half: int = 0, close: bool = False) -> ChangeSet:
        """Change some paths; those of the two halves have none in common."""
        if close:
            chosen = int(self._random.integers(0, self._count // 2 - how_many)) + np.arange(how_many)
        else:
            numbers = np.unique(self._random.integers(0, self._count // 2, how_many * 2))
            chosen = np.sort(self._random.permutation(numbers)[:how_many])
        return ChangeSet.of_table(rows(chosen * 2 + half, content=content))

    def commit(self, repository: Repository, name: str, branch: str, changes: ChangeSet) -> CommitId:
        base = repository.head(branch)

        def action() -> CommitId:
            return repository.commit_changes(branch, changes, message="", author=AUTHOR, base=base)

        result: CommitId = self.timed(name, repository, action)
        return result

    def round(self, number: int, warm: Repository) -> None:
        before = warm.head("main")
        assert before is not None
        one = self.changes(1, content=number + 1)
        warm.diff_changes(before, one)  # the leaf is in memory
        after = self.commit(warm, "commit of 1 change, warm", "main", one)
        self.timed("diff of the two commits, warm", warm, lambda: warm.diff(before, after))
        for kind in ("cold", "cached"):
            cached = kind == "cached"
            one = self.changes(1, content=number + 100)
            if cached:  # another process has been there
                other = self.opened(cached=True)
                other.diff(before, after)
                other.diff_changes(warm.head("main"), one)
            repository = self.opened(cached=cached)
            self.timed(f"diff of the two commits, {kind}", repository, partial(repository.diff, before, after))
            self.commit(self.opened(cached=cached), f"commit of 1 change, {kind}", "main", one)
        for how in ("close", "scattered"):
            self.merge(number, how)

    def merge(self, number: int, how: str) -> None:
        changed = min(MERGED, self._count // 8)
        names = [f"{side}-{how}-{secrets.token_hex(4)}" for side in ("left", "right")]
        for half, name in enumerate(names):
            changes = self.changes(changed, content=number + 200 + half, half=half, close=how == "close")
            self.opened(cached=True).diff_changes(self.first, changes)  # by another process
            repository = self.opened(cached=True)
            repository.create_branch(name, self.first)
            self.commit(repository, f"commit of {changed} {how} changes, cached", name, changes)
        source, target = (repository.resolve(name) for name in reversed(names))
        cold = self.opened()
        self.timed(f"plan of merging two such, {how}, cold", cold, lambda: cold.plan_merge(source, target))
        repository = self.opened(cached=True)
        merged = self.timed(
            f"merge of two such, {how}, cached", repository, lambda: repository.merge(source, names[0], author=AUTHOR)
        )
        assert merged.kind == "merged"

    def opened(self, *, cached: bool = False) -> Repository:
        repository = Repository.open(CountingStore(self._directory), prefix_of(self._directory))
        repository.nodes.files = NodeFiles(self._directory / "nodes", max_bytes=CACHE_BYTES) if cached else None
        return repository


def found_or_filled(directory: Path, count: int) -> tuple[CommitId, float]:
    """Return the first commit of a directory's repository, and how long it took to make it: 0 if it was there."""
    if (directory / "repo").exists():
        commits = list(Repository.open(CountingStore(directory), prefix_of(directory)).log("main"))
        first, commit = commits[-1]
        if commit.stats.files != count:
            raise SystemExit(f"{directory} has {commit.stats.files:,} paths, not {count:,}")
        return first, 0.0
    directory.mkdir(exist_ok=True)
    start = time.perf_counter()
    _, first = filled_repository(directory, count)
    return first, time.perf_counter() - start


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    command = parser(__doc__, rounds=5)
    command.set_defaults(scale=0.01)
    command.add_argument("--reuse", type=Path, help="make the repository here, or find it, and let it stay")
    options = command.parse_args(arguments)
    count = max(1000, int(PATHS * options.scale))
    with ExitStack() as stack:
        scratch = tempfile.TemporaryDirectory(prefix="forebay-trees-", dir=options.directory)
        directory = options.reuse or Path(stack.enter_context(scratch))
        first, built = found_or_filled(directory, count)
        work = Work(directory, count, first)
        warm = work.opened()
        for number in range(options.rounds):
            work.round(number, warm)
        nodes = sum(1 for _ in (directory / "repo/trees").rglob("*.parquet"))
        shutil.rmtree(directory / "nodes")
    print(machine())
    rate = f"built in {built:.1f} s ({count / built:,.0f} rows/s, made up included)" if built else "found"
    print(f"{count:,} paths, {rate}; {nodes:,} nodes at the end")
    head = ["work", "ms (median)", "q1 - q3", "CPU ms", "requests", "nodes read", "nodes written"]
    lines = []
    for name, costs in work.costs.items():
        time_row = spread([cost["ms"] for cost in costs], 1)
        counts = [f"{np.median([cost[kind] for cost in costs]):.0f}" for kind in head[3:]]
        lines.append([name, time_row["median"], f"{time_row['q1']} - {time_row['q3']}", *counts])
    print(table(head, lines))
    print(f"peak memory {peak_mib():,.0f} MiB")
    result = {"machine": machine(), "paths": count, "built_seconds": built, "costs": work.costs}
    write_json(options.json, result)
    return result


if __name__ == "__main__":
    main()
