"""What of a listing is done and what is left, in a file that survives kill -9.

A SQLite database: `batches(place, data)` holds finished batches as Arrow IPC under the bytes of their first key, so
that places sort as keys do; `pending` what is left to list: key ranges, directories, or the one serial listing after
which a server turned out not to keep byte order (its batches have places behind all others, in the order of arrival).
`seams` are what ranges saw behind their end. A page and the progress that it means are one transaction.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sources.errors import SourceConfigError, SourceFullError, SourceUnavailableError
from sources.listing.segments import Directory, KeyRange, Seam

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sources.locations import StoreId

_FORMAT = "forebay-listing-1"
_COMMIT_SECONDS = 0.05
_READ_AT_ONCE = 8
_TABLES = """
CREATE TABLE about(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE batches(place BLOB PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE pending(number INTEGER PRIMARY KEY, after BLOB NOT NULL, until BLOB, last BLOB NOT NULL, taken TEXT);
CREATE TABLE seams(cut BLOB PRIMARY KEY, stop BLOB NOT NULL, before BLOB NOT NULL);
"""
_IPC = pa.ipc.IpcWriteOptions(compression="lz4")


class Journal:
    """The record of one listing; one process at a time. Callers serialize all calls but `pack`.

    Args:
        path: The file; it is created if it is missing.
        store: What is listed; a journal of another listing is refused.
        prefix: What is listed of it.

    Raises:
        SourceConfigError: If the file is no journal, is of another listing, or another process has it.
    """

    def __init__(self, path: Path, *, store: StoreId, prefix: str) -> None:
        self._path = path
        self._lock = threading.Lock()  # the reader's look-ups meet the workers' records
        self._next = 0
        self._committed = time.monotonic()
        self._arrived = 0
        with self._translated():
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with self._translated():
                self._open(store, prefix)
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Keep all that was recorded and let other processes use the file."""
        with self._lock, self._translated():
            if self._database.in_transaction:
                self._database.execute("COMMIT")
            self._database.close()

    @staticmethod
    def pack(batch: pa.RecordBatch) -> bytes:
        """Encode a batch; thread-safe."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema, options=_IPC) as writer:
            writer.write_batch(batch)
        return sink.getvalue().to_pybytes()

    @property
    def is_serial(self) -> bool:
        """Whether the server turned out not to keep byte order."""
        return self._about("serial") is not None

    def pending_ranges(self) -> list[KeyRange]:
        """Return what is left to list, in order."""
        rows = self._query("SELECT number, after, until, last, taken FROM pending ORDER BY last, number")
        return [
            KeyRange(
                number=number,
                after=after.decode(),
                until=None if until is None else until.decode(),
                last=last.decode(),
                taken=tuple(json.loads(taken)),
            )
            for number, after, until, last, taken in rows
        ]

    def pending_directories(self) -> list[Directory]:
        """Return the directories that are left to scan, in order."""
        rows = self._query("SELECT number, after FROM pending ORDER BY after")
        return [Directory(number=number, key=key.decode()) for number, key in rows]

    def seams(self) -> list[Seam]:
        """Return the seams of finished ranges, in order."""
        rows = self._query("SELECT cut, stop, before FROM seams ORDER BY cut")
        return [Seam(*(value.decode() for value in row)) for row in rows]

    def batches(self, low: bytes, high: bytes | None) -> Iterator[pa.RecordBatch]:
        """Yield the recorded batches with places in (low, high], in order."""
        bound = "" if high is None else "AND place <= ?"
        query = f"SELECT place, data FROM batches WHERE place > ? {bound} ORDER BY place LIMIT {_READ_AT_ONCE}"
        while rows := self._query(query, low, *(() if high is None else (high,))):
            for place, data in rows:
                low = place
                yield self._unpack(data)

    def new_number(self) -> int:
        """Return a number for a new segment."""
        self._next += 1
        return self._next - 1

    def add_batch(self, first: str, packed: bytes) -> None:
        """Record a batch under its first key."""
        self._write("INSERT OR REPLACE INTO batches VALUES (?, ?)", first.encode(), packed)

    def put_range(self, segment: KeyRange) -> None:
        """Record how far a range is listed and where it ends."""
        until = None if segment.until is None else segment.until.encode()
        row = (segment.number, segment.after.encode(), until, segment.last.encode(), json.dumps(segment.taken))
        self._write("INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?)", *row)

    def drop_range(self, segment: KeyRange) -> None:
        """Record that a range is complete."""
        self._write("DELETE FROM pending WHERE number = ?", segment.number)
        if segment.seam is not None:
            row = (value.encode() for value in segment.seam)
            self._write("INSERT OR REPLACE INTO seams VALUES (?, ?, ?)", *row)

    def replace_directory(self, directory: Directory, inside: list[str], packed: list[tuple[str, bytes]]) -> int:
        """Record a scanned directory; returns the number of the first directory inside, the others follow."""
        numbers = self._next
        self._next += len(inside)
        self._write("DELETE FROM pending WHERE number = ?", directory.number)
        rows = ((numbers + at, key.encode(), key.encode()) for at, key in enumerate(inside))
        with self._lock, self._translated():
            self._begin()
            self._database.executemany("INSERT INTO pending VALUES (?, ?, NULL, ?, '[]')", rows)
            self._database.executemany(
                "INSERT OR REPLACE INTO batches VALUES (?, ?)", ((first.encode(), data) for first, data in packed)
            )
        return numbers

    def turn_serial(self, segment: KeyRange) -> None:
        """Record that the rest is listed serially from a position on; what lies behind it is dropped."""
        last = segment.last.encode()
        self._write("INSERT OR REPLACE INTO about VALUES ('serial', ?)", str(self._next))
        self._write("DELETE FROM batches WHERE place > ?", last)
        self._write("DELETE FROM pending")
        self._write("DELETE FROM seams")
        self.put_range(segment)

    def add_arrival(self, packed: bytes) -> None:
        """Record a batch of the serial listing behind all others: no key has the byte 0xff."""
        if not self._arrived:
            ((count,),) = self._query("SELECT count(*) FROM batches")
            self._arrived = count
        self._arrived += 1
        self._write("INSERT INTO batches VALUES (?, ?)", b"\xff" + self._arrived.to_bytes(8, "big"), packed)

    def settle(self) -> None:
        """Mark the end of a step; commits twenty times a second: what is open when we are killed is listed again."""
        if time.monotonic() - self._committed > _COMMIT_SECONDS:
            with self._lock, self._translated():
                if self._database.in_transaction:
                    self._database.execute("COMMIT")
            self._committed = time.monotonic()

    def _open(self, store: StoreId, prefix: str) -> None:
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = NORMAL"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("BEGIN EXCLUSIVE")
        if not self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            for statement in _TABLES.split(";"):
                self._database.execute(statement)
            about = (("format", _FORMAT), ("store", store), ("prefix", prefix))
            self._database.executemany("INSERT INTO about VALUES (?, ?)", about)
        found = dict(self._database.execute("SELECT name, value FROM about"))
        self._database.execute("COMMIT")
        if found.get("format") != _FORMAT:
            raise sqlite3.DatabaseError(f"format {found.get('format')!r} instead of {_FORMAT!r}")
        if (found["store"], found["prefix"]) != (store, prefix):
            raise SourceConfigError(
                f"{self._path} is the journal of listing {found['store']} below {found['prefix']!r}, not of "
                f"{store} below {prefix!r}; name another file, or delete it to start over"
            )
        ((highest,),) = self._database.execute("SELECT coalesce(max(number), -1) FROM pending")
        self._next = highest + 1
        self.is_new = "started" not in found

    def start(self, segment: KeyRange | Directory) -> None:
        """Record the first segment, and in the same transaction that there was one."""
        self._write("INSERT INTO about VALUES ('started', '')")
        segment.number = self.new_number()
        if isinstance(segment, KeyRange):
            self.put_range(segment)
        else:
            key = segment.key.encode()
            self._write("INSERT INTO pending VALUES (?, ?, NULL, ?, '[]')", segment.number, key, key)

    def _about(self, name: str) -> str | None:
        rows = self._query("SELECT value FROM about WHERE name = ?", name)
        return rows[0][0] if rows else None

    def _query(self, statement: str, *values: Any) -> list[Any]:
        with self._lock, self._translated():
            return self._database.execute(statement, values).fetchall()

    def _write(self, statement: str, *values: Any) -> None:
        with self._lock, self._translated():
            self._begin()
            self._database.execute(statement, values)

    def _begin(self) -> None:
        if not self._database.in_transaction:
            self._database.execute("BEGIN")

    def _unpack(self, data: bytes) -> pa.RecordBatch:
        try:
            with pa.ipc.open_stream(data) as reader:
                return reader.read_next_batch()
        except (pa.ArrowInvalid, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> SourceConfigError:
        return SourceConfigError(
            f"{self._path} is not a journal of a listing, or damaged ({error}); delete it to start over"
        )

    def _translated(self) -> _Translated:
        return _Translated(self)


class _Translated:
    """Turns SQLite's errors into ours."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        path = self._journal._path
        if isinstance(error, sqlite3.Error):
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise SourceConfigError(
                    f"{path}: another process is listing with this journal; name another file"
                ) from error
            if code == sqlite3.SQLITE_FULL:
                raise SourceFullError(
                    f"{path}: no room left for the listing's journal; free some and start again"
                ) from error
            if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise SourceUnavailableError(
                    f"{path}: the listing's journal cannot be used: {error}", retryable=False
                ) from error
            raise self._journal._damaged(error) from error
