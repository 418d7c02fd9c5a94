"""What decides how files of a mount are read, without a mount."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING, cast

from hypothesis import given
from hypothesis import strategies as st

from cache_runtime import BlockStore, Client
from cache_runtime.mount.ahead import Ahead, Stream
from cache_runtime.mount.backing import BackingIds
from cache_runtime.mount.counters import BOUNDS_MS, Counters
from cache_runtime.mount.nodes import THROUGH, ino_in
from cache_runtime.mount.walks import Walk, Walks
from cache_runtime.mount.ways import Ways
from cache_runtime.store.layout import BLOCK_BYTES
from sources import Location
from tests.cache_runtime.lake import MIB, Lake, whole
from tests.cache_runtime.mount.mounted import until
from tests.cache_runtime.mount.views import MemoryView
from tests.cache_runtime.objects import CAPACITY, make_refs

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from typing_extensions import Buffer

    from cache_runtime.mount.view import FileAt, MountView
    from cache_runtime.store.shelf import Lent


class QuietKernel:
    """A kernel that takes every backing file."""

    device = -1
    passthrough = True

    def __init__(self) -> None:
        self.upgraded: list[int] = []

    def reply(self, unique: int, *parts: Buffer) -> bool:
        return True

    def fail(self, unique: int, number: int) -> None: ...

    def is_unwanted(self, unique: int) -> bool:
        return False

    def upgrade(self, ino: int) -> None:
        self.upgraded.append(ino)

    def drop_pages(self, node: int) -> None: ...


class NumberedIds(BackingIds):
    def __init__(self, kernel: QuietKernel) -> None:
        super().__init__(kernel)
        self.last, self.open_ids = 0, set[int]()

    def open(self, lent: Lent, size: int) -> int:
        self.last += 1
        self.open_ids.add(self.last)
        return self.last

    def close(self, backing: int) -> None:
        self.open_ids.remove(backing)


STEPS = st.lists(
    st.tuples(st.sampled_from(["open", "open cached", "close", "switch"]), st.integers(1, 3), st.booleans()),
    max_size=60,
)


@given(steps=STEPS)
def test_all_handles_of_an_id_go_one_way_with_one_backing_id(steps: list[tuple[str, int, bool]]) -> None:
    kernel = QuietKernel()
    ids = NumberedIds(kernel)
    ways = Ways(ids, kernel, Counters())
    ref, lent = make_refs(1, 5 * MIB)[0], cast("Lent", object())
    handles: dict[int, list[int]] = {}
    for what, ino, through in steps:
        node = ino | THROUGH if through else ino
        if what == "switch":
            other = node ^ THROUGH
            is_possible = bool(handles.get(node)) and not handles.get(other)
            switched = ways.switch(node)
            assert not switched or is_possible
            assert not switched or (ino in ways.switched) == bool(other & THROUGH)
        elif what == "close":
            if handles.get(node):
                handles[node].pop()
                ways.leave(node)
        else:
            joined = ways.join(node)
            assert (joined is not None) == bool(handles.get(node))
            given_lent = lent if what == "open" else None
            handles.setdefault(node, []).append(ways.begin(node, ref, given_lent) if joined is None else joined)
        assert all(len(set(found)) <= 1 for found in handles.values())
        assert ids.open_ids == {backing for found in handles.values() for backing in found if backing}
        assert {number for number, _ in ways.nodes()} == {number for number, found in handles.items() if found}
        assert all(ino_in(number) in {1, 2, 3} for number in ways.switched)
    ways.close()
    assert not ids.open_ids


def test_a_file_that_is_longer_than_its_object_is_not_given_to_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlockStore.open(tmp_path / "cache", capacity_bytes=CAPACITY)
    (ref,) = make_refs(1, 2 * MIB)
    assert store.put(ref, 0, bytes(ref.size))
    lent = store.lend(ref, 0, ref.size)
    assert lent is not None
    monkeypatch.setattr(fcntl, "ioctl", lambda *request: 7)
    ids = BackingIds(QuietKernel())
    assert ids.open(lent, ref.size) == 7
    os.truncate(f"/proc/self/fd/{lent.fd}", ref.size + 1)
    assert ids.open(lent, ref.size) == 0


def test_a_kernel_that_refuses_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*request: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    ids = BackingIds(QuietKernel())
    store = BlockStore.open(tmp_path / "cache", capacity_bytes=CAPACITY)
    (ref,) = make_refs(1, 2 * MIB)
    assert store.put(ref, 0, bytes(ref.size))
    lent = store.lend(ref, 0, ref.size)
    assert lent is not None
    assert ids.open(lent, ref.size) == 0
    assert not ids.is_possible
    assert "Operation not permitted" in str(ids.refusal)


@given(lengths=st.lists(st.integers(1, MIB), min_size=1, max_size=30), jump=st.integers(3 * MIB, 1 << 40))
def test_a_stream_is_believed_after_some_reads_in_order_and_not_after_a_jump(lengths: list[int], jump: int) -> None:
    stream, position = Stream(), 0
    for length in lengths:
        sure = stream.advance(position, position + length)
        position += length
        assert sure == (position >= 512 << 10)
    assert stream.advance(0, 1) is (position <= 2 * MIB and position >= 512 << 10)  # the kernel's requests overtake
    assert not stream.advance(position + jump, position + jump + 1)


def test_what_a_stream_comes_to_is_fetched_once_and_not_far_beyond(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    ref = lake.add("big", 64 * MIB)
    client = Client(lake.origins, BlockStore.open(tmp_path / "cache", capacity_bytes=256 * MIB))
    counters = Counters()
    ahead, stream = Ahead(client, counters, most_bytes=16 * MIB, threads=2), Stream()
    for offset in range(0, 8 * MIB, MIB):
        ahead.note(stream, whole(ref), offset, MIB)
    location = Location(ref, 8 * MIB, MIB)
    ahead.wait(location, seconds=10)
    assert client.read(location) == lake.expected(location)
    assert 8 * MIB < stream.reach * BLOCK_BYTES <= 8 * MIB + 20 * MIB
    until(lambda: sum(int(line.split()[2]) for line in lake.reads()) == stream.reach * BLOCK_BYTES)
    assert counters.ahead_bytes <= stream.reach * BLOCK_BYTES
    ahead.close()


class Ordered(MemoryView):
    """Files in a lake."""

    lake: Lake

    def file(self, row: int) -> FileAt:
        found = super().file(row)
        return found._replace(location=whole(self.lake.refs[row]))


def test_files_are_fetched_in_their_order_once_some_of_them_were_missed(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for number in range(200):
        lake.add(f"{number:03}", 500)
    view = Ordered({f"{number:03}": (500, 0) for number in range(200)})
    view.lake = lake
    client = Client(lake.origins, BlockStore.open(tmp_path / "cache", capacity_bytes=CAPACITY))
    counters = Counters()
    walks = Walks(client, counters, most_bytes=MIB)
    viewed = cast("MountView", view)
    walks.missed(viewed, 150)
    for row in range(3):
        walks.missed(viewed, row)
    time.sleep(0.05)
    assert not lake.reads()  # a few neighbours are met at random too
    walks.missed(viewed, 3)
    until(lambda: counters.walk_files > 0)
    for row in range(4, 60):
        walks.opened(viewed, row)
    until(lambda: counters.walk_files >= 56)
    read = lake.reads()
    assert len(read) == len(set(read))  # none is fetched twice
    assert counters.walk_failures == 0
    walks.close()


def test_a_walk_ends_where_all_is_here_and_where_the_files_end(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for number in range(40):
        lake.add(f"{number:03}", 500)
    view = Ordered({f"{number:03}": (500, 0) for number in range(40)})
    view.lake = lake
    client = Client(lake.origins, BlockStore.open(tmp_path / "cache", capacity_bytes=CAPACITY))
    client.read_many([whole(ref) for ref in lake.refs])
    counters = Counters()
    walks, viewed = Walks(client, counters, most_bytes=MIB), cast("MountView", view)
    walks.missed(viewed, 0)
    for row in range(40):
        walks.missed(viewed, row)
    until(lambda: counters.walk_files > 0)
    before = len(lake.reads())
    for row in range(40):
        walks.opened(viewed, row)
    assert len(lake.reads()) == before
    assert counters.walk_bytes == 0
    walks.close()


@given(row=st.integers(0, 1 << 36), near=st.integers(-16, 16))
def test_a_walk_covers_what_is_near_and_nothing_far(row: int, near: int) -> None:
    view = cast("MountView", object())
    walk = Walk(view, row)
    assert walk.covers(view, row + near)
    assert not walk.covers(view, row + 25)
    assert not walk.covers(view, row - 17)
    assert not walk.covers(cast("MountView", object()), row)


def test_waits_are_counted_by_how_long_they_took() -> None:
    counters = Counters()
    for seconds in (0.0005, 0.001, 0.003, 70.0):
        counters.waited(10, seconds)
    found = counters.as_dict()
    assert found["waits"] == [2, 0, 1] + [0] * (len(BOUNDS_MS) - 3) + [1]
    assert (found["reads_waited"], found["bytes_waited"], found["longest_wait_seconds"]) == (4, 40, 70.0)
