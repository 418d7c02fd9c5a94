"""Files of a version onto the disk: verified, and each in place at once or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from sources import Location
from versioning.entries import locations
from versioning.errors import CorruptRepositoryError, UnwritableFileError
from versioning.worktree.clock import next_tick
from versioning.worktree.index import index_rows, listed
from versioning.worktree.places import Obstructed, Places, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    from typing_extensions import Buffer

    from versioning.entries import RepositoryRoot
    from versioning.worktree.clock import Clock

    Fetch = Callable[[Sequence[Location]], Sequence[Buffer]]

BATCH_BYTES = 32 << 20
BATCH_FILES = 1024
_PIECE_BYTES = 16 << 20  # a large file is fetched in these


class Written(NamedTuple):
    """A file that lies beside the others, until it is moved to its place.

    Attributes:
        path: Where to.
        oid: BLAKE3-256 of its bytes.
        temporary: Its name meanwhile.
    """

    path: str
    oid: bytes
    temporary: str


class FileWriter:
    """Writes files of a version into a working copy.

    Args:
        places: The working copy's directories.
        spool: Directory for what is not in its place yet, on the same file system.
        clock: The file system's.
        fetch: Reads ranges of objects.
        root: Where the repository lies.
    """

    def __init__(self, places: Places, spool: Path, clock: Clock, fetch: Fetch, root: RepositoryRoot) -> None:
        self._places = places
        self._spool = spool
        self._clock = clock
        self._fetch = fetch
        self._root = root

    def write(self, entries: pa.Table) -> Iterator[pa.Table]:
        """Write files, replacing what is there, and yield the rows of the index that they get, batch by batch.

        Args:
            entries: Table of `ENTRY_SCHEMA`.

        Raises:
            UnwritableFileError: If the file system refuses one of them.
            CorruptRepositoryError: If bytes do not match their hash.
        """
        self._clear()
        for batch in _batches(entries):
            found = self._prepare(batch)
            # Times that lie before the tick of the renames: whoever writes into a file from now on changes its time.
            now = next_tick(self._clock)
            stats = [self._publish(each) for each in found]
            settled = [stat.st_mtime_ns < now for stat in stats]
            yield index_rows([each.path for each in found], stats, [each.oid for each in found], settled)

    def _prepare(self, batch: pa.Table) -> list[Written]:
        """Write the files of a batch beside their places."""
        where = locations(batch, self._root)
        paths, oids = (listed(batch.column(name)) for name in ("path", "oid"))
        if len(where) == 1 and where[0].length > _PIECE_BYTES:
            return [self._write_large(paths[0], oids[0], where[0])]
        found = []
        for number, (path, oid, data) in enumerate(zip(paths, oids, self._fetch(where), strict=True)):
            digest = blake3(data).digest()
            _check(path, oid, digest)
            self._write_pieces(path, str(number), iter((data,)))
            found.append(Written(path, digest, str(number)))
        return found

    def _write_large(self, path: str, oid: bytes | None, where: Location) -> Written:
        hasher = blake3()

        def pieces() -> Iterator[Buffer]:
            for start in range(0, where.length, _PIECE_BYTES):
                length = min(_PIECE_BYTES, where.length - start)
                (piece,) = self._fetch([Location(where.object, where.offset + start, length)])
                hasher.update(piece)
                yield piece

        self._write_pieces(path, "large", pieces())
        _check(path, oid, hasher.digest())
        return Written(path, hasher.digest(), "large")

    def _write_pieces(self, path: str, temporary: str, pieces: Iterator[Buffer]) -> None:
        try:
            fd = os.open(self._spool / temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UnwritableFileError(path, reason=error.strerror or str(error)) from error
        try:
            for piece in pieces:
                rest = memoryview(piece).cast("B")
                while rest:
                    rest = rest[_write_some(fd, rest, path) :]
        finally:
            os.close(fd)

    def _publish(self, written: Written) -> os.stat_result:
        path, temporary = written.path, str(self._spool / written.temporary)
        try:
            parent = self._places.parent(path, create=True)
            assert parent is not None
            try:
                os.rename(temporary, name_of(path), dst_dir_fd=parent)
            except IsADirectoryError:
                self._places.prune_empty(path)
                os.rename(temporary, name_of(path), dst_dir_fd=parent)
            return os.stat(name_of(path), dir_fd=parent, follow_symlinks=False)
        except Obstructed as error:
            raise UnwritableFileError(path, reason=f"{error.path} is no directory; move it away") from error
        except OSError as error:
            if isinstance(error, UnwritableFileError):
                raise
            raise UnwritableFileError(path, reason=error.strerror or str(error)) from error

    def _clear(self) -> None:
        """Delete what an interrupted update has left."""
        self._spool.mkdir(parents=True, exist_ok=True)
        for name in os.listdir(self._spool):
            with suppress(FileNotFoundError):
                os.unlink(self._spool / name)


def _write_some(fd: int, data: memoryview, path: str) -> int:
    try:
        return os.write(fd, data)
    except OSError as error:
        raise UnwritableFileError(path, reason=error.strerror or str(error)) from error


def _check(path: str, wanted: bytes | None, found: bytes) -> None:
    if wanted is not None and wanted != found:
        raise CorruptRepositoryError(path, reason=f"its bytes hash to {found.hex()}, not {wanted.hex()}")


def _batches(entries: pa.Table) -> Iterator[pa.Table]:
    """Cut a table into runs of a bounded number of files and bytes; a large file is one by itself."""
    start, filled = 0, 0
    for number, size in enumerate(listed(entries.column("size"))):
        if number > start and (filled + size > BATCH_BYTES or number - start >= BATCH_FILES or size > _PIECE_BYTES):
            yield entries.slice(start, number - start)
            start, filled = number, 0
        filled += size
        if size > _PIECE_BYTES:
            yield entries.slice(start, 1)
            start, filled = number + 1, 0
    if start < entries.num_rows:
        yield entries.slice(start)


class LocalPacks:
    """Reads what a repository in a directory of this machine holds, without a copy in any cache.

    Bytes are not verified here: they are, when they are written.

    Args:
        fetch: Reads everything else.
        root: Where the repository lies.
    """

    def __init__(self, fetch: Fetch, root: RepositoryRoot) -> None:
        self._fetch = fetch
        self._root = root
        self._key, self._fd = "", -1

    def __call__(self, wanted: Sequence[Location]) -> Sequence[Buffer]:
        """Return the bytes of each location. Raises as the inner one does for those that it must read."""
        found: list[Buffer | None] = [self._read(each) for each in wanted]
        left = [number for number, data in enumerate(found) if data is None]
        for number, data in zip(left, self._fetch([wanted[number] for number in left]) if left else (), strict=True):
            found[number] = data
        return found  # type: ignore[return-value] # every None was replaced

    def _read(self, where: Location) -> bytes | None:
        ref = where.object
        # A hostile tree may name any file of this machine; only the repository's own are read past the origins.
        own = ref.store == self._root.store and ref.key.startswith(self._root.prefix) and ".." not in ref.key.split("/")
        if not own or not ref.version.startswith("oid:") or not self._open(ref.key):
            return None
        try:
            data = os.pread(self._fd, where.length, where.offset)
        except OSError:
            return None  # the store says what is wrong, and tries again
        return data if len(data) == where.length else None

    def _open(self, key: str) -> bool:
        if key == self._key:
            return True
        self.close()
        try:
            self._fd = os.open(f"/{key}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        self._key = key
        return True

    def close(self) -> None:
        """Let go of the pack that was read last."""
        if self._fd >= 0:
            os.close(self._fd)
        self._key, self._fd = "", -1
