"""What a transaction will commit, as its journal tells: paths, and the files that hold their bytes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ds.errors import TransactionError
from versioning import ChangeSet, Entry, EntryKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


HEADER_FORMAT = 1
"""Of a journal's first record and of those below."""


@dataclass(frozen=True)
class PendingFile:
    """A file that was written and closed.

    Attributes:
        number: In its parcel.
        size: Bytes.
        crc32c: CRC-32C of what was written.
        mtime_ns: When it was closed, nanoseconds since 1970.
        entry: Where its bytes are in the repository; None while they are only on the local disk.
    """

    number: int
    size: int
    crc32c: int
    mtime_ns: int
    entry: Entry | None = None


class Pending:
    """The changes of one transaction. Not thread-safe.

    Attributes:
        files: Every closed file, by number; two paths may share one.
        paths: Each path that the transaction changed: a file's number, an entry of the repository, or None: deleted.
        message: Of the commit, once the transaction is finished; it must be committed then. None before.
        conflict: Why the commit was refused, if it was; only a person can say what is to become of it then.
        written_below: How many written paths lie below each directory.
        deleted_below: How many deleted ones.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self.files: dict[int, PendingFile] = {}
        self.paths: dict[str, int | Entry | None] = {}
        self.message: str | None = None
        self.conflict: str | None = None
        self.written_below: Counter[str] = Counter()
        self.deleted_below: Counter[str] = Counter()
        for record in records:
            self.apply(record)

    def apply(self, record: Mapping[str, Any]) -> None:
        """Do what a record of the journal says; see the functions below, which make them."""
        match record["op"]:
            case "close":
                number, sums = record["file"], (record["size"], record["crc32c"], record["mtime_ns"])
                self.files[number] = PendingFile(number, *sums)
                self._put(record["path"], number)
            case "stored":
                number = record["file"]
                self.files[number] = replace(self.files[number], entry=entry_of(record["entry"]))
            case "link":
                self._put(record["path"], record["file"] if "file" in record else entry_of(record["entry"]))
            case "delete":
                self._put(record["path"], None)
            case "finish":
                self.message = record["message"]
            case "conflict":
                self.conflict = record["reason"]

    def get(self, path: str) -> PendingFile | Entry | None:
        """Return what a changed path is now, None if it is deleted; KeyError if the transaction did not touch it."""
        found = self.paths[path]
        return self.files[found] if isinstance(found, int) else found

    def waiting(self) -> list[tuple[str, PendingFile]]:
        """Return the files that a path still names and that are not in the repository, each with its first path."""
        first: dict[int, str] = {}
        for path, found in self.paths.items():
            if isinstance(found, int):
                first.setdefault(found, path)
        return [(path, self.files[number]) for number, path in first.items() if self.files[number].entry is None]

    def changes(self) -> ChangeSet:
        """Return what is to be committed; every file must be in the repository."""
        entries = [replace(entry, path=path) for path, entry in self.entries()]
        return ChangeSet.of(entries, self.deleted())

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Yield the paths that will be there and what they name; every file must be in the repository."""
        for path, found in self.paths.items():
            entry = self.files[found].entry if isinstance(found, int) else found
            if found is not None:
                assert entry is not None
                yield path, entry

    def deleted(self) -> list[str]:
        """Return the paths that will not be there."""
        return [path for path, found in self.paths.items() if found is None]

    def _put(self, path: str, what: int | Entry | None) -> None:
        if path in self.paths:
            self._count(path, self.paths[path], -1)
        self._count(path, what, 1)
        self.paths[path] = what

    def _count(self, path: str, what: int | Entry | None, by: int) -> None:
        below = self.deleted_below if what is None else self.written_below
        while path:
            path = path.rpartition("/")[0]
            below[path] += by


def closed(path: str, file: PendingFile) -> dict[str, Any]:
    """Return the record of a file that was closed under a path."""
    sums = {"size": file.size, "crc32c": file.crc32c, "mtime_ns": file.mtime_ns}
    return {"op": "close", "path": path, "file": file.number, **sums}


def stored(number: int, entry: Entry) -> dict[str, Any]:
    """Return the record of a file whose bytes are in the repository now."""
    return {"op": "stored", "file": number, "entry": _entry_json(entry)}


def linked(path: str, what: PendingFile | Entry) -> dict[str, Any]:
    """Return the record of a path that names what another one named: no byte is copied."""
    if isinstance(what, Entry):
        return {"op": "link", "path": path, "entry": _entry_json(what)}
    return {"op": "link", "path": path, "file": what.number}


def deleted(path: str) -> dict[str, Any]:
    """Return the record of a path that is gone."""
    return {"op": "delete", "path": path}


def finished(message: str) -> dict[str, Any]:
    """Return the record after which the transaction must be committed."""
    return {"op": "finish", "message": message}


def refused(reason: str) -> dict[str, Any]:
    """Return the record of a commit that others were faster than."""
    return {"op": "conflict", "reason": reason}


def part_of(pending: Pending, repository: str) -> str:
    """Write down what another transaction shall commit; every file must be in the repository."""
    changes = [deleted(path) for path in pending.deleted()]
    changes += [linked(path, entry) for path, entry in pending.entries()]
    return json.dumps({"repository": repository, "records": changes})


def records_of_part(part: str, repository: str) -> list[dict[str, Any]]:
    """Read what `part_of` wrote.

    Raises:
        TransactionError: If it is something else, or for another repository.
    """
    try:
        content = json.loads(part)
        if content["repository"] != repository:
            raise TransactionError("this part was written for another repository; take it over there")
        found: list[dict[str, Any]] = content["records"]
        Pending(found)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, TransactionError):
            raise
        raise TransactionError(f"this is no part of a transaction: {error!r}") from error
    return found


def default_message(pending: Pending) -> str:
    """Say what a transaction did, for one whose user did not."""
    written = [path for path, found in pending.paths.items() if found is not None]
    parts = [f"{verb} {_named(paths)}" for verb, paths in (("write", written), ("remove", pending.deleted())) if paths]
    text = " and ".join(parts)
    return text[:1].upper() + text[1:]


def _named(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{len(paths):,} files"


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "kind": str(entry.kind), "oid": entry.oid.hex() if entry.oid else None}


def entry_of(fields: Mapping[str, Any]) -> Entry:
    """Read an entry as a record holds it.

    Raises:
        TypeError, ValueError, KeyError: If it is none.
    """
    oid = bytes.fromhex(fields["oid"]) if fields["oid"] else None
    return Entry(**{**fields, "kind": EntryKind(fields["kind"]), "oid": oid})
