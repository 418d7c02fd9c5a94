"""`ds://DATASET[@REVISION]/PATH` for everything that reads and writes through fsspec."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem
from fsspec.transaction import Transaction as FsspecTransaction

from cache_runtime import CachedFileSystem
from ds.dataset import Dataset
from ds.errors import TransactionError
from ds.file_writer import TextWriter
from ds.settings import current_settings
from ds.targets import Target
from ds.transactions import begin_transaction
from ds.write_targets import branch_named, commits_noted
from ds.writing import check_write_mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ds.writing import Transaction

_log = logging.getLogger(__name__)
_COPY_BYTES = 4 << 20


class BranchTransaction(FsspecTransaction):  # type: ignore[misc] # fsspec publishes no types
    """What `with fs.transaction:` begins: one commit of one branch, which the first write chooses."""

    def __init__(self, fs: Any, **options: Any) -> None:
        super().__init__(fs, **options)
        self.current: Transaction | None = None

    def complete(self, commit: bool = True) -> None:
        """Commit what was written, or throw it away."""
        filesystem: Any = self.fs
        filesystem._intrans = False
        filesystem._transaction = None
        self.fs: Any = None
        self.files.clear()
        if self.current is not None:
            if commit:
                self.current.commit()
            else:
                self.current.discard()


class DatasetFileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec publishes no types
    """The datasets of this machine, through its cache.

    The first part of a path is `DATASET[@REVISION]`. What a revision means is looked up once per filesystem object, so
    that one program sees one version, and again after this process has committed to that branch; the commit is logged.

    Branches can be written to. Each call that writes is one commit: closing a file, or all that one `put`, `pipe`,
    `cp`, `mv` or `rm` does; `with fs.transaction:` joins everything inside of it into one. Directories are virtual:
    they are there while files lie below them, so that `mkdir` makes nothing. Copies and moves inside of a dataset copy
    no byte.

    Args:
        transaction: One of `ds.transaction`: its branch is read and written as it will be when it is committed.
        options: Of fsspec.
    """

    protocol = "ds"
    cachable = False
    root_marker = ""
    transaction_type = BranchTransaction

    def __init__(self, transaction: Transaction | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._given = transaction
        self._datasets: dict[str, Dataset] = {}
        self._versions: dict[str, tuple[int, CachedFileSystem]] = {}
        self._beginning = threading.Lock()
        self._joined = threading.local()  # the transaction that the calls of one `put` have in common

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped.strip("/") if isinstance(stripped, str) else stripped

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Describe a path: `name`, `size`, `type` ("file" or "directory"), and of files `etag`."""
        version, top, rest = self._find(path)
        return _below(top, version.info(rest))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a directory, or the one file that the path names."""
        version, top, rest = self._find(path)
        found = [_below(top, child) for child in version.ls(rest)]
        return found if detail else [child["name"] for child in found]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return the bytes of a file from `start` to `end`."""
        top, rest = self._split(path)
        if self._transaction_at(top) is not None:
            with self.open(path, "rb") as file:
                return bytes(file.read()[start:end])
        return bytes(self._version(top).cat_file(rest, start, end))

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Make nothing: directories are virtual.

        Raises:
            FileExistsError: If the path is there.
        """
        self.makedirs(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make nothing: directories are virtual.

        Raises:
            FileExistsError: If the path is a file, or is there and `exist_ok` is false.
        """
        _, rest = self._split(path)
        if rest and self.exists(path) and not (exist_ok and self.isdir(path)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    def rmdir(self, path: str) -> None:
        """Remove nothing: an empty directory is not there.

        Raises:
            OSError: If files lie below it.
        """
        if self.isdir(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open a file; see `fsspec.AbstractFileSystem.open`, and `ds.Transaction.open` for the modes that write."""
        if "b" in mode or "r" in mode:
            return super().open(path, mode, **options)
        text = {name: options.pop(name) for name in ("encoding", "errors", "newline") if name in options}
        return TextWriter.over(super().open(path, mode.replace("t", "") + "b", **options), **text)

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Any:
        top, rest = self._split(path)
        transaction = self._transaction_at(top)
        if mode != "rb":
            return self._open_to_write(top, rest, mode)
        if transaction is not None:
            return transaction.open_for_reading(rest)
        return self._version(top)._open(rest, mode=mode, block_size=block_size)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete files, or all below directories, in one commit.

        Raises:
            FileNotFoundError: If there is nothing at a path.
            IsADirectoryError: For a directory without `recursive`.
        """
        with self._together(path):
            for each in self.expand_path(path, recursive=recursive, maxdepth=maxdepth):
                if not recursive or self.isfile(each):
                    self.rm_file(each)

    def rm_file(self, path: str) -> None:
        """Delete a file. Errors as in `rm`."""
        with self._writing(path) as (transaction, rest):
            transaction.remove(rest)

    def _rm(self, path: str) -> None:
        self.rm_file(path)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy a file; inside of a dataset no byte is copied, from whatever revision. A directory is left out."""
        if self.isdir(path1):
            return
        source_top, source = self._split(path1)
        with self._writing(path2) as (transaction, rest):
            if self._transaction_at(source_top) is transaction:
                transaction.copy(source, rest)
            elif self._dataset(source_top).name == transaction.target.dataset.name:
                entry = self._dataset(source_top).tree(Target.parse(source_top).revision).get(source)
                if entry is None:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path1)
                transaction.link(rest, entry)
            else:
                with self.open(path1, "rb") as file, transaction.open(rest) as copy:
                    shutil.copyfileobj(file, copy, _COPY_BYTES)

    def copy(self, path1: Any, path2: Any, *arguments: Any, **options: Any) -> None:
        """Copy files in one commit; see `fsspec.AbstractFileSystem.copy`."""
        with self._together(path2):
            super().copy(path1, path2, *arguments, **options)

    def mv(self, path1: Any, path2: Any, *arguments: Any, **options: Any) -> None:
        """Move files in one commit; see `fsspec.AbstractFileSystem.mv`."""
        with self._together(path2):
            super().mv(path1, path2, *arguments, **options)

    def put(self, lpath: Any, rpath: Any, *arguments: Any, **options: Any) -> None:
        """Upload local files in one commit; see `fsspec.AbstractFileSystem.put`."""
        with self._together(rpath):
            super().put(lpath, rpath, *arguments, **options)

    def pipe(self, path: Any, value: Any = None, **options: Any) -> None:
        """Write bytes to files in one commit; see `fsspec.AbstractFileSystem.pipe`."""
        with self._together(path):
            super().pipe(path, value, **options)

    def _open_to_write(self, top: str, rest: str, mode: str) -> Any:
        check_write_mode(rest, mode)
        transaction = self._transaction_to_join(top)
        return transaction.open(rest, mode) if transaction else self._begin(top).open_alone(rest, mode)

    def _split(self, path: str) -> tuple[str, str]:
        top, _, rest = self._strip_protocol(path).partition("/")
        if not top:
            raise FileNotFoundError(errno.ENOENT, "name a dataset: ds://DATASET[@REVISION]/PATH", path)
        return top, rest

    def _find(self, path: str) -> tuple[CachedFileSystem, str, str]:
        top, rest = self._split(path)
        transaction = self._transaction_at(top)
        if transaction is not None:
            return CachedFileSystem(transaction.view, transaction.target.dataset.client), top, rest
        return self._version(top), top, rest

    def _version(self, top: str) -> CachedFileSystem:
        """Return what a revision meant when it was first asked for, or after our last commit to it."""
        dataset, target = self._dataset(top), Target.parse(top)
        noted = commits_noted(dataset, target.revision)
        found = self._versions.get(top)
        if found is None or found[0] != noted:
            commit = dataset.resolve(target.revision)
            _log.info("opened dataset=%s revision=%s commit=%s", dataset.name, target.revision, commit)
            found = self._versions[top] = (noted, dataset.filesystem(commit))
        return found[1]

    def _dataset(self, top: str) -> Dataset:
        name = Target.parse(top).dataset or ""
        if name not in self._datasets:
            self._datasets[name] = Dataset(name)
        return self._datasets[name]

    def _current(self) -> Transaction | None:
        """Return the transaction that a write would join now."""
        joined: Transaction | None = getattr(self._joined, "transaction", None)
        if joined is None and self._intrans:
            joined = self.transaction.current
        return joined or self._given

    def _transaction_at(self, top: str) -> Transaction | None:
        """Return the current transaction, if it is one of the branch that the top names."""
        current = self._current()
        if current is None:
            return None
        target = Target.parse(top)
        if target.dataset != current.target.dataset.name:
            return None
        is_branch = target.revision is None or not set("~^") & set(target.revision)
        named = branch_named(current.target.dataset, target.revision)
        return current if is_branch and named == current.target.branch else None

    def _transaction_to_join(self, top: str) -> Transaction | None:
        """Return the transaction that a write to this branch joins; None: it is a transaction of its own.

        Raises:
            TransactionError: If the current transaction is of another branch.
        """
        if self._intrans and self._current() is None:
            with self._beginning:  # threads that write at once share one
                if self.transaction.current is None:
                    self.transaction.current = self._begin(top)
        current = self._current()
        if current is not None and self._transaction_at(top) is None:
            at = current.target
            where = f"{at.dataset.name}@{at.branch}"
            raise TransactionError(f"this transaction writes to {where}, not to {top}; end it first")
        return current

    def _begin(self, top: str) -> Transaction:
        target = Target.parse(top)
        return begin_transaction(self._dataset(top), target.revision, settings=current_settings())

    @contextmanager
    def _writing(self, path: str) -> Iterator[tuple[Transaction, str]]:
        """Write in the current transaction, or in one that is committed at the end of the block."""
        top, rest = self._split(path)
        if not rest:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        with ExitStack() as alone:
            transaction = self._transaction_to_join(top)
            yield transaction or alone.enter_context(self._begin(top)), rest

    @contextmanager
    def _together(self, paths: Any) -> Iterator[None]:
        """Let all writes of the block be one commit."""
        some = next(iter(paths), None) if isinstance(paths, list | tuple | dict) else paths
        if not isinstance(some, str) or self._current() is not None or self._intrans:
            yield
            return
        top, _ = self._split(some)
        with self._begin(top) as transaction:
            self._joined.transaction = transaction
            try:
                yield
            finally:
                self._joined.transaction = None


def _below(top: str, info: dict[str, Any]) -> dict[str, Any]:
    return {**info, "name": f"{top}/{info['name']}".rstrip("/")}
