"""The view of a mount answers like a plain dictionary of directories."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_runtime.mount.view import ROOT, Found, Place
from ds.mounting.view import MountedVersion, Shown
from sources import StoreId
from tests.versioning.samples import built, entry, paths, tiny_nodes
from tests.versioning.stores import MemoryStore
from versioning import CommitId, Entry, PathNotFoundError, RepositoryRoot
from versioning.positions import Positions

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT_STORE = RepositoryRoot(StoreId("file://"), "repo/")
COMMIT = CommitId("c" * 64)
TIME = 1_700_000_000_000_000_000


class Child(NamedTuple):
    """What the model says of one."""

    name: bytes
    is_dir: bool
    row: int
    size: int
    mtime_ns: int


class Model:
    """Directories as dictionaries."""

    def __init__(self, entries: Iterable[Entry], directory: str) -> None:
        self.base = f"{directory}/".encode() if directory else b""
        ordered = sorted(entries, key=lambda each: each.path.encode())
        self.files = [each for each in ordered if each.path.encode().startswith(self.base)]
        self.paths = [each.path.encode()[len(self.base) :] for each in self.files]

    def children(self, directory: bytes) -> list[Child]:
        """`directory` ends with a slash, or is empty."""
        found: dict[tuple[bytes, bool], Child] = {}
        for row, (path, each) in enumerate(zip(self.paths, self.files, strict=True)):
            if path.startswith(directory):
                name, slash, _ = path[len(directory) :].partition(b"/")
                size, mtime = (0, TIME) if slash else (each.size, TIME if each.mtime_ns is None else each.mtime_ns)
                found.setdefault((name, bool(slash)), Child(name, bool(slash), row, size, mtime))
        return [child for (name, is_dir), child in found.items() if not is_dir or (name, False) not in found]


def view_of(entries: Iterable[Entry], directory: str = "", cache_bytes: int = 1 << 20) -> MountedVersion:
    nodes = tiny_nodes(cache_bytes=1)
    positions = Positions(nodes, built(nodes, entries).root, cache_bytes=cache_bytes)
    return MountedVersion(positions, Shown(COMMIT, ROOT_STORE, TIME, directory))


def listed(view: MountedVersion, directory: Place, row: int | None = None) -> list[Child]:
    found: list[Child] = []
    at: int | None = directory.row if row is None else row
    while at is not None:
        part = view.children(directory, at)
        columns = (part.names, part.levels, part.rows, part.sizes, part.mtimes_ns)
        for name, level, number, size, mtime in zip(*columns, strict=True):
            assert level in (0, directory.level + 1)
            found.append(Child(name, bool(level), int(number), int(size), int(mtime)))
        assert part.next_row is None or part.next_row > at
        at = part.next_row
    return found


clashing = st.text(st.sampled_from("ab/!0"), min_size=1, max_size=7).filter(lambda path: all(path.split("/")))
entries = st.dictionaries(
    st.one_of(paths, clashing),
    st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(-5, 1 << 60))),
    max_size=80,
).map(lambda found: [replace(entry(path, size), mtime_ns=mtime) for path, (size, mtime) in found.items()])


@settings(max_examples=120, deadline=None)
@given(entries, st.sampled_from(["", "", "d1", "a", "b/a"]), st.data())
def test_a_view_answers_like_directories_of_dictionaries(
    files: list[Entry], directory: str, data: st.DataObject
) -> None:
    model = Model(files, directory)
    if directory and not model.files:
        with pytest.raises((PathNotFoundError, NotADirectoryError)):
            view_of(files, directory)
        return
    view = view_of(files, directory, data.draw(st.sampled_from([1, 1 << 20])))
    assert (view.rows, view.size) == (len(model.files), sum(each.size for each in model.files))
    to_visit = [(ROOT, b"")]
    while to_visit:
        place, prefix = to_visit.pop()
        expected = model.children(prefix)
        assert listed(view, place) == expected
        later = data.draw(st.integers(0, len(model.files) + 3))
        assert listed(view, place, later) == [child for child in expected if child.row >= later]
        for child in expected:
            found = Found(Place(child.row, place.level + 1 if child.is_dir else 0), child.size, child.mtime_ns)
            assert view.find(place, child.name) == found
            assert view.stat(found.place) == found
            if child.is_dir:
                to_visit.append((found.place, prefix + child.name + b"/"))
        names = {child.name for child in expected}
        for name in (b"a", b"b!", b"", b"d", b"zz", b"\xff\xfe", b"\xe9", b"a0", b"d1", *(n + b"!" for n in names)):
            assert (view.find(place, name) is not None) == (name in names)
    for row, each in enumerate(model.files):
        found_files = view.files(row, 5)
        assert [at.path for at in found_files] == [other.path for other in model.files[row : row + 5]]
        at = view.file(row)
        assert at == found_files[0]
        assert view.largest(row, 5) == max(other.size for other in model.files[row : row + 5])
        assert (at.location, at.digest) == (each.location(ROOT_STORE), each.oid)


def test_a_place_that_is_none_is_stale() -> None:
    view = view_of([entry("a/b")])
    for place in (Place(1, 0), Place(-1, 0)):
        with pytest.raises(OSError, match="no such file") as caught:
            view.stat(place)
        assert caught.value.errno == errno.ESTALE
    with pytest.raises(OSError, match="lies in no directory"):
        view.children(Place(0, 3), 0)


def test_a_file_cannot_be_mounted() -> None:
    files = [entry("a/b"), entry("c")]
    with pytest.raises(NotADirectoryError):
        view_of(files, "a/b")
    with pytest.raises(PathNotFoundError):
        view_of(files, "a/c")


def test_an_unreadable_version_is_an_error_of_the_disk_that_names_the_object() -> None:
    store = MemoryStore()
    root = built(tiny_nodes(store), [entry(f"{number:03d}") for number in range(200)]).root
    view = MountedVersion(Positions(tiny_nodes(store), root), Shown(COMMIT, ROOT_STORE, TIME))
    for key in list(store.objects):
        if root.hex() not in key:
            store.delete(key)
    with pytest.raises(OSError, match=r"trees/.* is missing") as caught:
        view.find(ROOT, b"100")
    assert caught.value.errno == errno.EIO


def test_a_listing_skips_large_directories_by_seeks() -> None:
    store = MemoryStore()
    names = [f"{name}{number}" for name in "abc" for number in range(3)]
    root = built(tiny_nodes(store), [entry(f"{name}/{number:04d}") for name in names for number in range(700)]).root
    cold = tiny_nodes(store)
    view = MountedVersion(Positions(cold, root), Shown(COMMIT, ROOT_STORE, TIME))
    assert [child.name.decode() for child in listed(view, ROOT)] == names
    assert cold.reads < 120  # of about 2,000
