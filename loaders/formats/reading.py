"""Bytes of shards: maps of local files, anything else through a client of the cache."""

from __future__ import annotations

import mmap
import os
import threading
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cache_runtime import Client
from loaders.formats.shards import Shard, file_version
from sources import Origins, SourceChangedError, SourceNotFoundError, SourceUnavailableError

if TYPE_CHECKING:
    import builtins
    from collections.abc import Sequence

    from loaders.formats.shards import Finder

MOST_MAPS = 256
"""Local shards that are open at a time: far below the limits of maps and files of a process."""
_NETWORK = ("nfs", "cifs", "smb", "ceph", "lustre", "gpfs", "beegfs", "9p", "fuse", "afs", "glusterfs", "virtiofs")
_WINDOW_BYTES = 8 << 20


class ReadsShards(Protocol):
    """Reads ranges of a fixed list of shards, by their numbers in it."""

    def read(self, shards: list[int], offsets: list[int], lengths: list[int]) -> list[memoryview]:
        """Return the bytes of ranges, in the order asked for; ranges lie inside of their shards."""
        ...


class LocalFiles:
    """Reads local files: through maps, of which the least recently used go when there are many.

    A file on a network mount is read, not mapped: a map of one that another machine replaces or cuts ends the
    process with a bus error. So no local shard may be cut in place while it is open; replace it by a rename.

    Args:
        shards: The files.
        most_maps: Open at a time.
    """

    def __init__(self, shards: Sequence[Shard], *, most_maps: int = MOST_MAPS) -> None:
        self._shards = list(shards)
        self._most = most_maps
        self._few = len(self._shards) <= most_maps
        self._views: OrderedDict[int, memoryview | _Handle] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return LocalFiles, (self._shards,)

    def read(self, shards: list[int], offsets: list[int], lengths: list[int]) -> list[memoryview]:
        """See `ReadsShards.read`.

        Raises:
            SourceChangedError: If a file is not the one that was found.
            SourceUnavailableError: If the disk fails.
        """
        views = self._views
        try:
            if self._few:
                return [views[s][o : o + n] for s, o, n in zip(shards, offsets, lengths, strict=True)]
        except KeyError:
            pass
        views = self._opened(set(shards))  # type: ignore[assignment] # a plain dict that nobody else changes
        return [views[s][o : o + n] for s, o, n in zip(shards, offsets, lengths, strict=True)]

    def _opened(self, numbers: set[int]) -> dict[int, memoryview | _Handle]:
        """Open what is not, forget what was not used for long; what this call needs stays for it."""
        with self._lock:
            needed = {}
            for number in sorted(numbers):
                view = self._views.get(number)
                if view is None:
                    view = self._views[number] = _open(self._shards[number])
                if not self._few:
                    self._views.move_to_end(number)
                needed[number] = view
            while len(self._views) > self._most:
                self._views.popitem(last=False)  # its map is closed with the last view of it
            return needed


class _Handle:
    """A file that is read instead of mapped, sliced as a map is."""

    def __init__(self, shard: Shard, fd: int) -> None:
        self._shard = shard
        self._fd = fd

    def __getitem__(self, part: builtins.slice) -> memoryview:
        parts, at = [], part.start
        try:
            while at < part.stop and (data := os.pread(self._fd, part.stop - at, at)):
                parts.append(data)
                at += len(data)
        except OSError as error:
            raise SourceUnavailableError(f"{self._shard.uri}: {error.strerror}") from error
        if at != part.stop:
            raise SourceChangedError(self._shard.uri, expected=f"{self._shard.size} bytes", found=f"{at} bytes")
        return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))

    def __del__(self) -> None:
        os.close(self._fd)


def _open(shard: Shard) -> memoryview | _Handle:
    assert shard.path is not None
    fd = _open_file(shard, shard.path)
    if shard.size == 0:
        os.close(fd)
        return memoryview(b"")
    if is_network_mount(os.path.dirname(shard.path)):
        return _Handle(shard, fd)
    try:
        return memoryview(mmap.mmap(fd, shard.size, prot=mmap.PROT_READ))
    except OSError:  # no room for maps, or a file system without them
        handle, fd = _Handle(shard, fd), -1
        return handle
    finally:
        if fd >= 0:
            os.close(fd)


def _open_file(shard: Shard, path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise SourceNotFoundError(shard.uri, "file") from error
    except OSError as error:
        raise SourceUnavailableError(f"{shard.uri}: {error.strerror}") from error
    found = file_version(os.fstat(fd))
    if found != shard.version:
        os.close(fd)
        raise SourceChangedError(shard.uri, expected=shard.version, found=found)
    return fd


def is_network_mount(directory: str) -> bool:
    """Say whether a directory lies on another machine."""
    return mount_kind(directory).startswith(_NETWORK)


@cache
def mount_kind(directory: str) -> str:
    """Return the type of the file system that a directory lies on; see proc(5)."""
    real = os.path.realpath(directory) + "/"
    best, kind = -1, ""
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        written = fields.split(" ")[4]
        point = (written.encode().decode("unicode_escape") if "\\" in written else written).rstrip("/") + "/"
        if real.startswith(point) and len(point) >= best:
            best, kind = len(point), rest.partition(" ")[0]
    return kind


class ClientFiles:
    """Reads objects of stores through a client.

    Args:
        shards: The objects.
        client: Its origins cover them.
    """

    def __init__(self, shards: Sequence[Shard], client: Client) -> None:
        self._shards = list(shards)
        self._refs = [shard.ref for shard in shards]
        self.client = client

    def read(self, shards: list[int], offsets: list[int], lengths: list[int]) -> list[memoryview]:
        """See `ReadsShards.read`. Raises as `Client.read` does."""
        distinct = {shard: place for place, shard in enumerate(dict.fromkeys(shards))}
        refs = [self._refs[shard] for shard in distinct]
        return self.client.read_ranges(refs, [distinct[shard] for shard in shards], offsets, lengths)


def open_shards(shards: Sequence[Shard], finder: Finder, client: Client | None) -> ReadsShards:
    """Return what reads these shards; without a client, what is not local is read from its store each time."""
    if client is None and all(shard.path is not None for shard in shards):
        return LocalFiles(shards)
    return ClientFiles(shards, client or client_of(finder))


def client_of(finder: Finder) -> Client:
    """Return a client without a cache for the stores that were opened."""
    origins = Origins()
    origins.add("", finder.store_of("file:///"))
    for store in finder.stores.values():
        origins.add("", store)
    return Client(origins, None)


class Windowed:
    """A shard as bytes that are fetched in windows as they are asked for: what a walk over its headers needs."""

    def __init__(self, reader: ReadsShards, shard: int, size: int) -> None:
        self._reader = reader
        self._shard = shard
        self._size = size
        self._start = 0
        self._window = memoryview(b"")

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: builtins.slice) -> bytes:
        start, stop = min(part.start, self._size), min(part.stop, self._size)
        if start >= stop:
            return b""
        if start < self._start or stop > self._start + len(self._window):
            length = min(max(_WINDOW_BYTES, stop - start), self._size - start)
            (self._window,) = self._reader.read([self._shard], [start], [length])
            self._start = start
        return bytes(self._window[start - self._start : stop - self._start])
