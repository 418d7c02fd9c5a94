"""Claims about listing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from sources.contract.places import Arranged
from sources.errors import SourceNotFoundError
from sources.stores import LISTING_SCHEMA, ListDirectories, ListPages

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from sources.contract.places import Place, PutBehind
    from sources.stores import Store

_NAMES = ("in/a", "in/b/c", "in/b/d e", "in/b.x", "in/b0", "in/B0", "in/ü", "in/b/%41+&")
_BESIDE = ("inside", "other/x")
_Rows = list[dict[str, Any]]


class ListingClaims(Arranged):
    """Every way to list tells the same, whole, in the promised order, from any key on."""

    many: ClassVar[int] = 1100
    """How many keys are listed in pages: more than most servers put into one answer."""

    def test_listing_yields_every_key_below_the_prefix_once(self, place: Place, put_behind: PutBehind) -> None:
        """Nested keys, keys that sort around the slash, both cases and spaces are there; what is beside it is not.

        A prefix need not end in a slash: it is the beginning of keys.
        """
        store, prefix = place
        keys = _arrange(prefix, put_behind)
        assert sorted(stat.key for stat in store.list(prefix + "in/")) == sorted(keys)
        beginning = prefix + "in/b"
        assert sorted(stat.key for stat in store.list(beginning)) == sorted(k for k in keys if k.startswith(beginning))

    def test_listing_of_nothing_is_empty(self, place: Place, put_behind: PutBehind) -> None:
        """A directory that holds nothing is no error in an object store, and is missing in a file system."""
        store, prefix = place
        put_behind(prefix + "somewhere/else", b"x")
        try:
            listed = list(store.list(prefix + "nothing/"))
        except SourceNotFoundError:
            listed = []
        assert listed == []

    def test_listing_and_stat_tell_the_same(self, place: Place, put_behind: PutBehind) -> None:
        """Both tell the same version, so that an import may pin from the listing alone."""
        store, prefix = place
        put_behind(prefix + "one", b"12345")
        (listed,) = store.list(prefix)
        found = store.stat(prefix + "one")
        assert (found.size, found.version) == (listed.size, listed.version) == (5, listed.version)

    def test_pages_tell_what_list_tells(self, place: Place, put_behind: PutBehind) -> None:
        """The same keys, sizes and versions, each once, in columns of the promised types."""
        store, prefix = _paging(place)
        _arrange(prefix, put_behind)
        rows = _rows(store.pages(prefix + "in/"))
        assert _identities(rows) == _listed(place[0], prefix + "in/")

    def test_pages_go_on_after_any_key(self, place: Place, put_behind: PutBehind) -> None:
        """From each key on comes just what follows it, so that a listing resumes where it stopped."""
        store, prefix = _paging(place)
        _arrange(prefix, put_behind)
        keys = [row["key"] for row in _rows(store.pages(prefix))]
        assert len(keys) == len(_NAMES) + len(_BESIDE)
        for turn, key in enumerate(keys):
            assert [row["key"] for row in _rows(store.pages(prefix, after=key))] == keys[turn + 1 :]

    def test_pages_tell_each_of_many_keys_once(self, place: Place, put_behind: PutBehind) -> None:
        """Where the server's answer ends, the next one goes on; nothing is lost or told twice in between."""
        store, prefix = _paging(place)
        keys = [f"{prefix}many/{number:05}" for number in range(self.many)]
        for key in keys:
            put_behind(key, b"")
        assert sorted(row["key"] for row in _rows(store.pages(prefix + "many/"))) == keys

    def test_directories_tell_what_list_tells(self, place: Place, put_behind: PutBehind) -> None:
        """Walked down from the prefix, they hold the same keys, sizes and versions; each level is in byte order."""
        store, prefix = _walking(place)
        _arrange(prefix, put_behind)
        top = store.scan_directory(prefix + "in/")
        assert top.directories == [prefix + "in/b/"]
        assert [row["key"] for row in top.files.to_pylist()] == [
            prefix + f"in/{name}" for name in ("B0", "a", "b.x", "b0", "ü")
        ]
        assert _identities(_walk(store, prefix + "in/")) == _listed(place[0], prefix + "in/")

    def test_a_missing_directory_is_not_found(self, place: Place, put_behind: PutBehind) -> None:
        """It is told from an empty one: something may have been unmounted."""
        store, prefix = _walking(place)
        put_behind(prefix + "somewhere/else", b"x")
        with pytest.raises(SourceNotFoundError):
            store.scan_directory(prefix + "nothing/")


def _arrange(prefix: str, put_behind: PutBehind) -> list[str]:
    for name in (*_NAMES, *_BESIDE):
        put_behind(prefix + name, name.encode())
    return [prefix + name for name in _NAMES]


def _paging(place: Place) -> tuple[ListPages, str]:
    store, prefix = place
    if not isinstance(store, ListPages):
        pytest.skip("the store has no pages()")
    return store, prefix


def _walking(place: Place) -> tuple[ListDirectories, str]:
    store, prefix = place
    if not isinstance(store, ListDirectories):
        pytest.skip("the store has no scan_directory()")
    return store, prefix


def _rows(batches: Iterable[pa.RecordBatch]) -> _Rows:
    rows: _Rows = []
    for batch in batches:
        assert batch.schema.equals(LISTING_SCHEMA)
        rows += batch.to_pylist()
    return rows


def _walk(store: ListDirectories, directory: str) -> _Rows:
    page = store.scan_directory(directory)
    for keys in ([row["key"] for row in page.files.to_pylist()], page.directories):
        assert keys == sorted(keys, key=str.encode)
        assert all(key.startswith(directory) for key in keys)
    rows = _rows([page.files])
    for below in page.directories:
        assert below.endswith("/")
        rows += _walk(store, below)
    return rows


def _identities(rows: _Rows) -> list[tuple[str, int, str]]:
    return sorted((row["key"], row["size"], row["version"]) for row in rows)


def _listed(store: Store, prefix: str) -> list[tuple[str, int, str]]:
    return sorted((stat.key, stat.size, str(stat.version)) for stat in store.list(prefix))
