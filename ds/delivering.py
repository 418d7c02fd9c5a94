"""A parcel on its way to its branch: what was written is noted, uploaded behind, made durable, committed at once."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cache_runtime import CacheError, OutboxError, ParcelFile
from ds import pending as records
from ds.errors import WriteConflictError, WritesKeptError
from ds.outboxes import WriteOptions, open_outbox
from ds.pending import HEADER_FORMAT, Pending, PendingFile
from ds.uploading import Uploader, Waiting
from ds.write_targets import WriteTarget, note_commit
from sources import SourceError
from versioning import ConflictError, NothingToCommitError, VersioningError
from versioning.maintenance import leased

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cache_runtime import Parcel
    from versioning import CommitId, Entry

_log = logging.getLogger(__name__)
_FAILURES = (SourceError, VersioningError, CacheError, OSError)


class Delivery:
    """The changes of one commit, in a parcel that this process holds. Thread-safe.

    It ends with `deliver`, `finish` that fails, or `discard`; then the parcel is gone, or free for whoever takes it.

    Args:
        target: The branch, and what it was when the changes were begun.
        parcel: Holds the bytes, and the journal of what was done so far.
        options: Limits.
        message: Of the commit; None says what was written.
        author: Of the commit.

    Attributes:
        id: Names it in `ds writes` and in the commit's meta.
        target: Where it goes.
        pending: What will be committed.
        lock: Held while `pending` is looked at or changed; reentrant.
    """

    def __init__(
        self, target: WriteTarget, parcel: Parcel, *, options: WriteOptions, message: str | None, author: str
    ) -> None:
        self.id = parcel.id
        self.target = target
        self.pending = Pending(parcel.records)
        self.lock = threading.RLock()
        self._parcel = parcel
        self._message = message
        self._author = author
        self._is_let_go = False
        dataset = target.dataset
        self._uploader = Uploader(
            dataset.repository, dataset.client, threads=options.uploads, spool=parcel.directory, on_stored=self._stored
        )
        self._lease = ExitStack()  # what is uploaded must not be collected before it is committed, however late
        self._lease.enter_context(leased(dataset.repository.store, dataset.repository.prefix, f"transaction {self.id}"))
        for path, file in self.pending.waiting():
            self._uploader.add(Waiting(path, file, parcel.path_of(file.number)))

    @classmethod
    def begin(
        cls, target: WriteTarget, *, options: WriteOptions, message: str | None = None, author: str | None = None
    ) -> Delivery:
        """Begin without any change.

        Raises:
            OutboxDiskError: If the local disk cannot be written.
        """
        author = author or target.author
        header = {
            "format": HEADER_FORMAT,
            "dataset": target.dataset.name,
            "repository": target.dataset.repository.spec.id,
            "branch": target.branch,
            "base": target.base,
            "author": author,
            "message": message,
        }
        parcel = open_outbox(target.dataset, options).begin(header)
        return cls(target, parcel, options=options, message=message, author=author)

    def new_file(self) -> tuple[int, ParcelFile]:
        """Create another local file, and return its number too.

        Raises:
            OutboxDiskError: If the disk fails or is full.
        """
        number = self._parcel.new_number()
        return number, ParcelFile(self._parcel.path_of(number), self._parcel.outbox, relieve=self._uploader.relieve)

    def add(self, path: str, number: int, *, size: int, crc32c: int) -> None:
        """Let a path name a local file that is complete, and upload that.

        Raises:
            OutboxDiskError: If it cannot be noted; nothing changed.
        """
        file = PendingFile(number, size, crc32c, time.time_ns())
        self.record(records.closed(path, file))
        self._uploader.add(Waiting(path, file, self._parcel.path_of(number)))

    def record(self, record: Mapping[str, Any]) -> None:
        """Note a change, and make it.

        Raises:
            OutboxDiskError: If it cannot be noted; nothing changed.
        """
        with self.lock:
            self._parcel.record(record)
            self.pending.apply(record)

    def local_path(self, path: str) -> Path | None:
        """Return where a path's bytes are on this disk; None: it names none, or they are in the repository."""
        found = self.pending.paths.get(path)
        is_here = isinstance(found, int) and self.pending.files[found].entry is None
        return self._parcel.path_of(found) if is_here and isinstance(found, int) else None

    def forget_bytes(self, number: int) -> None:
        """Delete a local file that no path names."""
        self._parcel.forget_bytes(number)

    def upload(self) -> None:
        """Return when every byte is in the repository; may be called again after it failed.

        Raises:
            SourceError, VersioningError: What stopped the first file that was not uploaded.
        """
        self._uploader.finish()

    def finish(self) -> None:
        """Make it certain: everything is on the disk, and so is the word that it is to be committed.

        Raises:
            WritesKeptError: If the local disk fails; what is there is kept, unfinished.
        """
        if self.pending.message is not None:
            return
        record = records.finished(self._message or records.default_message(self.pending))
        try:
            with self.lock:
                self._parcel.record(record, sync=[file.number for _, file in self.pending.waiting()])
                self.pending.apply(record)
        except OutboxError as error:
            self._let_go()
            raise WritesKeptError(self.id, self.target.branch, reason=str(error)) from error
        except BaseException:
            self._let_go()
            raise

    def deliver(self, *, overwrite: bool = False) -> CommitId | None:
        """Upload and commit what was finished, perhaps by a process that died.

        Args:
            overwrite: Put it on top of what others committed to the same paths.

        Returns:
            The commit that holds the changes; None if there is none.

        Raises:
            WriteConflictError: If others changed the same paths since it was begun; all is kept.
            WritesKeptError: If the repository cannot be reached, for example; all is kept.
        """
        try:
            self.upload()
            committed = self._commit(overwrite)
        except ConflictError as error:
            raise self._refused(error) from error
        except _FAILURES as error:
            raise WritesKeptError(self.id, self.target.branch, reason=str(error)) from error
        else:
            self._let_go(keep=False)
        finally:
            self._let_go()
        note_commit(self.target)
        return committed

    def discard(self) -> None:
        """Throw everything away; nothing is committed. Uploaded objects are left to garbage collection."""
        self._let_go(keep=False)

    def _stored(self, file: PendingFile, entry: Entry) -> None:
        with self.lock:
            if self._is_let_go:  # an upload that outlived us; whoever goes on uploads it again
                return
            record = records.stored(file.number, entry)
            if self.pending.message is None:
                self.record(record)
                self._parcel.forget_bytes(file.number)
                return
            try:
                self.record(record)  # the bytes of what is finished stay until it is committed
            except OutboxError as error:  # a full disk must not hinder what makes room on it
                _log.warning("an upload could not be noted id=%s reason=%s", self.id, error)
                self.pending.apply(record)

    def _commit(self, overwrite: bool) -> CommitId | None:
        repository, target = self.target.dataset.repository, self.target
        if overwrite:
            target = replace(target, base=repository.head(target.branch) or target.base)
        assert self.pending.message is not None
        try:
            return repository.commit_changes(
                target.branch,
                self.pending.changes(),
                message=self.pending.message,
                author=self._author,
                base=target.base,
                meta={"transaction": self.id},
            )
        except NothingToCommitError:  # the branch has all of it already
            return repository.head(target.branch)

    def _refused(self, error: ConflictError) -> WriteConflictError:
        """Note that a person must decide, so that no later write tries it again."""
        paths = error.conflicts.column("path").to_pylist()
        reason = f"{paths[0]}{f' and {len(paths) - 1:,} more' if len(paths) > 1 else ''}"
        try:
            self.record(records.refused(reason))
        except OutboxError as failure:  # then the next write tries in vain, and notes it
            _log.warning("a conflict could not be noted id=%s reason=%s", self.id, failure)
        return WriteConflictError(self.id, self.target.branch, reason=reason)

    def _let_go(self, *, keep: bool = True) -> None:
        """End, once; the parcel is somebody else's to go on with, or gone."""
        self._uploader.stop()
        self._lease.close()
        with self.lock:
            if self._is_let_go:
                return
            self._is_let_go = True
            if keep:
                self._parcel.release()
            else:
                self._parcel.remove()
