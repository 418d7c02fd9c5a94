"""Opening files, and beginning to write: `ds.open` and `ds.transaction`."""

from __future__ import annotations

import io
from typing import Any

from ds.dataset import Dataset
from ds.errors import TargetError
from ds.outboxes import WriteOptions
from ds.replaying import commit_what_was_finished
from ds.settings import Settings, current_settings
from ds.targets import Target
from ds.write_targets import find_target
from ds.writing import Transaction, check_write_mode


def transaction(
    target: str, *, message: str | None = None, author: str | None = None, settings: Settings | None = None
) -> Transaction:
    """Begin a transaction: what is written in it becomes one commit of one branch, or nothing.

    Args:
        target: `DATASET[@BRANCH]`; without a branch the one that the dataset is on.
        message: Of the commit; by default it says what was written.
        author: Of the commit; by default that of the settings.
        settings: Home and author; by default from the environment.

    Raises:
        TargetError: If the target is not of that form.
        ReadOnlyRevisionError: If it names a tag or a commit.
        RevisionNotFoundError: If there is no such branch; only a repository without any makes its first one.
    """
    parsed, settings = Target.parse(target), settings or current_settings()
    if parsed.dataset is None or parsed.path:
        raise TargetError(f"{target!r} is no branch to write to; expected DATASET[@BRANCH]")
    dataset = Dataset(parsed.dataset, settings=settings)
    return begin_transaction(dataset, parsed.revision, settings=settings, message=message, author=author)


def begin_transaction(
    dataset: Dataset,
    revision: str | None,
    *,
    settings: Settings,
    message: str | None = None,
    author: str | None = None,
) -> Transaction:
    """Begin a transaction on a dataset that is open; what a process finished and could not commit is committed first.

    Errors as in `transaction`.
    """
    options = WriteOptions.of(settings)
    commit_what_was_finished(dataset, options)
    target = find_target(dataset, revision, author=author or settings.author)
    return Transaction.begin(target, options=options, message=message)


def open(uri: str, mode: str = "rb", *, encoding: str | None = None, newline: str | None = None) -> Any:
    """Open `ds://DATASET[@REVISION]/PATH`: for reading through this node's cache, or for writing a branch's file.

    A file that is opened for writing is committed when it is closed, and thrown away by an error inside of its `with`.

    Args:
        uri: The file; without a revision on the branch that the dataset is on.
        mode: "rb", "r"; "wb", "w" write the file whole; "xb", "x" also refuse a path that is there.
        encoding: Of text; UTF-8 by default.
        newline: As for Python's own `open`.

    Raises:
        TargetError: If the URI is not of that form.
        FileNotFoundError: If the revision has no such file.
        ReadOnlyRevisionError: If a tag or a commit was to be written to.
        WriteModeError: For modes that change a file in place.
        WritesKeptError: From `close`, if the file cannot be committed now; it is kept, see `ds writes`.
    """
    target, settings = Target.parse(uri), current_settings()
    if target.dataset is None or not target.path:
        raise TargetError(f"{uri!r} names no file; expected ds://DATASET[@REVISION]/PATH")
    dataset = Dataset(target.dataset, settings=settings)
    if mode == "rb":
        return dataset.open(target.path, target.revision)
    if mode in ("r", "rt"):
        raw = dataset.open(target.path, target.revision)
        return io.TextIOWrapper(raw, encoding=encoding or "utf-8", newline=newline)
    check_write_mode(target.path, mode)
    transaction = begin_transaction(dataset, target.revision, settings=settings)
    return transaction.open_alone(target.path, mode, encoding=encoding, newline=newline)
