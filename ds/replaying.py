"""What was written and is not committed: found again, committed, or thrown away."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache_runtime import OutboxError, ParcelNotFoundError
from ds.dataset import Dataset
from ds.delivering import Delivery
from ds.errors import TransactionError, WritesKeptError
from ds.outboxes import WriteOptions, all_outboxes, dataset_of, open_outbox
from ds.pending import HEADER_FORMAT, Pending
from ds.write_targets import WriteTarget, note_commit
from sources import SourceError
from versioning import VersioningError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cache_runtime import KeptParcel, Outbox, Parcel
    from ds.settings import Settings
    from versioning import CommitId, Repository

_log = logging.getLogger(__name__)
_told: set[str] = set()  # once is enough for a process that writes often


@dataclass(frozen=True)
class KeptWrite:
    """A transaction in the outbox.

    Attributes:
        id: Its name.
        dataset: Its dataset's name.
        branch: Where it goes.
        state: "running" in a process; "finished": will be committed by the next write; "conflict": others changed the
            same paths, a person must decide; "unfinished": its process ended before the commit; "unreadable": the disk
            lost its journal, or another version of Forebay wrote it.
        begun_at: When it was begun.
        files: Paths that it writes or deletes.
        waiting_bytes: Bytes that wait on the local disk.
        reason: The paths that others changed, of a conflict.
    """

    id: str
    dataset: str
    branch: str
    state: str
    begun_at: datetime
    files: int
    waiting_bytes: int
    reason: str | None


def kept_writes(settings: Settings) -> list[KeptWrite]:
    """Return all transactions in the outboxes of this machine, oldest first."""
    outboxes = all_outboxes(WriteOptions.of(settings))
    found = [_describe(kept, outbox) for outbox in outboxes for kept in outbox.parcels()]
    return sorted(found, key=lambda write: write.begun_at)


def resume_write(identity: str, settings: Settings, *, overwrite: bool = False) -> tuple[str, CommitId | None]:
    """Commit a transaction that a process left, with the files that it had closed.

    Args:
        identity: As `kept_writes` names it.
        settings: Of this machine.
        overwrite: Put it on top of what others committed to the same paths since it was begun.

    Returns:
        The branch, and the commit that has it; None if the transaction changed nothing.

    Raises:
        ParcelNotFoundError, OutboxBusyError: If there is none, or a process has it.
        WritesKeptError: If it cannot be committed; it stays where it is.
    """
    options = WriteOptions.of(settings)
    outbox = _outbox_with(identity, options)
    parcel = outbox.take(identity)
    try:
        if not _can_be_read(parcel.header):
            raise TransactionError(
                f"the journal of {identity} cannot be read: the disk lost it, or another version of Forebay wrote it; "
                f"its files are in {parcel.directory}; throw them away with: ds writes drop {identity}"
            )
        dataset = Dataset(parcel.header["dataset"], settings=settings)
        if dataset.repository.spec.id != parcel.header["repository"]:
            raise TransactionError(
                f"{identity} was written for another repository of {dataset.name}; apply that one again"
            )
    except BaseException:
        parcel.release()
        raise
    return parcel.header["branch"], _commit_parcel(dataset, parcel, options, overwrite=overwrite)


def drop_write(identity: str, settings: Settings) -> None:
    """Throw a transaction away that a process left.

    Raises:
        ParcelNotFoundError, OutboxBusyError: If there is none, or a process has it.
    """
    _outbox_with(identity, WriteOptions.of(settings)).take(identity).remove()


def commit_what_was_finished(dataset: Dataset, options: WriteOptions) -> None:
    """Commit the finished transactions of a dataset that no process is left for; what fails is logged and stays."""
    outbox = open_outbox(dataset, options)
    for kept in outbox.parcels(left_only=True):
        state = _describe(kept, outbox).state
        if state == "unfinished" and kept.id not in _told:
            _told.add(kept.id)
            _log.warning("a transaction was left unfinished id=%s; look at it with: ds writes", kept.id)
        if state != "finished":
            continue
        try:
            commit = _commit_parcel(dataset, outbox.take(kept.id), options)
            _log.warning("committed what a process had left id=%s commit=%s", kept.id, commit)
        except (WritesKeptError, OutboxError, SourceError, VersioningError) as error:
            _log.warning("cannot commit what a process had left id=%s reason=%s", kept.id, error)


def _outbox_with(identity: str, options: WriteOptions) -> Outbox:
    for outbox in all_outboxes(options):
        if (outbox.directory / identity / "journal").exists():
            return outbox
    raise ParcelNotFoundError(identity, str(options.outbox))


def _describe(kept: KeptParcel, outbox: Outbox) -> KeptWrite:
    readable = _can_be_read(kept.header)
    pending = Pending(kept.records if readable else ())
    return KeptWrite(
        id=kept.id,
        dataset=kept.header["dataset"] if readable else dataset_of(outbox),
        branch=kept.header["branch"] if readable else "?",
        state=_state(kept, pending),
        begun_at=kept.begun_at,
        files=len(pending.paths),
        waiting_bytes=kept.waiting_bytes,
        reason=pending.conflict,
    )


def _state(kept: KeptParcel, pending: Pending) -> str:
    if kept.is_running:
        return "running"
    if not _can_be_read(kept.header):
        return "unreadable"
    if pending.message is None:
        return "unfinished"
    return "conflict" if pending.conflict else "finished"


def _can_be_read(header: Mapping[str, Any]) -> bool:
    return header.get("format") == HEADER_FORMAT


def _commit_parcel(
    dataset: Dataset, parcel: Parcel, options: WriteOptions, *, overwrite: bool = False
) -> CommitId | None:
    header = parcel.header
    target = WriteTarget(dataset, header["branch"], header["base"], header["author"])
    if not Pending(parcel.records).paths:
        parcel.remove()
        return None
    try:
        landed = _landed(dataset.repository, target, parcel.id)
    except BaseException:
        parcel.release()
        raise
    if landed is not None:  # its process died between the commit and the clean-up
        parcel.remove()
        note_commit(target)
        return landed
    delivery = Delivery(target, parcel, options=options, message=header["message"], author=header["author"])
    delivery.finish()
    return delivery.deliver(overwrite=overwrite)


def _landed(repository: Repository, target: WriteTarget, identity: str) -> CommitId | None:
    """Look for the commit of a transaction among those that were made since it was begun."""
    if repository.head(target.branch) is None:
        return None
    oldest = repository.commit(target.base).generation if target.base else 0
    for commit_id, commit in repository.log(target.branch):
        if commit.generation <= oldest:
            return None
        if commit.meta.get("transaction") == identity:
            return commit_id
    return None
