"""Bytes of open files: from this node's store at once, from elsewhere later, or by the kernel itself past us."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from cache_runtime.mount.ahead import Ahead, Stream
from cache_runtime.mount.backing import BackingIds
from cache_runtime.mount.counters import Counters
from cache_runtime.mount.gathering import Gathering, Read
from cache_runtime.mount.handles import Handle, Handles, Unopened
from cache_runtime.mount.keeping import Keeper
from cache_runtime.mount.operations import Opened, opened_bytes
from cache_runtime.mount.protocol import OpenFlag
from cache_runtime.mount.waiting import Job, Waiting
from cache_runtime.mount.walks import Walks
from cache_runtime.mount.ways import Ways
from cache_runtime.store.layout import BLOCK_BYTES
from sources import Location

if TYPE_CHECKING:
    from collections.abc import Callable, Set

    from typing_extensions import Buffer

    from cache_runtime.client import Client
    from cache_runtime.mount.operations import Kernel, Opening, Part
    from cache_runtime.store.shelf import Lent
    from sources import ObjectRef

_CACHED = int(OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH)
_PASSTHROUGH = int(OpenFlag.PASSTHROUGH | OpenFlag.NOFLUSH)
_CHECK_BYTES = 32 << 20
"""So much is checked while an open waits, some hundredths of a second; a larger file beside, read through us so far."""


@dataclass(frozen=True)
class FileOptions:
    """How the files of a mount are read."""

    threads: int = 32
    """Reads that wait for a fetch at a time; the kernel sends not more than 64 of its own accord."""

    read_seconds: float = 120.0
    """After how long a read that has no answer fails with EIO. Over the time-outs and retries of most sources."""

    ahead_bytes: int = 128 << 20
    """How far ahead of a stream is fetched."""

    ahead_threads: int = 6
    """Requests of streams at a time, of up to 16 MiB each; more of them bring nothing from one S3 server here."""

    walk_bytes: int = 32 << 20
    """How much of small files is fetched at a time before they are opened."""

    refill_seconds: float = 30.0
    """How often to look whether a cache directory whose disk was full has room again."""


class Files:
    """Opens and reads the files of a mount; see `operations.FileOperations`.

    A small file, or a part of an object, is read through us, and stays in the kernel's page cache. So is a large one
    until all of it is in this node's store and was checked; from then on who opens it reads the file of the store.

    Args:
        client: Where the bytes are.
        kernel: Takes what is answered later.
        options: How.
    """

    def __init__(self, client: Client, kernel: Kernel, options: FileOptions | None = None) -> None:
        options = options or FileOptions()
        self._client = client
        self._store = client.store
        self._seconds = options.read_seconds
        self._counters = Counters()
        self._handles = Handles()
        self._unopened = Unopened()
        self._waiting = Waiting(kernel, self._counters, threads=options.threads, seconds=options.read_seconds)
        self._gathering = Gathering(client, self._waiting)
        self._ids = BackingIds(kernel)
        self._ways = Ways(self._ids, kernel, self._counters)
        self._ahead = Ahead(client, self._counters, most_bytes=options.ahead_bytes, threads=options.ahead_threads)
        self._walks = Walks(client, self._counters, most_bytes=options.walk_bytes)
        self._kernel = kernel
        self._keeper = Keeper(self._store, self._ways, self._ids, self._waiting, retry_seconds=options.refill_seconds)
        self.upgraded: Set[int] = self._ways.switched

    def open(self, opening: Opening, unique: int) -> Opened | None:
        """Open a file; a wholly cached large one may be checked first, by another thread."""
        if opening.flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        handle = Handle(opening)
        if not handle.is_large:
            self._walks.opened(opening.view, opening.row)
            return self._add(handle)
        if not self._may_pass(handle.location):
            return self._add(handle)
        backing = self._ways.join(handle.node)
        if backing is not None:
            return self._add(handle, backing)
        ref = handle.location.object
        lent = self._lend(ref, checked_only=True)
        if lent is None and ref.size <= _CHECK_BYTES and self._is_here(ref):
            held: list[int] = []  # the handle, for who has to close it again
            run = partial(self._open_checked, handle, held)
            undo = partial(self._release_all, held)
            self._waiting.submit(Job(unique, f"path={handle.path} object={ref.uri}", run, undo))
            return None
        return self._begin(handle, lent)

    def read(self, handle: int, offset: int, size: int, unique: int) -> Buffer | None:
        """Read at once what is here and checked, later what is not."""
        return self._read(self._handles.get(handle), offset, size, unique)

    def knows(self, node: int) -> bool:
        """Say whether a file was read lately that the kernel opened by itself."""
        return node in self._unopened

    def read_unopened(self, node: int, find: Callable[[], Opening], part: Part, unique: int) -> Buffer | None:
        """Read a file that the kernel opened by itself: its first read is what opens it here."""
        found = self._unopened.get(node) or self._introduce(find())
        return self._read(found, part.offset, part.size, unique)

    def read_unopened_later(self, find: Callable[[], Opening], part: Part, unique: int) -> None:
        """Do the same where `find` may wait."""
        what = f"path=? offset={part.offset} length={part.size}"

        def run() -> None:
            try:
                found = self._introduce(find())
                size = max(0, min(part.size, found.size - part.offset))
                location = replace(found.location, offset=found.location.offset + part.offset, length=size)
                view = self._client.find(location)
            except Exception as error:  # noqa: BLE001 # the request has to be answered, whatever happens
                self._waiting.fail(unique, what, error)
                return
            if view is not None:
                self._waiting.answer(unique, (view,))
            else:
                self._read_missing(Read(unique, _in_words(found, location), location), self._gathering.fetch)

        self._waiting.expect(unique, what)
        self._waiting.run(run)

    def _introduce(self, opening: Opening) -> Handle:
        found = self._unopened.add(Handle(opening))
        if not found.is_large:
            self._walks.opened(opening.view, opening.row)
        return found

    def _read(self, found: Handle, offset: int, size: int, unique: int) -> Buffer | None:
        size = min(size, found.size - offset)
        if size <= 0:
            return b""
        whole = found.location
        location = whole if size == found.size else Location(whole.object, whole.offset + offset, size)
        if found.is_large:
            stream = found.stream
            if stream is None:
                stream = found.stream = Stream()
            self._ahead.note(stream, whole, offset, size)
        view = None if self._store is None else self._store.find_checked(location)
        if view is not None:
            self._counters.reads_at_once += 1
            self._counters.bytes_at_once += size
            return view
        if not found.is_large:
            self._walks.missed(found.view, found.row)
        self._read_missing(Read(unique, _in_words(found, location), location), self._gathering.submit)
        return None

    def _read_missing(self, read: Read, gather: Callable[[Read], None]) -> None:
        if self._client.fetches_together(read.location.object):
            gather(read)
        else:
            self._waiting.submit(Job(read.unique, read.what, partial(self._fetch, read.location)))

    def release(self, handle: int) -> None:
        """Forget a handle."""
        found = self._handles.pop(handle)
        if found is None:
            return
        if found.stream is not None:
            found.stream.is_wanted = False
        if found.is_large and self._may_pass(found.location):
            self._ways.leave(found.node)

    def interrupt(self, unique: int) -> None:
        """Answer a request whose caller is to end."""
        self._waiting.interrupt(unique)

    def status(self) -> dict[str, object]:
        """Return the counters, and what is open now."""
        return {
            **self._counters.as_dict(),
            "open_handles": len(self._handles),
            "unopened_files": len(self._unopened),
            "waiting": len(self._waiting),
            "passthrough_refusal": self._ids.refusal,
            **self._keeper.status(),
        }

    def close(self) -> None:
        """Let go of threads and backing ids."""
        self._keeper.close()
        self._ahead.close()
        self._walks.close()
        self._waiting.close()
        self._ways.close()

    def _may_pass(self, location: Location) -> bool:
        """Say whether a file could be read past us: it is all of a large object."""
        return location.offset == 0 and location.length == location.object.size

    def _lend(self, ref: ObjectRef, *, checked_only: bool) -> Lent | None:
        if self._store is None or not self._ids.is_possible:
            return None
        return self._store.lend(ref, 0, ref.size, checked_only=checked_only)

    def _is_here(self, ref: ObjectRef) -> bool:
        if self._store is None or not self._ids.is_possible:
            return False
        return not self._store.missing_blocks(ref, range(-(-ref.size // BLOCK_BYTES)))

    def _open_checked(self, handle: Handle, held: list[int]) -> tuple[Buffer, ...]:
        opened = self._begin(handle, self._lend(handle.location.object, checked_only=False))
        held.append(opened.handle)
        return (opened_bytes(opened),)

    def _begin(self, handle: Handle, lent: Lent | None) -> Opened:
        return self._add(handle, self._ways.begin(handle.node, handle.location.object, lent))

    def _add(self, handle: Handle, backing: int = 0) -> Opened:
        number = self._handles.add(handle)
        if backing:
            self._counters.opens_passthrough += 1
            return Opened(number, _PASSTHROUGH, backing)
        self._counters.opens_cached += 1
        return Opened(number, _CACHED)

    def _release_all(self, held: list[int]) -> None:
        for handle in held:
            self.release(handle)

    def _fetch(self, location: Location) -> tuple[Buffer, ...]:
        self._ahead.wait(location, seconds=self._seconds)
        return (self._client.read(location),)


def _in_words(handle: Handle, location: Location) -> str:
    offset = location.offset - handle.location.offset
    return f"path={handle.path} object={location.object.uri} offset={offset} length={location.length}"
