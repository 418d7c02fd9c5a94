"""What a DataMigrate asks: files are copied from one place to another, and verified."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from dataset_controller.agent.loads import ProgressTeller, percent_of
from dataset_controller.operations import DataMigrate
from ds.errors import OperationError
from ds.operations.destinations import destination_of
from ds.operations.places import origin_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from dataset_controller.agent.loads import Asked
    from ds.operations.destinations import Destination
    from ds.operations.places import Item, Origin
    from ds.settings import Settings

_log = logging.getLogger(__name__)
_BATCH_BYTES, _BATCH_FILES = 256 << 20, 2000
_LOOKS_AT_ONCE = 8


class _Work(NamedTuple):
    """What there is to do.

    Attributes:
        files: How many.
        bytes: Of all of them.
    """

    files: int
    bytes: int


def run_migration(asked: Asked, settings: Settings, *, cancel: threading.Event) -> None:
    """Do what a DataMigrate asks, and tell its status meanwhile; run again, it copies what is missing or different.

    Raises:
        OperationError: If it was told to stop, or what was written is not there as it was written.
        RevisionNotFoundError, PathNotFoundError: If it names what is not there.
        SourceError, VersioningError: If a store or a repository fails.
    """
    assert isinstance(asked.operation, DataMigrate)
    spec = asked.operation.spec
    origin, target = origin_of(spec.source, settings), destination_of(asked.operation, settings)
    work = _counted(origin)
    if not work.files:
        raise OperationError(f"there is nothing at {spec.source.uri or 'spec.source'}; nothing was copied")
    fields: dict[str, Any] = {"filesTotal": work.files, "bytesTotal": work.bytes}
    if origin.commit is not None:
        fields["revision"] = origin.commit
    _log.info("migration begins files=%d bytes=%d", work.files, work.bytes)
    with ProgressTeller(asked, fields) as teller:
        tally = _Tally(work, teller.show, cancel)
        _copy(origin, target, tally)
        commit = target.finish(origin.inputs)
    told = {**fields, **tally.fields(), "filesDone": work.files, "bytesDone": work.bytes, "percent": 100}
    asked.tell({**told, "etaSeconds": 0, **({"commit": commit} if commit else {})})
    _log.info("migration ends files=%d copied=%d bytes=%d", work.files, tally.copied_files, work.bytes)


def _counted(origin: Origin) -> _Work:
    files = size = 0
    for item in origin.items():
        files += 1
        size += item.size
    return _Work(files, size)


class _Tally:
    """How far a migration is."""

    def __init__(self, work: _Work, show: Callable[[dict[str, Any]], None], cancel: threading.Event) -> None:
        self._work = work
        self._show = show
        self._cancel = cancel
        self._began = time.monotonic()
        self._files = self._bytes = self._copied_bytes = 0
        self.copied_files = 0

    def count(self, items: list[Item], *, was_there: bool) -> None:
        """Note files that are there now.

        Raises:
            OperationError: If it is told to stop.
        """
        size = sum(item.size for item in items)
        self._files += len(items)
        self._bytes += size
        if not was_there:
            self.copied_files += len(items)
            self._copied_bytes += size
        self._show(self.fields())
        if self._cancel.is_set():
            raise OperationError("told to stop; what was copied stays, and the next run goes on after it")

    def fields(self) -> dict[str, Any]:
        """Return what to tell."""
        seconds = time.monotonic() - self._began
        rate = self._copied_bytes / seconds if seconds > 0 else 0.0
        left = self._work.bytes - self._bytes
        return {
            "filesDone": self._files,
            "bytesDone": self._bytes,
            "percent": percent_of(self._bytes, self._work.bytes, most=99),
            "bytesPerSecond": round(rate),
            "etaSeconds": round(left / rate) if rate else None,
        }


def _copy(origin: Origin, target: Destination, tally: _Tally) -> None:
    for batch in _batches(origin.items()):
        with ThreadPoolExecutor(_LOOKS_AT_ONCE, "forebay-migrate-look") as pool:
            there = list(pool.map(target.has, batch))
        known = [item for item, is_there in zip(batch, there, strict=True) if is_there]
        missing = [item for item, is_there in zip(batch, there, strict=True) if not is_there]
        tally.count(known, was_there=True)
        if missing:
            target.take(missing, origin.client)
            tally.count(missing, was_there=False)


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and (size + item.size > _BATCH_BYTES or len(batch) == _BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.size
    if batch:
        yield batch
