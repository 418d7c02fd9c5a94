"""Chosen files of a version into a working copy, over whatever is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from versioning.changes import ChangeSet
from versioning.columns import concat
from versioning.worktree.index import INDEX_SCHEMA
from versioning.worktree.places import Places
from versioning.worktree.updating import UpdateReport, check_names
from versioning.worktree.writing import FileWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from versioning.repository import Repository
    from versioning.worktree.copies import WorkingCopy
    from versioning.worktree.writing import Fetch


def restore_files(
    copy: WorkingCopy,
    repository: Repository,
    fetch: Fetch,
    entries: pa.Table,
    *,
    stage: bool = False,
    known: bool = True,
    on_progress: Callable[[UpdateReport], None] | None = None,
) -> UpdateReport:
    """Write the bytes of some entries to their paths; what was changed there is lost.

    Args:
        copy: The working copy; its lock is taken.
        repository: Where the entries' bytes lie.
        fetch: Reads them.
        entries: Table of `ENTRY_SCHEMA`.
        stage: Stage the entries, too, as a change to the version that is checked out; no byte is uploaded.
        known: The entries are what the index says of these paths, so that it learns the new stat of the files.
        on_progress: Called after each batch of files.

    Raises:
        UnwritableFileError: If the file system refuses one of them.
    """
    with copy.locked(), copy.clock() as clock, Places(copy.root) as places:
        copy.require_finished()
        check_names(entries)
        index = copy.index()
        rows = [INDEX_SCHEMA.empty_table()]
        report = UpdateReport(entries.num_rows, int(entries.column("size").to_numpy().sum()))
        for batch in FileWriter(places, copy.local / "tmp", clock, fetch, repository.root).write(entries):
            rows.append(batch)
            report = report.after(batch)
            if on_progress is not None:
                on_progress(report)
        if stage:
            changes = ChangeSet.of_table(entries)
            copy.stage.rewrite(lambda staged: staged.merged_with(changes), base=index.head.commit)
        if stage or known:
            copy.save(index.edited(concat(rows, INDEX_SCHEMA)))
        return report
