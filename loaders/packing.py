"""Rewriting where a commit's bytes lie: many small files become tar shards in training order."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute

from loaders.errors import CorruptSampleError
from loaders.sharding import ShardLayout, plan_shards
from versioning import (
    BLOB_BYTES,
    ENTRY_SCHEMA,
    ChangeSet,
    NothingToCommitError,
    PackedMember,
    PackSet,
    PackWriter,
    StoredObject,
    locations,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_runtime import Client
    from versioning import CommitId, Repository

pc: Any = pyarrow.compute
_CHUNK_BYTES = 16 << 20  # read at once: enough for the client to join neighbours and to read in parallel
_NO_LIMIT = 1 << 62  # the plan decides where a shard ends, so that no sample is split


@dataclass(frozen=True, slots=True)
class PackProgress:
    """How far a pack is.

    Attributes:
        done_bytes: Bytes of files written into shards.
        total_bytes: Bytes of all files.
        shards: Shards uploaded.
    """

    done_bytes: int
    total_bytes: int
    shards: int


def pack(
    repository: Repository,
    rev: str,
    client: Client,
    *,
    layout: ShardLayout,
    branch: str,
    author: str,
    message: str | None = None,
    on_progress: Callable[[PackProgress], None] | None = None,
) -> CommitId:
    """Write the small files of a revision into tar shards and commit the new places: the same paths and content.

    A file larger than `versioning.BLOB_BYTES` (16 MiB) stays where it is: it gains nothing from company.

    The bytes of the shards depend on the content and the layout only, not on where the files lay before, so packing
    again writes the same objects. Nothing is on the branch before all shards are stored; after an interruption run it
    again. Where a file's hash is known it is compared, where it is not it is learned.

    Args:
        repository: Holds the revision and gets the shards.
        rev: What to pack; the change set is committed as one made against it.
        client: Reads the files. A revision that is packed already is read in another order than it lies in, so its
            cache should have room for it; loose files are read once and gain nothing from a cache that is empty.
        layout: Order, size and naming.
        branch: Where to commit.
        author: As in `Repository.commit_changes`.
        message: Of the commit; by default it says what was packed.
        on_progress: Called after each few MB and each shard.

    Returns:
        The new commit, or the branch's head where it has this layout already.

    Raises:
        DuplicateFieldError: If two paths are one field of one sample under the layout's key rule.
        CorruptSampleError: If a file's bytes are not those that were committed; nothing was committed.
        SourceChangedError: If an imported object changed at its source.
        VersioningError: As `Repository.commit_changes`.
    """
    commit = repository.resolve(rev)
    small = (table.filter(pc.less_equal(table["size"], BLOB_BYTES)) for table in repository.tree_of(commit).scan())
    entries = pa.concat_tables([ENTRY_SCHEMA.empty_table(), *small])
    writing = _Packing(repository, client, entries=entries, layout=layout, on_progress=on_progress)
    changes = ChangeSet.of_table(writing.run())
    try:
        return repository.commit_changes(
            branch,
            changes,
            message=message or f"Pack {len(entries)} files of {commit[:12]} into shards",
            author=author,
            base=commit,
            meta={"forebay.pack": asdict(layout)},
        )
    except NothingToCommitError:
        return repository.resolve(branch)


class _Packing:
    """One run of `pack`: reads files in the order of the plan and writes shard after shard."""

    def __init__(
        self,
        repository: Repository,
        client: Client,
        *,
        entries: pa.Table,
        layout: ShardLayout,
        on_progress: Callable[[PackProgress], None] | None,
    ) -> None:
        self._repository = repository
        self._client = client
        self._plan = plan_shards(entries, layout)
        self._entries = entries.take(self._plan.rows)
        self._on_progress = on_progress
        self._members: list[PackedMember] = []
        self._packs: list[StoredObject] = []
        self._done_bytes = 0

    def run(self) -> pa.Table:
        """Write all shards; return the entries in their new places."""
        for start, stop in self._plan.shards:
            self._write_shard(start, stop)
        return PackSet(tuple(self._packs)).relocate(self._entries, self._members)

    def _write_shard(self, start: int, stop: int) -> None:
        with PackWriter(self._repository, pack_size=_NO_LIMIT) as writer:
            for first, last in self._plan.chunks(start, stop, _CHUNK_BYTES):
                self._write_chunk(writer, first, last)
            (pack_,) = writer.finish().packs
        self._packs.append(pack_)
        self._report()

    def _write_chunk(self, writer: PackWriter, first: int, last: int) -> None:
        rows = self._entries.slice(first, last - first)
        data = self._client.read_many(locations(rows, self._repository.root))
        paths: list[Any] = rows["path"].to_pylist()
        oids: list[bytes | None] = rows["oid"].to_pylist()
        for name, path, oid, content in zip(self._plan.names[first:last], paths, oids, data, strict=True):
            member = writer.add(name, content)
            if oid is not None and oid != member.oid:
                raise _not_as_committed(path, oid, member.oid)
            self._members.append(replace(member, pack=len(self._packs)))
            self._done_bytes += member.size
        self._report()

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(PackProgress(self._done_bytes, self._plan.total_bytes, len(self._packs)))


def _not_as_committed(path: str, expected: bytes, found: bytes) -> CorruptSampleError:
    return CorruptSampleError(
        f"{path}: its bytes hash to {found.hex()[:16]}, the commit says {expected.hex()[:16]}; the stored or cached"
        " copy is damaged, and nothing was committed",
        key=path,
    )
