"""Claims about compare-and-swap."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar

import pytest

from sources.contract.places import Arranged
from sources.errors import SwapLostError
from sources.stores import SwapObject

if TYPE_CHECKING:
    from sources.contract.places import Place
    from sources.locations import Version

_WRITERS = 8
_SECONDS = 60


class SwappingClaims(Arranged):
    """One writer wins, the others know it: for stores that may hold a repository."""

    races: ClassVar[int] = 10
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
    assert isinstance(store, SwapObject), "the store has no fetch() and swap()"
    return store, prefix


def _race(store: SwapObject, key: str, expect: Version | None, turn: int) -> list[bytes]:
    winners: list[bytes] = []
    start = threading.Barrier(_WRITERS, timeout=_SECONDS)

    def write(number: int) -> None:
        body = f"{turn}/{number}".encode()
        start.wait()
        try:
            store.swap(key, body, expect=expect)
        except SwapLostError:
            return
        winners.append(body)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(_WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=_SECONDS)
    return winners
