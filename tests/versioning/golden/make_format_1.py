"""Made `format-1/`, once, with the first version of the format; kept to say what is in it. Run it never again.

python -m tests.versioning.golden.make_format_1 DIRECTORY
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from sources import FileStore, ObjectStat, StoreId, Version, batch_of
from versioning import ChangeSet, CutRule, Repository, RepositorySpec, add_files, stage_import

AUTHOR = "Ada Lovelace <ada@example.org>"
FILES = {
    "a.txt": b"one\n",
    "empty": b"",
    "images/é/\U0001f600 smile.png": bytes(range(256)) * 3,
    "large.bin": bytes(range(251)) * 100,
    f"deep/{'long-name-' * 12}/file": b"a name that ustar cannot hold",
}


def make(directory: Path) -> None:
    spec = RepositorySpec("golden", CutRule(8, 4, 32), CutRule(4, 2, 8))
    made = Repository.init(FileStore(directory), f"{directory}/"[1:], spec=spec)
    repository = Repository(made.store, made.prefix, spec, clock=lambda: datetime(2026, 11, 22, tzinfo=UTC))
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for number, (name, data) in enumerate(sorted(FILES.items(), key=lambda item: item[0].encode())):
            file = Path(scratch, str(number))
            file.write_bytes(data)
            files.append((name, file))
        added = add_files(repository, files, blob_size=10_000, pack_size=4096)
    # The machine's clock is no part of what is golden.
    column = added.upserts.schema.get_field_index("mtime_ns")
    times = added.upserts.set_column(
        column, added.upserts.schema.field(column), [[1_000 + row for row in range(len(added))]]
    )
    first = repository.commit_changes(
        "main",
        ChangeSet.of_table(times),
        message="Added\n\nfrom disk",
        author=AUTHOR,
        base=None,
        meta={"ticket": "é-1"},
    )
    repository.create_tag("v1/\u00fc", first)
    listed = [ObjectStat(f"raw/{number:03d}.jpg", number, Version(f"etag:{number}"), number) for number in range(150)]
    imported = stage_import(
        repository.tree_of(first), [batch_of(listed)], store=StoreId("s3://raw"), source_prefix="raw/", target="raw/"
    )
    second = repository.commit_changes("main", imported, message="Imported", author=AUTHOR, base=first)
    repository.create_branch("side", first)
    side = repository.commit_changes(
        "side",
        ChangeSet.of(deleted=["a.txt"]),
        message="Without a",
        author=AUTHOR,
        base=first,
        lineage={"code": "git:1"},
    )
    assert second != side
    repository.merge(side, "main", author=AUTHOR)
    repository.create_branch("feature/x", side)
    repository.create_branch("gone", side)
    repository.delete_branch("gone")


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
