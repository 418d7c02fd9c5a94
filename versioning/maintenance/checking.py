"""Checking a repository: that all that refs need is there and is what it should be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3

from versioning.commits import CommitId, CommitStore
from versioning.errors import CorruptRepositoryError
from versioning.maintenance.bytes_check import BytesCheck
from versioning.maintenance.external import ExternalCheck, StatExternal
from versioning.maintenance.findings import Finding, FindingKind, Findings
from versioning.maintenance.ids import Ids, IdSet, ids_of, ids_of_hex, ids_with_sizes
from versioning.maintenance.journals import Checked, Journal
from versioning.maintenance.keys import ObjectKind
from versioning.maintenance.leaves import LeafCheck, Need, named_with_sizes
from versioning.maintenance.listing import list_keys, list_objects
from versioning.maintenance.roots import CONCURRENCY, read_named
from versioning.nodes import Node, NodeId
from versioning.nodestore import NodeStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from versioning.commits import Commit
    from versioning.maintenance.marking import Progress
    from versioning.repository import Repository

_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What to check beyond ids, links, existence and sizes."""

    deep: bool = False
    """Read the bytes of all packs and blobs, and compare them with their hashes and those of the files in them."""
    external: StatExternal | None = None
    """Ask the sources whether imported objects are still what they were."""
    journal: Path | None = None
    """A local file that remembers what was good, so that it is not read again; a check that was broken off goes on."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    Attributes:
        findings: The first of them.
        found: How many there are in all.
        refs: Refs checked.
        commits: Commits checked; `nodes` tree nodes, `skipped_leaves` of which the journal knew.
        objects: Packs and blobs that are there.
        bytes_read: Of packs and blobs.
        external_objects: Objects of sources asked about.
        log_gaps: Lines that logs of branches lack: their writers died between the move and its line. Not a finding.
    """

    findings: tuple[Finding, ...] = ()
    found: int = 0
    refs: int = 0
    commits: int = 0
    nodes: int = 0
    skipped_leaves: int = 0
    objects: int = 0
    bytes_read: int = 0
    external_objects: int = 0
    log_gaps: int = 0


def check_repository(
    repository: Repository,
    options: CheckOptions = CheckOptions(),
    *,
    on_progress: Progress = lambda what, count: None,
) -> CheckReport:
    """Check everything that refs reach; writes nothing to the repository.

    Args:
        repository: Which.
        options: What to check.
        on_progress: Called with what is checked and how many of it were.

    Raises:
        SourceError: If the repository's store cannot be reached; a missing or damaged object is a finding.
        SpoolError: If the journal cannot be used.
    """
    checker = _Checker(repository, options, on_progress)
    try:
        return checker.run()
    finally:
        checker.journal.save()


@dataclass(eq=False)
class _Waiting:
    """Children of one node, to be checked: their ids, the last path and level that the parent says they have."""

    ids: Ids
    paths: list[bytes | None]
    level: int | None
    need: Need


@dataclass(eq=False)
class _Counts:
    refs: int = 0
    commits: int = 0
    nodes: int = 0
    skipped: int = 0
    log_gaps: int = 0
    stored: dict[ObjectKind, int] = field(default_factory=dict)


