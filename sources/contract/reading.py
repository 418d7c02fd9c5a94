"""Claims about reading."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from sources.contract.places import Arranged
from sources.errors import SourceChangedError, SourceNotFoundError, SourceUnavailableError
from sources.stores import ReadInto

if TYPE_CHECKING:
    from sources.contract.places import DeleteBehind, Place, PutBehind

_DATA = bytes(range(256)) * 8


class ReadingClaims(Arranged):
    """A read gives just the bytes of the pinned version, all that were asked for, or raises."""

    def test_a_range_of_a_pinned_object_is_read(self, place: Place, put_behind: PutBehind) -> None:
        """Start, middle, end, all and nothing of it."""
        store, prefix = place
        put_behind(prefix + "data", _DATA)
        version = store.stat(prefix + "data").version
        for start, length in ((0, 2048), (0, 1), (7, 100), (2047, 1), (5, 0)):
            read = bytes(store.read(prefix + "data", start=start, length=length, version=version))
            assert read == _DATA[start : start + length]

    def test_a_range_is_read_into_memory_of_the_caller(self, place: Place, put_behind: PutBehind) -> None:
        """The buffer is filled, and what lies around it stays."""
        store, prefix = place
        if not isinstance(store, ReadInto):
            pytest.skip("the store has no read_into()")
        put_behind(prefix + "data", _DATA)
        version = store.stat(prefix + "data").version
        memory = bytearray(b"." * 120)
        store.read_into(prefix + "data", start=7, buffer=memoryview(memory)[10:110], version=version)
        assert memory == b"." * 10 + _DATA[7:107] + b"." * 10
        with pytest.raises(SourceUnavailableError, match="asked for 120 bytes"):
            store.read_into(prefix + "data", start=2000, buffer=memoryview(memory), version=version)
        put_behind(prefix + "data", b"after it changed")
        with pytest.raises(SourceChangedError):
            store.read_into(prefix + "data", start=0, buffer=memoryview(memory)[:5], version=version)

    def test_an_empty_object_is_one(self, place: Place, put_behind: PutBehind) -> None:
        """It is listed, has a version, and holds nothing."""
        store, prefix = place
        put_behind(prefix + "empty", b"")
        (listed,) = store.list(prefix)
        assert (listed.size, store.stat(prefix + "empty").version) == (0, listed.version)
        assert bytes(store.read(prefix + "empty", start=0, length=0, version=listed.version)) == b""

    def test_threads_read_at_once(self, place: Place, put_behind: PutBehind) -> None:
        """Eight threads, a few ranges of 3 MiB each."""
        store, prefix = place
        data = random.Random(7).randbytes(3 << 20)
        put_behind(prefix + "data", data)
        version = store.stat(prefix + "data").version
        starts = random.Random(8).sample(range(len(data) - 100_000), 40)

        def is_right(start: int) -> bool:
            read = bytes(store.read(prefix + "data", start=start, length=100_000, version=version))
            return read == data[start : start + 100_000]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(is_right, starts))

    def test_a_changed_object_is_refused(self, place: Place, put_behind: PutBehind) -> None:
        """Of another length or, where the store can tell, of the same one."""
        store, prefix = place
        put_behind(prefix + "data", b"before")
        version = store.stat(prefix + "data").version
        put_behind(prefix + "data", b"after it changed")
        with pytest.raises(SourceChangedError) as caught:
            store.read(prefix + "data", start=0, length=3, version=version)
        assert caught.value.expected == version
        assert caught.value.found == store.stat(prefix + "data").version

    def test_a_deleted_object_is_refused_as_changed(
        self, place: Place, put_behind: PutBehind, delete_behind: DeleteBehind
    ) -> None:
        """Deleted at the source is one way to change."""
        store, prefix = place
        put_behind(prefix + "data", b"before")
        version = store.stat(prefix + "data").version
        delete_behind(prefix + "data")
        with pytest.raises(SourceChangedError, match="gone"):
            store.read(prefix + "data", start=0, length=3, version=version)

    def test_what_is_missing_is_not_found(self, place: Place, put_behind: PutBehind) -> None:
        """With no version asked for, missing is missing."""
        store, prefix = place
        put_behind(prefix + "data", b"x")
        with pytest.raises(SourceNotFoundError):
            store.stat(prefix + "missing")
        with pytest.raises(SourceNotFoundError):
            store.read(prefix + "missing", start=0, length=1, version=None)

    def test_a_short_body_is_an_error(self, place: Place, put_behind: PutBehind) -> None:
        """A read returns all that was asked for or raises."""
        store, prefix = place
        put_behind(prefix + "data", b"12345")
        with pytest.raises(SourceUnavailableError, match="asked for 9 bytes"):
            store.read(prefix + "data", start=0, length=9, version=None)
