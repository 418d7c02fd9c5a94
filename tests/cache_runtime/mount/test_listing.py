from __future__ import annotations

import itertools
import stat
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_runtime.mount.attributes import Owner
from cache_runtime.mount.epochs import Epochs
from cache_runtime.mount.names import Names
from cache_runtime.mount.nodes import THROUGH, node_id
from cache_runtime.mount.protocol import ATTR, DIRENT, ENTRY_BYTES, ENTRY_HEAD, ROOT_ID
from cache_runtime.mount.view import FileAt, Place
from tests.cache_runtime.mount.views import MemoryView

OWNER = Owner(1000, 0xFFFFFFFE)
COMPONENT = st.one_of(
    st.sampled_from(
        ["a", "a-", "a.txt", "b", "é", "日本語", "." * 3, "x" * 255, "x" * 256, "x" * 400, ".", "..", "n\0l", " "]
    ),
    st.text(min_size=1, max_size=12).filter(lambda text: "/" not in text and text.isprintable()),
)
PATHS = st.lists(st.lists(COMPONENT, min_size=1, max_size=3).map("/".join), max_size=60)
TIMES = st.integers(-(10**18), 4 * 10**18)


class Record(NamedTuple):
    name: bytes
    ino: int
    next: int
    kind: int
    head: tuple[int, ...]
    attr: tuple[int, ...]


def parse(data: bytes, *, plus: bool) -> list[Record]:
    records, at = [], 0
    while at < len(data):
        head: tuple[int, ...] = ()
        attr: tuple[int, ...] = ()
        if plus:
            head, attr = ENTRY_HEAD.unpack_from(data, at), ATTR.unpack_from(data, at + ENTRY_HEAD.size)
            at += ENTRY_BYTES
        ino, position, length, kind = DIRENT.unpack_from(data, at)
        at += DIRENT.size
        records.append(Record(data[at : at + length], ino, position, kind, head, attr))
        assert not any(data[at + length : at - (-length // 8 * 8)])
        at -= -length // 8 * 8
    assert at == len(data)
    return records


def without_clashes(paths: list[str]) -> list[str]:
    """Leave out files that are directories too."""
    above = {"/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1)}
    return sorted(set(paths) - above)


def shown(paths: list[str], prefix: str) -> dict[bytes, bool]:
    """Return the children of a directory that can be shown, and which of them are directories."""
    children = {}
    for path in paths:
        if path.startswith(prefix):
            name, slash, _ = path[len(prefix) :].partition("/")
            children[name.encode()] = bool(slash)
    return {n: d for n, d in children.items() if n not in (b".", b"..") and len(n) <= 255 and b"\0" not in n}


def list_all(names: Names, node: int, sizes: list[int], *, plus: bool) -> list[Record]:
    records: list[Record] = []
    position, turns = 0, itertools.cycle(sizes)
    while data := bytes(names.list(node, position, next(turns), plus=plus)):
        records += parse(data, plus=plus)
        position = records[-1].next
    return records


@given(PATHS, st.lists(st.integers(1000, 40_000), min_size=1, max_size=5), st.integers(1, 20), st.booleans(), TIMES)
def test_every_directory_lists_its_children_once(
    paths: list[str], sizes: list[int], page: int, plus: bool, time: int
) -> None:
    paths = without_clashes(paths)
    view = MemoryView({path: (len(path) * 999, time) for path in paths}, page=page)
    names = Names(Epochs(view), OWNER, set())
    waiting = [("", ROOT_ID)]
    while waiting:
        prefix, node = waiting.pop()
        own, up, *children = list_all(names, node, sizes, plus=plus)
        assert (own.name, own.ino, up.name) == (b".", node, b"..")
        expected = shown(paths, prefix)
        assert [child.name for child in children] == sorted(expected, key=lambda n: n + b"/" * expected[n])
        for child in children:
            assert child.kind == (stat.S_IFDIR if expected[child.name] else stat.S_IFREG) >> 12
            entry = names.look_up(node, child.name)
            if plus:
                assert (*child.head, *child.attr) == (*ENTRY_HEAD.unpack_from(entry), *ATTR.unpack_from(entry, 40))
            assert ENTRY_HEAD.unpack_from(entry)[0] == child.ino
            if expected[child.name]:
                waiting.append((prefix + child.name.decode() + "/", child.ino))


@given(PATHS, st.booleans(), st.data())
def test_a_listing_goes_on_at_any_of_its_positions(paths: list[str], plus: bool, data: st.DataObject) -> None:
    paths = without_clashes(paths)
    names = Names(Epochs(MemoryView(dict.fromkeys(paths, (1, 0)), page=7)), OWNER, set())
    records = list_all(names, ROOT_ID, [4096], plus=plus)
    for _ in range(5):
        number = data.draw(st.integers(0, len(records) - 1))
        rest = parse(bytes(names.list(ROOT_ID, records[number].next, 1 << 20, plus=plus)), plus=plus)
        assert rest[: len(records) - number - 1] == records[number + 1 :][: len(rest)]
    odd = data.draw(st.integers(0, (1 << 64) - 1))
    parse(bytes(names.list(ROOT_ID, odd, 4096, plus=plus)), plus=plus)


@given(st.sets(st.integers(0, 49)))
def test_upgraded_files_have_another_id_and_the_same_number(upgraded: set[int]) -> None:
    view = MemoryView({f"{number:02d}": (number, 0) for number in range(50)})
    inos = {node_id(1, Place(row, 0)) for row in upgraded}
    names = Names(Epochs(view), OWNER, inos)
    for record in list_all(names, ROOT_ID, [1 << 20], plus=True)[2:]:
        through = THROUGH if record.ino in inos else 0
        assert record.head[0] == record.ino | through
        assert record.attr[0] == record.ino
        entry = names.look_up(ROOT_ID, record.name)
        assert (*record.head, *record.attr) == (*ENTRY_HEAD.unpack_from(entry), *ATTR.unpack_from(entry, 40))


class Below(MemoryView):
    """A directory of a version: its files keep their whole paths."""

    def file(self, row: int) -> FileAt:
        file = super().file(row)
        return file._replace(path=f"a/above/{file.path}")


@given(PATHS)
def test_the_entry_of_a_file_is_where_it_is_looked_up(paths: list[str]) -> None:
    paths = [path for path in without_clashes(paths) if max(map(len, path.encode().split(b"/"))) <= 255]
    for view in (MemoryView(dict.fromkeys(paths, (1, 0))), Below(dict.fromkeys(paths, (1, 0)))):
        names = Names(Epochs(view), OWNER, set())
        for row in range(view.rows):
            ino = node_id(1, Place(row, 0))
            entry = names.entry_of(ino)
            assert entry is not None
            assert ENTRY_HEAD.unpack_from(names.look_up(*entry))[0] == ino


@given(st.integers(256, 5000), st.integers(1, 255))
def test_a_name_that_is_too_long_is_not_looked_for(long: int, short: int) -> None:
    names = Names(Epochs(MemoryView({"x" * long: (1, 0), "x" * short: (2, 0)})), OWNER, set())
    with pytest.raises(OSError, match="File name too long"):
        names.look_up(ROOT_ID, b"x" * long)
    assert ENTRY_HEAD.unpack_from(names.look_up(ROOT_ID, b"x" * short))[0] == node_id(1, Place(0, 0))
