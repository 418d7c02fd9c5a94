"""What `benchmarks.local_hit` compares: each has the same objects, and reads the ones at some places of the list."""

from __future__ import annotations

import json
import os
import time
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.juicefs_mount import juicefs
from benchmarks.source_data import body_of, key_of
from cache_runtime import BlockStore, Client
from sources import Location, ObjectRef, Origins, StoreId, Version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import ExitStack
    from typing import Any

OBJECT_BYTES = 10 << 10
BATCH = 64
"""Objects in a call of `read_many`."""
_FILL = 512
_OTHERS_PART = 10
"""Of the slow ones a round reads so many times fewer, and the mount has so many times fewer objects to begin with."""


class Way(NamedTuple):
    """One way to read.

    Attributes:
        read: Reads one object.
        places: What it takes, for each object.
        part: A round reads so many times fewer.
        pids: Processes that work for it.
        check: Raises if what was read came from elsewhere.
        read_many: Reads many in one call, where it can; measured as a way of its own.
    """

    read: Callable[[Any], Any]
    places: Sequence[Any]
    part: int = 1
    pids: Sequence[int] = ()
    check: Callable[[], None] = lambda: None
    read_many: Callable[[Any], Any] | None = None


class Objects:
    """The objects, and a directory for whoever needs them on disk."""

    def __init__(self, scratch: Path, count: int) -> None:
        self.scratch = scratch
        self.count = count

    @cached_property
    def loose(self) -> list[str]:
        """One file for each."""
        paths = [self.scratch / "loose" / key_of(number) for number in range(self.count)]
        for number, path in enumerate(paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body_of(number, OBJECT_BYTES))
        return [os.fspath(path) for path in paths]

    @cached_property
    def big(self) -> str:
        """One file with all of them."""
        path = self.scratch / "all.bin"
        with path.open("wb") as file:
            for number in range(self.count):
                file.write(body_of(number, OBJECT_BYTES))
        return os.fspath(path)

    @cached_property
    def locations(self) -> list[Location]:
        """What names each of them to Forebay."""
        refs = [ObjectRef(Memory.id, key_of(number), Version("1"), OBJECT_BYTES) for number in range(self.count)]
        return [Location(ref, 0, ref.size) for ref in refs]


class Memory:
    """An origin that gives the objects."""

    id = StoreId("bench://hits")

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> memoryview:
        return body_of(int(PurePath(key).stem), OBJECT_BYTES)[start : start + length]


def forebay(stack: ExitStack, objects: Objects) -> Way:
    """`Client.read`."""
    origins = Origins()
    origins.add("", Memory())
    capacity = max(256 << 20, objects.count * 16384)
    client = Client(origins, BlockStore.open(objects.scratch / "cache", capacity_bytes=capacity))
    stack.callback(client.close)
    locations = objects.locations
    for start in range(0, len(locations), _FILL):
        client.read_many(locations[start : start + _FILL])
    client.close()  # flushed now rather than during the rounds
    for location in locations:
        client.read(location)
    fetched = client.stats.snapshot().reads_origin

    def check() -> None:
        if client.stats.snapshot().reads_origin != fetched:
            raise AssertionError("the measured reads were not hits")

    return Way(client.read, locations, check=check, read_many=client.read_many)


def bare_pread(stack: ExitStack, objects: Objects) -> Way:
    """`os.pread` of one file with all objects, open already: what the kernel takes, the floor."""
    fd = os.open(objects.big, os.O_RDONLY)
    stack.callback(os.close, fd)
    pread = os.pread
    offsets = [number * OBJECT_BYTES for number in range(objects.count)]
    return Way(lambda offset: pread(fd, OBJECT_BYTES, offset), offsets)


def looked_up_pread(stack: ExitStack, objects: Objects) -> Way:
    """A `pread` for a location, by a dictionary from object ids to offsets: the least a cache in Python must do."""
    fd = os.open(objects.big, os.O_RDONLY)
    stack.callback(os.close, fd)
    pread = os.pread
    starts = {location.object.id: number * OBJECT_BYTES for number, location in enumerate(objects.locations)}

    def read(location: Location) -> memoryview:
        return memoryview(pread(fd, location.length, starts[location.object.id] + location.offset))

    return Way(read, objects.locations)


def loose_files(stack: ExitStack, objects: Objects) -> Way:
    """Open, read, close; unbuffered, the paths made beforehand."""
    return Way(_read_file, objects.loose)


def juice(stack: ExitStack, objects: Objects) -> Way:
    """Open, read, close in a mount that has them in its cache. It has a tenth of them: 200,000 take it ten minutes."""
    count = max(1, objects.count // _OTHERS_PART)
    mount = stack.enter_context(juicefs(objects.scratch / "juicefs"))
    paths = mount.write([key_of(n) for n in range(count)], lambda n: body_of(n, OBJECT_BYTES))
    for path in paths:
        _read_file(path)
    before = mount.fetched_bytes()

    def check() -> None:
        if mount.fetched_bytes() != before:
            raise AssertionError("the mount read its storage")

    return Way(_read_file, paths, part=_OTHERS_PART, pids=mount.pids, check=check)


def fsspec_blockcache(stack: ExitStack, objects: Objects) -> Way:
    """`fsspec`'s CachingFileSystem with every file cached whole, so that it opens a local one.

    Its directory is made by hand: filling it writes all its names anew for each file.
    """
    import fsspec
    from fsspec.implementations.cache_mapper import HashCacheMapper

    storage, name_of = objects.scratch / "fsspec", HashCacheMapper()
    storage.mkdir()
    rows = {}
    for path in objects.loose:
        os.link(path, storage / name_of(path))
        row = {"original": path, "fn": name_of(path), "blocks": True, "time": time.time(), "uid": "", "size": 0}
        rows[path] = {**row, "size": OBJECT_BYTES, "blocksize": 5 << 20}
    (storage / "cache").write_text(json.dumps(rows))
    cached = fsspec.filesystem("blockcache", target_protocol="file", cache_storage=os.fspath(storage))

    def read(path: str) -> bytes:
        with cached.open(path) as file:
            found: bytes = file.read()
        return found

    return Way(read, objects.loose, part=_OTHERS_PART)


CONTESTANTS: dict[str, Callable[[ExitStack, Objects], Way]] = {
    "client.read": forebay,
    "os.pread": bare_pread,
    "dict + pread": looked_up_pread,
    "file": loose_files,
    "juicefs": juice,
    "fsspec": fsspec_blockcache,
}


def read_all(way: Way, picks: Iterable[int]) -> Callable[[], None]:
    """Return what reads the objects with these numbers; everything that can be is done before."""
    read, places = way.read, [way.places[pick % len(way.places)] for pick in picks]

    def run() -> None:
        for place in places:
            read(place)

    return run


def read_batches(way: Way, picks: Sequence[int]) -> Callable[[], None]:
    """Return the same with `read_many`, a batch at a time."""
    assert way.read_many is not None
    read_many, places = way.read_many, [way.places[pick % len(way.places)] for pick in picks]
    batches = [places[start : start + BATCH] for start in range(0, len(places), BATCH)]

    def run() -> None:
        for batch in batches:
            read_many(batch)

    return run


def _read_file(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()
