"""Claims about writing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from sources.contract.places import Arranged
from sources.errors import SourceNotFoundError

if TYPE_CHECKING:
    from sources.contract.places import Place


class WritingClaims(Arranged):
    """Whole objects are written, replaced and deleted."""

    def test_what_is_put_is_read(self, place: Place) -> None:
        """From bytes and from any other memory, small and large."""
        store, prefix = place
        large = random.Random(7).randbytes(9 << 20)
        for name, data in (("bytes", b"123"), ("array", bytearray(b"456")), ("view", memoryview(b"789")), ("b", large)):
            store.put(prefix + name, data)
            found = store.stat(prefix + name)
            assert found.size == len(data)
            assert bytes(store.read(prefix + name, start=0, length=len(data), version=found.version)) == bytes(data)

    def test_a_put_replaces_the_whole_object(self, place: Place) -> None:
        """A shorter one leaves nothing of the longer one."""
        store, prefix = place
        store.put(prefix + "data", b"1234567890")
        store.put(prefix + "data", b"abc")
        assert store.stat(prefix + "data").size == 3
        assert [stat.key for stat in store.list(prefix)] == [prefix + "data"]

    def test_what_is_deleted_is_gone_and_may_be_deleted_again(self, place: Place) -> None:
        """Deleting what is not there succeeds, so that it can be repeated after a lost answer."""
        store, prefix = place
        store.put(prefix + "data", b"x")
        for kept in ("data.kept", "data2", "kept"):
            store.put(prefix + kept, b"x")
        store.delete(prefix + "data")
        store.delete(prefix + "data")
        with pytest.raises(SourceNotFoundError):
            store.stat(prefix + "data")
        assert sorted(stat.key for stat in store.list(prefix)) == [
            prefix + kept for kept in ("data.kept", "data2", "kept")
        ]
