"""Objects in a SQLite database: a source for Forebay by a third party."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from sources import (
    ObjectStat,
    SourceChangedError,
    SourceConfigError,
    SourceNotFoundError,
    SourceUnavailableError,
    StoreId,
    SwapLostError,
    Version,
    join_uri,
    split_uri,
)
from sources.stores import LISTING_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Buffer

_WAIT_SECONDS = 30  # for another writer
_PAGE_ROWS = 1000
# AUTOINCREMENT never gives a number twice, so it is the version: a key that was deleted and written again has another.
_TABLE = """
CREATE TABLE IF NOT EXISTS objects (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, data BLOB NOT NULL, mtime_ns INTEGER NOT NULL
)
"""
_PAGE = """
SELECT key, length(data), number, mtime_ns FROM objects WHERE key >= ? AND key > ? ORDER BY key LIMIT ?
"""
_READ = "SELECT number, length(data), coalesce(substr(data, ?, ?), x'') FROM objects WHERE key = ?"  # of nothing: NULL
_WRITE = "INSERT OR REPLACE INTO objects (key, data, mtime_ns) VALUES (?, ?, ?)"


class SqliteStore:
    """The objects of one database. Safe in threads, forks and spawned processes: each call opens the file anew.

    Args:
        store_id: `sqlite://<name>`; the name is all that commits keep of it.
        database: Path of the file here; the first write creates it.
    """

    remote: ClassVar[bool] = False

    def __init__(self, store_id: StoreId, database: str) -> None:
        self.id = store_id
        self._database = database

    @classmethod
    def open(cls, uri: str, options: Mapping[str, object]) -> SqliteStore:
        """Open `sqlite://name/prefix` with the option `database`, a path."""
        if unknown := sorted(set(options) - {"database"}):
            raise SourceConfigError(f"{uri}: unknown option {unknown[0]!r}; known: database")
        database = options.get("database")
        if not isinstance(database, str):
            raise SourceConfigError(f"{uri}: the option database names the SQLite file")
        return cls(split_uri(uri).store, database)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """See `sources.ListObjects.list`."""
        for batch in self.pages(prefix):
            for row in batch.to_pylist():
                yield ObjectStat(row["key"], row["size"], Version(row["version"]), row["mtime_ns"])

    def pages(self, prefix: str, *, after: str = "") -> Iterator[pa.RecordBatch]:
        """See `sources.stores.ListPages.pages`; SQLite compares texts by their bytes, so this is byte order."""
        while True:
            with self._opened(prefix) as database:
                found = database.execute(_PAGE, (prefix, after, _PAGE_ROWS)).fetchall()
            rows = [row for row in found if row[0].startswith(prefix)]
            keys = ("key", "size", "version", "mtime_ns")
            listed = [dict(zip(keys, (key, size, _version(number), at), strict=True)) for key, size, number, at in rows]
            yield pa.RecordBatch.from_pylist(listed, schema=LISTING_SCHEMA)
            if len(rows) < _PAGE_ROWS:  # fewer than were asked for: the end, or the end of the prefix
                return
            after = rows[-1][0]

    def stat(self, key: str) -> ObjectStat:
        """See `sources.ListObjects.stat`."""
        with self._opened(key) as database:
            row = database.execute(
                "SELECT length(data), number, mtime_ns FROM objects WHERE key = ?", (key,)
            ).fetchone()
        if row is None:
            raise SourceNotFoundError(join_uri(self.id, key))
        return ObjectStat(key, row[0], _version(row[1]), row[2])

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> bytes:
        """Read and check the version in one query. See `sources.ReadRange.read`."""
        uri = join_uri(self.id, key)
        with self._opened(key) as database:
            row = database.execute(_READ, (start + 1, length, key)).fetchone()
        found = _version(row[0]) if row else "gone"
        if version is not None and found != version:
            raise SourceChangedError(uri, expected=version, found=found)
        if row is None:
            raise SourceNotFoundError(uri)
        if len(row[2]) != length:
            text = f"{uri}: asked for {length} bytes at {start}, it has {row[1]} bytes"
            raise SourceUnavailableError(text, retryable=False)
        return bytes(row[2])

    def put(self, key: str, data: Buffer) -> None:
        """See `sources.WriteObject.put`."""
        with self._opened(key) as database:
            database.execute(_WRITE, (key, bytes(data), time.time_ns()))

    def delete(self, key: str) -> None:
        """See `sources.WriteObject.delete`."""
        with self._opened(key) as database:
            database.execute("DELETE FROM objects WHERE key = ?", (key,))

    def fetch(self, key: str) -> tuple[bytes, Version]:
        """See `sources.SwapObject.fetch`."""
        with self._opened(key) as database:
            row = database.execute("SELECT data, number FROM objects WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise SourceNotFoundError(join_uri(self.id, key))
        return bytes(row[0]), _version(row[1])

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        """Compare and replace in one transaction that shuts other writers out. See `sources.SwapObject.swap`."""
        with self._opened(key) as database:
            database.execute("BEGIN IMMEDIATE")
            row = database.execute("SELECT number FROM objects WHERE key = ?", (key,)).fetchone()
            if (_version(row[0]) if row else None) != expect:
                database.execute("ROLLBACK")
                raise SwapLostError(join_uri(self.id, key), expected=expect)
            number = database.execute(_WRITE, (key, data, time.time_ns())).lastrowid
            database.execute("COMMIT")
        return _version(number)

    @contextmanager
    def _opened(self, key: str) -> Iterator[sqlite3.Connection]:
        """Open the database for one call and turn its errors into Forebay's."""
        try:
            with closing(sqlite3.connect(self._database, timeout=_WAIT_SECONDS, isolation_level=None)) as database:
                database.execute(_TABLE)
                yield database
        except sqlite3.Error as error:
            raise SourceUnavailableError(f"{join_uri(self.id, key)}: {type(error).__name__}: {error}") from error


def _version(number: int | None) -> Version:
    return Version(f'etag:"{number}"')
