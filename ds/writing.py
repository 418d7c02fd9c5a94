"""Writing to a branch: files go to the local disk, are uploaded behind, and one commit makes them a version."""

from __future__ import annotations

import errno
import io
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cache_runtime import CachedFileSystem
from ds import pending as records
from ds.delivering import Delivery
from ds.errors import TransactionError, WriteModeError
from ds.file_writer import FileWriter, TextWriter
from ds.views import PendingView, TreeView
from versioning import check_path

if TYPE_CHECKING:
    from ds.outboxes import WriteOptions
    from ds.pending import PendingFile
    from ds.write_targets import WriteTarget
    from versioning import CommitId, Entry

_WRITE_MODES = frozenset({"w", "wb", "wt", "x", "xb", "xt"})


class Transaction:
    """Files that become one commit of a branch together, or not at all.

    Leaving its `with` block commits; an error inside of it throws everything away. When `commit` returns, the commit is
    on the branch. When it fails, or the process dies after it was called, all that was written is kept on the local
    disk until it is committed by `ds writes resume`, by the next transaction of this dataset, or dropped. A process
    that dies before leaves what it had closed, to be resumed or dropped by hand; it is never committed on its own.

    Thread-safe; belongs to the process that began it: in a process that was forked from that one it can be neither used
    nor ended. `ds.transaction` makes one.

    Args:
        delivery: Of the files, to the branch.

    Attributes:
        id: Names it in `ds writes` and in the commit's meta.
        target: Where it writes.
        committed: The commit it became, or None.
    """

    def __init__(self, delivery: Delivery) -> None:
        self.id = delivery.id
        self.target = delivery.target
        self.committed: CommitId | None = None
        self._delivery = delivery
        self._lock = delivery.lock
        self._open: dict[int, str] = {}
        self._is_over = False
        self._is_alone = False
        self._process = os.getpid()

    @classmethod
    def begin(
        cls, target: WriteTarget, *, options: WriteOptions, message: str | None = None, author: str | None = None
    ) -> Transaction:
        """Begin an empty transaction.

        Raises:
            OutboxDiskError: If the local disk cannot be written.
        """
        return cls(Delivery.begin(target, options=options, message=message, author=author))

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            self.discard()
        elif not self._is_over:
            self.commit()

    @cached_property
    def view(self) -> PendingView:
        """The branch as it will be, for reading what was written."""
        repository, base = self.target.dataset.repository, self.target.base
        root = repository.root
        return PendingView(TreeView(repository.tree_of(base), root) if base else None, self._delivery.pending, root)

    def open(self, path: str, mode: str = "wb", *, encoding: str | None = None, newline: str | None = None) -> Any:
        """Open a file of the branch for writing it whole, or read one as the transaction sees it.

        Args:
            path: In the dataset, without a first slash. Directories need not be made.
            mode: "wb", "w"; "xb", "x" refuse a path that is there; "rb", "r".
            encoding: Of text; UTF-8 by default.
            newline: As for `open`.

        Raises:
            WriteModeError: For modes that change a file in place.
            FileExistsError: With "x".
            IsADirectoryError, NotADirectoryError: If files lie below the path, or a part of it is a file.
            OutboxFullError: From the file's `write`, if uploads do not make room.
        """
        if mode in ("r", "rt", "rb"):
            raw = self.open_for_reading(path)
            return raw if mode == "rb" else io.TextIOWrapper(raw, encoding=encoding or "utf-8", newline=newline)
        check_write_mode(path, mode)
        check_path(path)
        with self._lock:
            self._check_usable()
            self._check_can_be_file(path, exclusive="x" in mode)
            file = self._new_file(path)
        return file if "b" in mode else TextWriter.over(file, encoding=encoding, newline=newline)

    def open_alone(
        self, path: str, mode: str = "wb", *, encoding: str | None = None, newline: str | None = None
    ) -> Any:
        """Do as `open` does, for a transaction of one file: closing it commits, throwing it away discards."""
        self._is_alone = True
        try:
            return self.open(path, mode, encoding=encoding, newline=newline)
        except BaseException:
            self.discard()
            raise

    def open_for_reading(self, path: str) -> Any:
        """Open a file as the transaction sees it.

        Raises:
            FileNotFoundError, IsADirectoryError: As they say.
        """
        with self._lock:
            local = self._delivery.local_path(path)
            if local is not None:
                return open(local, "rb")  # its bytes stay readable when they are deleted
        return CachedFileSystem(self.view, self.target.dataset.client).open(path, "rb")

    def remove(self, path: str) -> None:
        """Delete a file.

        Raises:
            FileNotFoundError, IsADirectoryError: As they say.
        """
        with self._lock:
            self._check_usable()
            self.view.find(path)
            self._delivery.record(records.deleted(path))

    def copy(self, source: str, path: str) -> None:
        """Give a file a second path; no byte is copied.

        Raises:
            FileNotFoundError, IsADirectoryError, NotADirectoryError: As they say.
        """
        with self._lock:
            self._check_usable()
            self.link(path, self.view.find(source))

    def link(self, path: str, what: PendingFile | Entry) -> None:
        """Let a path name what is in the repository, or in this transaction, already."""
        with self._lock:
            self._check_usable()
            check_path(path)
            self._check_can_be_file(path)
            self._delivery.record(records.linked(path, what))

    def commit(self) -> CommitId | None:
        """Finish: everything becomes durable here, then is uploaded, then committed at once.

        Returns:
            The commit that holds the changes; None if there were none.

        Raises:
            TransactionError: If a file is still open; nothing changed.
            WriteConflictError: If others changed the same paths since the transaction was begun; all is kept.
            WritesKeptError: If the repository cannot be reached, or the local disk is full, for example; all is kept.
        """
        with self._lock:
            self._check_usable()
            self._check_all_closed()
            self._is_over = True
            if not self._delivery.pending.paths:
                self._delivery.discard()
                return None
        self._delivery.finish()
        self.committed = self._delivery.deliver()
        return self.committed

    def discard(self) -> None:
        """Throw everything away; nothing is committed. Uploaded objects are left to garbage collection."""
        if self._process != os.getpid():  # it is not ours to end
            return
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
        self._delivery.discard()

    def hand_over(self) -> str:
        """Upload everything and end this transaction, so that another process commits it with its own.

        Returns:
            What `take_over` of that process needs: text, to be sent to it.

        Raises:
            SourceError: If an upload fails; nothing changed, and it may be tried again.
        """
        self._check_usable()
        self._check_all_closed()
        self._delivery.upload()
        part = records.part_of(self._delivery.pending, self.target.dataset.repository.spec.id)
        self.discard()
        return part

    def take_over(self, part: str) -> None:
        """Commit what another process handed over with this transaction.

        Raises:
            TransactionError: If it is for another repository; nothing changed.
            IsADirectoryError, NotADirectoryError: If a path of it cannot be beside one of this transaction; nothing
                changed.
        """
        with self._lock:
            self._check_usable()
            found = records.records_of_part(part, self.target.dataset.repository.spec.id)
            for record in found:
                check_path(record["path"])
                if record["op"] == "link":
                    self._check_can_be_file(record["path"])
            for record in found:
                self._delivery.record(record)

    def _new_file(self, path: str) -> FileWriter:
        number, raw = self._delivery.new_file()
        self._open[number] = path
        return FileWriter(
            raw,
            path=path,
            on_close=lambda size, crc32c: self._closed(number, size, crc32c),
            on_discard=lambda: self._discarded(number),
        )

    def _closed(self, number: int, size: int, crc32c: int) -> None:
        try:
            with self._lock:
                path = self._open.pop(number)
                self._check_usable()
                self._delivery.add(path, number, size=size, crc32c=crc32c)
        except BaseException:
            self._discarded(number)
            raise
        if self._is_alone:
            self.commit()

    def _discarded(self, number: int) -> None:
        if self._process != os.getpid():  # the file goes on in the process that opened it
            return
        with self._lock:
            self._open.pop(number, None)
        self._delivery.forget_bytes(number)
        if self._is_alone:
            self.discard()

    def _check_can_be_file(self, path: str, *, exclusive: bool = False) -> None:
        """See that a path may be written, also beside the files that are open."""
        self.view.check_can_be_file(path, exclusive=exclusive)
        for other in self._open.values():
            if other == path and exclusive:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            if other.startswith(f"{path}/"):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            if path.startswith(f"{other}/"):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), other)

    def _check_all_closed(self) -> None:
        if self._open:
            raise TransactionError(f"{next(iter(self._open.values()))} is still open; close it before the commit")

    def _check_usable(self) -> None:
        if self._is_over:
            raise TransactionError(f"transaction {self.id} is over; begin another one")
        if self._process != os.getpid():
            raise TransactionError(
                f"transaction {self.id} belongs to process {self._process}; begin one in this process"
            )


def check_write_mode(path: str, mode: str) -> None:
    """Check the mode that a file is opened with for writing.

    Raises:
        WriteModeError: If it is none that writes a file whole.
    """
    if mode not in _WRITE_MODES:
        raise WriteModeError(path, mode)
