from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from cache_runtime import BlockStore, Client
from sources import FileStore, Origins, scan
from versioning import CommitId, Repository, stage_import

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

AUTHOR = "Ada <ada@example.org>"


@dataclass(frozen=True)
class Workshop:
    """A repository in a directory, a source directory beside it, and a client with a cache."""

    repository: Repository
    client: Client
    source: Path

    def import_files(self, files: Mapping[str, bytes], *, branch: str = "main") -> CommitId:
        """Write files into the source directory and commit what is there now, zero-copy."""
        for path, data in files.items():
            target = self.source / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        store = FileStore(self.source)
        prefix = f"{str(self.source)[1:]}/"
        head = self.repository.branches().get(branch)
        tree = self.repository.tree_of(head) if head else None
        changes = stage_import(tree, scan(store, prefix), store=store.id, source_prefix=prefix, target="")
        return self.repository.commit_changes(branch, changes, message="import", author=AUTHOR, base=head)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    (tmp_path / "source").mkdir()
    store = FileStore(tmp_path)
    repository = Repository.init(store, f"{str(tmp_path)[1:]}/repo/")
    origins = Origins()
    origins.add(f"{str(tmp_path)[1:]}/", store)
    client = Client(origins, BlockStore.open(tmp_path / "cache", capacity_bytes=256 << 20))
    yield Workshop(repository, client, tmp_path / "source")
    client.close()
