"""From a dataset and a revision to what a mount shows."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from ds.mounting.view import MountedVersion, Shown
from versioning.nodes import NodeId
from versioning.nodestore import NodeStore
from versioning.positions import CACHE_BYTES, Positions

if TYPE_CHECKING:
    from versioning import CommitId, Repository

_NODE_BYTES = 1 << 20  # what is looked at again is kept by `Positions`
_MAPPED_BYTES = 112 << 20  # of files: only pages that are looked at are in memory, but they count as this process's


def open_view(repository: Repository, commit: CommitId, directory: str = "") -> MountedVersion:
    """Return a version, or a directory of it, as a mount wants to see it.

    Raises:
        PathNotFoundError: If nothing lies below the directory.
        NotADirectoryError: If it is a file.
    """
    found = repository.commit(commit)
    nodes = NodeStore(
        repository.store,
        repository.prefix,
        repository.spec,
        cache_bytes=_NODE_BYTES,
        files=repository.nodes.files,
        maps=True,
    )
    cache_bytes = CACHE_BYTES if nodes.files is None else _MAPPED_BYTES
    positions = Positions(nodes, NodeId(bytes.fromhex(found.tree)), cache_bytes=cache_bytes)
    seconds = datetime.fromisoformat(found.committed_at).timestamp()
    return MountedVersion(positions, Shown(commit, repository.root, int(seconds * 1000) * 1_000_000, directory))
