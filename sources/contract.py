"""What every store must do, as a pytest class: subclass it, give it a store, and run it.

class TestMyStore(StoreContract):
    @pytest.fixture
    def place(self) -> tuple[Store, str]:
        return open_store("my://host/"), "a/prefix/"
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import pytest

from sources.errors import SourceChangedError, SourceNotFoundError, SourceUnavailableError, SwapLostError
from sources.stores import SwapObject

if TYPE_CHECKING:
    from sources.locations import Version
    from sources.stores import Store

Place = tuple["Store", str]
"""A store and the key prefix, ending in "/", below which the test may do as it likes."""


class StoreContract:
    """Claims about list, stat, read, put and delete."""

    def test_listing_yields_every_key_below_the_prefix_once(self, place: Place) -> None:
        """Nested keys, keys that sort around the slash, and spaces are there; what is beside the prefix is not."""
        store, prefix = place
        keys = [prefix + name for name in ("in/a", "in/b/c", "in/b/d e", "in/b.x", "in/ü", "in/b/%41+&")]
        for key in [*keys, prefix + "inside", prefix + "other/x"]:
            store.put(key, b"x")
        assert sorted(stat.key for stat in store.list(prefix + "in/")) == sorted(keys)

    def test_listing_of_nothing_is_empty(self, place: Place) -> None:
        """A directory that holds nothing is no error in an object store, and is missing in a file system."""
        store, prefix = place
        store.put(prefix + "somewhere/else", b"x")
        try:
            listed = list(store.list(prefix + "nothing/"))
        except SourceNotFoundError:
            listed = []
        assert listed == []

    def test_listing_and_stat_tell_the_same(self, place: Place) -> None:
        """Both tell the same version, so that an import may pin from the listing alone."""
        store, prefix = place
        store.put(prefix + "one", b"12345")
        (listed,) = store.list(prefix)
        found = store.stat(prefix + "one")
        assert (found.size, found.version) == (listed.size, listed.version) == (5, listed.version)

    def test_a_range_of_a_pinned_object_is_read(self, place: Place) -> None:
        """Start, middle, end, all and nothing of it."""
        store, prefix = place
        data = bytes(range(256)) * 8
        store.put(prefix + "data", data)
        version = store.stat(prefix + "data").version
        for start, length in ((0, 2048), (0, 1), (7, 100), (2047, 1), (5, 0)):
            read = bytes(store.read(prefix + "data", start=start, length=length, version=version))
            assert read == data[start : start + length]

    def test_a_changed_object_is_refused(self, place: Place) -> None:
        """Of another length or, where the store can tell, of the same one."""
        store, prefix = place
        store.put(prefix + "data", b"before")
        version = store.stat(prefix + "data").version
        store.put(prefix + "data", b"after it changed")
        with pytest.raises(SourceChangedError) as caught:
            store.read(prefix + "data", start=0, length=3, version=version)
        assert caught.value.expected == version
        assert caught.value.found == store.stat(prefix + "data").version

    def test_a_deleted_object_is_refused_as_changed(self, place: Place) -> None:
        """Deleted at the source is one way to change."""
        store, prefix = place
        store.put(prefix + "data", b"before")
        version = store.stat(prefix + "data").version
        store.delete(prefix + "data")
        store.delete(prefix + "data")
        with pytest.raises(SourceChangedError, match="gone"):
            store.read(prefix + "data", start=0, length=3, version=version)

    def test_what_is_missing_is_not_found(self, place: Place) -> None:
        """With no version asked for, missing is missing."""
        store, prefix = place
        store.put(prefix + "data", b"x")
        with pytest.raises(SourceNotFoundError):
            store.stat(prefix + "missing")
        with pytest.raises(SourceNotFoundError):
            store.read(prefix + "missing", start=0, length=1, version=None)

    def test_a_short_body_is_an_error(self, place: Place) -> None:
        """A read returns all that was asked for or raises."""
        store, prefix = place
        store.put(prefix + "data", b"12345")
        with pytest.raises(SourceUnavailableError, match="asked for 9 bytes"):
            store.read(prefix + "data", start=0, length=9, version=None)


class SwapContract(StoreContract):
    """Claims about compare-and-swap, for stores that may hold a repository."""

    races = 10
    """How often writers race, to create and then to replace."""

    def test_swap_creates_once_and_replaces_what_it_expects(self, place: Place) -> None:
        """Create, replace, and refuse both when the premise is gone."""
        store, prefix = _swapping(place)
        first = store.swap(prefix + "ref", b"1", expect=None)
        assert store.fetch(prefix + "ref") == (b"1", first)
        second = store.swap(prefix + "ref", b"2", expect=first)
        assert store.fetch(prefix + "ref") == (b"2", second)
        with pytest.raises(SwapLostError):
            store.swap(prefix + "ref", b"3", expect=first)
        with pytest.raises(SwapLostError):
            store.swap(prefix + "ref", b"3", expect=None)
        with pytest.raises(SwapLostError):
            store.swap(prefix + "absent", b"3", expect=first)
        assert store.fetch(prefix + "ref")[0] == b"2"

    def test_of_racing_writers_exactly_one_wins(self, place: Place) -> None:
        """Eight threads, some rounds, both creating and replacing."""
        store, prefix = _swapping(place)
        expect: Version | None = None
        for turn in range(self.races):
            winners = _race(store, prefix + "raced", expect, turn)
            assert len(winners) == 1
            body, expect = store.fetch(prefix + "raced")
            assert body == winners[0]


def _swapping(place: Place) -> tuple[SwapObject, str]:
    store, prefix = place
    assert isinstance(store, SwapObject)
    return cast("SwapObject", store), prefix


def _race(store: SwapObject, key: str, expect: Version | None, turn: int) -> list[bytes]:
    winners: list[bytes] = []
    start = threading.Barrier(8, timeout=30)

    def write(number: int) -> None:
        body = f"{turn}/{number}".encode()
        start.wait()
        try:
            store.swap(key, body, expect=expect)
        except SwapLostError:
            return
        winners.append(body)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return winners