class _Checker:
    def __init__(self, repository: Repository, options: CheckOptions, on_progress: Progress) -> None:
        self.journal = Journal(options.journal, repository.spec.id)
        self._store, self._prefix = repository.store, repository.prefix
        self._options = options
        self._on_progress = on_progress
        self._commits = CommitStore(self._store, self._prefix)
        self._nodes = NodeStore(self._store, self._prefix, repository.spec, cache_bytes=0)
        self._findings = Findings()
        self._listed = {kind: IdSet() for kind in ObjectKind}
        self._visited = IdSet()
        self._counts = _Counts()
        self._leaf_check = LeafCheck(self._store, self._prefix, self._listed, self._findings)
        self._bytes = BytesCheck(
            self._store,
            self._prefix,
            journal=self.journal,
            findings=self._findings,
            on_bytes=lambda count: on_progress("bytes", count),
        )
        self._external = ExternalCheck(options.external, self._findings) if options.external else None

    def run(self) -> CheckReport:
        heads = self._check_refs()  # before the listing: what they name is older than it
        self._list()
        with ThreadPoolExecutor(CONCURRENCY, "forebay-fsck") as pool:
            self._check_logs(pool)
            for need, commit in self._check_commits(pool, heads):
                root = ids_of_hex([commit.tree])
                self._check_nodes(pool, _Waiting(root[self._visited.add(root)], [None], None, need))
        counts = self._counts
        return CheckReport(
            findings=tuple(self._findings.found),
            found=self._findings.count,
            refs=counts.refs,
            commits=counts.commits,
            nodes=counts.nodes,
            skipped_leaves=counts.skipped,
            objects=counts.stored.get(ObjectKind.PACK, 0) + counts.stored.get(ObjectKind.BLOB, 0),
            bytes_read=self._bytes.bytes,
            external_objects=self._external.objects if self._external else 0,
            log_gaps=counts.log_gaps,
        )

    # --- refs, logs and what is there

    def _check_refs(self) -> dict[CommitId, str]:
        heads: dict[CommitId, str] = {}
        try:
            self._commits.hidden()
        except CorruptRepositoryError as error:
            self._add(FindingKind.DAMAGED, error.key, error.reason)
        for stat in list_keys(self._store, self._prefix + "refs/"):
            self._counts.refs += 1
            for commit in self._named(stat.key):
                heads.setdefault(commit, stat.key.removeprefix(self._prefix))
        return heads

    def _check_logs(self, pool: ThreadPoolExecutor) -> None:
        keys = [stat.key for stat in list_keys(self._store, self._prefix + "logs/heads/")]
        if not keys:
            return
        self._counts.log_gaps = _gaps(keys)
        names = ids_of(blake3(key.encode()).digest() for key in keys)
        new = ~self.journal.contains(Checked.LINE, names)
        before = self._findings.count
        for _ in pool.map(self._named, (key for key, is_new in zip(keys, new, strict=True) if is_new)):
            pass
        if self._findings.count == before:
            self.journal.add(Checked.LINE, names[new])

    def _named(self, key: str) -> tuple[CommitId, ...]:
        try:
            return read_named(self._store, self._prefix, key)
        except CorruptRepositoryError as error:
            self._add(FindingKind.DAMAGED, key, error.reason)
            return ()

    def _list(self) -> None:
        """List all objects; if one is gone that a leaf of the journal names, no leaf is taken for good any more."""
        count = named = 0
        for kind in ObjectKind:
            with_sizes = kind in (ObjectKind.PACK, ObjectKind.BLOB)
            for found in list_objects(self._store, self._prefix, kind):
                ids = ids_with_sizes(found.ids, found.sizes) if with_sizes else found.ids
                new = self._listed[kind].add(ids)
                named += int(self.journal.contains(Checked.NAMED, ids[new]).sum()) if with_sizes else 0
                self._counts.stored[kind] = self._counts.stored.get(kind, 0) + len(found)
                count += len(found)
                self._on_progress("listed", count)
        if named < self.journal.count(Checked.NAMED):
            self.journal.forget_leaves()

    # --- commits

    def _check_commits(self, pool: ThreadPoolExecutor, heads: dict[CommitId, str]) -> Iterator[tuple[Need, Commit]]:
        """Yield every commit that a ref reaches, once, with what needs its tree."""
        seen = IdSet()
        waiting = [(identity, Need(ref, identity)) for identity, ref in heads.items()]
        while waiting:
            batch, waiting = waiting[-_AT_ONCE:], waiting[:-_AT_ONCE]
            new = seen.add(ids_of_hex(identity for identity, _ in batch))
            batch = [each for each, is_new in zip(batch, new, strict=True) if is_new]
            for (identity, need), commit in zip(batch, pool.map(self._commit, batch), strict=True):
                if commit is None:
                    continue
                self._counts.commits += 1
                waiting += [(parent, Need(need.ref, identity)) for parent in commit.parents]
                yield Need(need.ref, identity), commit
            self._on_progress("commits", self._counts.commits)

    def _commit(self, wanted: tuple[CommitId, Need]) -> Commit | None:
        identity, need = wanted
        key = ObjectKind.COMMIT.key(bytes.fromhex(identity))
        try:
            commit = self._commits.read_whole(identity)
            expected = self._expected_generation(commit)
            if expected is not None and commit.generation != expected:
                detail = f"its generation is {commit.generation}, by its parents it is {expected}"
                self._add(FindingKind.INCONSISTENT, key, detail, need)
            return self._commits.read(identity)
        except CorruptRepositoryError as error:
            is_missing = not self._listed[ObjectKind.COMMIT].contains(ids_of_hex([identity]))[0]
            kind = FindingKind.MISSING if is_missing else FindingKind.DAMAGED
            self._add(kind, error.key, error.reason, need)
            return None

    def _expected_generation(self, commit: Commit) -> int | None:
        """Return what a commit's generation must be: walks through the history rely on it; None if it is not known."""
        if not self._commits.hidden().isdisjoint(commit.parents):
            return None  # a hidden parent may be gone
        try:
            return 1 + max((self._commits.read_whole(each).generation for each in commit.parents), default=0)
        except CorruptRepositoryError:
            return None  # that is found where the parent itself is checked

    # --- trees

    def _check_nodes(self, pool: ThreadPoolExecutor, first: _Waiting) -> None:
        """Check what is below a tree's root, each node once, leaves as soon as they are read."""
        stack = [first]
        while stack:
            waiting = stack.pop()
            batch = _Waiting(waiting.ids[:_AT_ONCE], waiting.paths[:_AT_ONCE], waiting.level, waiting.need)
            if len(waiting.ids) > _AT_ONCE:
                rest = waiting.ids[_AT_ONCE:], waiting.paths[_AT_ONCE:]
                stack.append(_Waiting(*rest, waiting.level, waiting.need))
            ids = self._unread(batch)
            rows = np.flatnonzero(ids)
            read = pool.map(partial(self._node, batch), rows.tolist())
            for row, node in zip(rows, read, strict=True):
                if node is not None and self._fits(node, batch, int(row)):
                    if node.level:
                        stack.append(self._below(node, batch.need))
                    else:
                        self._check_leaf(node, batch.need)
            self._counts.nodes += len(batch.ids)
            self._on_progress("nodes", self._counts.nodes)

    def _unread(self, batch: _Waiting) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Say which nodes must be read: not the leaves that the journal knows, as long as they are there."""
        kind = Checked.LEAF_BYTES if self._options.deep else Checked.LEAF
        known = self.journal.contains(kind, batch.ids) & self._listed[ObjectKind.NODE].contains(batch.ids)
        if self._external is not None:
            known[:] = False
        self._counts.skipped += int(known.sum())
        return ~known

    def _node(self, batch: _Waiting, row: int) -> Node | None:
        identity = batch.ids[row].tobytes()
        path = (batch.paths[row] or b"").decode()
        try:
            return self._nodes.read(NodeId(identity))
        except CorruptRepositoryError as error:
            is_there = self._listed[ObjectKind.NODE].contains(batch.ids[row : row + 1])[0]
            kind = FindingKind.DAMAGED if is_there else FindingKind.MISSING
            self._add(kind, ObjectKind.NODE.key(identity), error.reason, batch.need, path)
            return None

    def _fits(self, node: Node, batch: _Waiting, row: int) -> bool:
        expected = batch.paths[row]
        if expected is None or (node.level == batch.level and len(node.keys) and node.last_key == expected):
            return True
        detail = "it does not fit into its parent"
        self._add(FindingKind.INCONSISTENT, ObjectKind.NODE.key(node.id), detail, batch.need, expected.decode())
        return False

    def _below(self, node: Node, need: Need) -> _Waiting:
        ids = ids_of(node.child(at) for at in range(node.table.num_rows))
        new = self._visited.add(ids)
        paths = [key for key, is_new in zip(node.keys.to_pylist(), new, strict=True) if is_new]
        return _Waiting(ids[new], paths, node.level - 1, need)

    def _check_leaf(self, leaf: Node, need: Need) -> None:
        good = self._leaf_check.check(leaf, need)
        if self._options.deep:
            good = self._bytes.check(leaf, need) and good
        if self._external is not None:
            self._external.check(leaf, need)
        if good:
            name = ids_of([leaf.id])
            self.journal.add(Checked.NAMED, named_with_sizes(leaf))  # before the leaf: it may be broken off in between
            self.journal.add(Checked.LEAF, name)
            if self._options.deep:
                self.journal.add(Checked.LEAF_BYTES, name)

    def _add(self, kind: FindingKind, key: str, detail: str, need: Need | None = None, path: str = "") -> None:
        need = need or Need("", "")
        self._findings.add(Finding(kind, key.removeprefix(self._prefix), detail, need.ref, need.commit, path))


def _gaps(keys: list[str]) -> int:
    """Count the numbers that are missing between the lines of each log."""
    last: dict[str, list[int]] = {}
    for folder, _, name in (key.rpartition("/") for key in keys):
        if name.isascii() and name.isdigit():
            last.setdefault(folder, []).append(int(name))
    return sum(max(numbers) - min(numbers) + 1 - len(numbers) for numbers in last.values())
