from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_runtime import BlockStore, CacheRangeError, Client
from cache_runtime.store.blockfiles import BlockFile
from cache_runtime.store.familymarks import FamilyMarks
from sources import Location, SourceError
from tests.cache_runtime.lake import MIB, whole

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cache_runtime.lake import Lake


@pytest.mark.parametrize("cached", [True, False])
def test_ranges_of_few_objects_are_what_single_reads_give(lake: Lake, store: BlockStore, cached: bool) -> None:
    client = Client(lake.origins, store if cached else None)
    refs = [lake.add("large", 9 * MIB + 5), lake.add("other", 5 * MIB), lake.add("small", 70_000)]
    picks = random.Random(3)
    for kept in (refs, refs[:2], refs[1:2]):  # with a small object, without, alone
        for _ in range(3):  # the first time blocks are fetched and checked, then mapped files are cut
            numbers = [picks.randrange(len(kept)) for _ in range(40)]
            offsets = [picks.randrange(kept[number].size) for number in numbers]
            lengths = [picks.choice([0, 1, 9000, kept[n].size - o]) for n, o in zip(numbers, offsets, strict=True)]
            lengths = [min(length, kept[n].size - o) for n, o, length in zip(numbers, offsets, lengths, strict=True)]
            views = client.read_ranges(kept, numbers, offsets, lengths)
            rows = zip(numbers, offsets, lengths, strict=True)
            wanted = [Location(kept[number], offset, length) for number, offset, length in rows]
            assert [bytes(view) for view in views] == [lake.expected(location) for location in wanted]
    assert client.read_ranges([], [], [], []) == []


def test_batches_of_ranges_are_counted_as_reads(lake: Lake, client: Client) -> None:
    ref = lake.add("large", 5 * MIB)
    client.read(whole(ref))
    before = client.stats.snapshot()
    client.read_ranges([ref], [0, 0], [0, 4 * MIB], [10, 20])
    spent = client.stats.snapshot() - before
    assert (spent.reads_local, spent.bytes_local, spent.reads_origin) == (2, 30, 0)


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, -1), (5 * MIB, 1), (0, 5 * MIB + 1)])
def test_a_range_outside_of_its_object_is_refused(lake: Lake, client: Client, offset: int, length: int) -> None:
    ref = lake.add("large", 5 * MIB)
    client.read(whole(ref))
    with pytest.raises(CacheRangeError):
        client.read_ranges([ref], [0, 0], [0, offset], [1, length])


def test_an_object_is_whole_when_each_of_its_blocks_was_checked(lake: Lake, store: BlockStore, client: Client) -> None:
    ref = lake.add("large", 9 * MIB)
    client.read(whole(ref))
    other = BlockStore.open(store.directory, capacity_bytes=256 * MIB)  # type: ignore[arg-type] # a path is a path
    assert other.whole(ref) is None
    for block in range(3):
        assert other.whole(ref) is None
        assert other.find(ref, block * 4 * MIB, 1) is not None
    view = other.whole(ref)
    assert view is not None
    assert bytes(view) == lake.expected(whole(ref))
    store.evict([ref])
    assert other.whole(ref) is None  # of another process, as it were: its next `find` looks at what is left


def test_a_mapped_file_that_is_cut_is_fetched_anew_and_kills_nobody(lake: Lake, cache_path: Path) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=64 * MIB))
    ref = lake.add("large", 6 * MIB)
    client.read(whole(ref))
    arguments = ([ref], [0, 0], [100, 5 * MIB], [50, 50])
    expected = [bytes(view) for view in client.read_ranges(*arguments)]
    os.truncate(next(cache_path.glob("files/*/*")), 4096)
    assert [bytes(view) for view in client.read_ranges(*arguments)] == expected
    assert client.stats.snapshot().reads_origin == 2
    assert [bytes(view) for view in client.read_ranges(*arguments)] == expected
    assert client.stats.snapshot().reads_origin == 2


def test_what_is_announced_is_here_when_it_is_read(lake: Lake, client: Client) -> None:
    refs = [lake.add("large", 9 * MIB), lake.add("small", 70_000), lake.add("other", 5 * MIB)]
    ranges = (refs, [0, 1, 2, 0], [5 * MIB, 10, 0, 5 * MIB + 9], [100, 100, 0, 100])
    assert client.will_need(*ranges).result(60) == 4 * MIB + 70_000  # one block, and what is small whole
    assert client.will_need(*ranges).result(60) == 0
    fetched = client.stats.snapshot()
    assert len(client.read_ranges(*ranges)) == 4
    assert (client.stats.snapshot() - fetched).reads_origin == 0


def test_no_more_is_fetched_ahead_than_asked_for_and_the_first_first(lake: Lake, client: Client) -> None:
    refs = [lake.add(f"large{n}", 4 * MIB) for n in range(4)]
    numbers, zeros, ones = [2, 0, 3, 1], [0] * 4, [1] * 4
    assert client.will_need(refs, numbers, zeros, ones, most_bytes=9 * MIB).result(60) == 8 * MIB
    assert client.store is not None
    assert [client.store.missing_blocks(ref, [0]) for ref in refs] == [[], [0], [], [0]]
    assert client.will_need(refs, numbers, zeros, ones, most_bytes=1).result(60) == 4 * MIB
    assert client.store.missing_blocks(refs[3], [0]) == []


def test_a_failing_source_is_told_by_the_future_and_by_the_read(lake: Lake, client: Client) -> None:
    ref = lake.add("large", 4 * MIB)
    gone = replace(ref, key=f"{ref.key}-gone")
    with pytest.raises(SourceError):
        client.will_need([gone], [0], [0], [1]).result(60)
    with pytest.raises(SourceError):
        client.read_ranges([gone], [0], [0], [1])
    assert client.will_need([ref], [0], [0], [1]).result(60) == 4 * MIB


@pytest.mark.parametrize("before_fork", [True, False])
def test_a_block_is_checked_once_in_a_family_of_forks(
    lake: Lake, store: BlockStore, monkeypatch: pytest.MonkeyPatch, before_fork: bool
) -> None:
    """The parent checks, then a child reads; or a child checks, then the parent reads."""
    refs = [lake.add(f"large{n}", 6 * MIB) for n in range(2)]
    Client(lake.origins, store).read_many([whole(ref) for ref in refs])
    family = BlockStore.open(store.directory, capacity_bytes=256 * MIB)  # type: ignore[arg-type]

    def read_all() -> bool:
        return all(bytes(family.find(ref, 0, ref.size) or b"") == lake.expected(whole(ref)) for ref in refs)

    def refuse(*_: object) -> bool:
        raise AssertionError("checked twice")

    first, second = (read_all, None) if before_fork else (None, read_all)
    assert first is None or first()
    child = os.fork()
    if child == 0:
        if before_fork:
            monkeypatch.setattr(BlockFile, "check_block", refuse)
        ok = False
        try:
            ok = read_all()
        finally:
            os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    monkeypatch.setattr(BlockFile, "check_block", refuse)
    assert second is None or second()
    stranger = BlockStore.open(store.directory, capacity_bytes=256 * MIB)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="checked twice"):
        stranger.find(refs[0], 0, 1)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1 << 40), st.integers(0, 5)), max_size=60))
def test_a_mark_is_there_only_between_its_adding_and_its_discarding(
    steps: list[tuple[bool, int, int]],
) -> None:
    marks, model = FamilyMarks(), set()
    for adds, unit, block in steps:
        if adds:
            marks.add(unit, block)
            model.add((unit, block))
        else:
            marks.discard(unit, block)
            model.discard((unit, block))
        assert marks.has(unit, block) is adds
        assert all((unit, block) in model for _, unit, block in steps if marks.has(unit, block))


def test_what_is_announced_and_read_at_once_is_fetched_once(lake: Lake, client: Client) -> None:
    refs = [lake.add(f"large{n}", 9 * MIB) for n in range(6)]
    rows = [(n, block * 4 * MIB, 100) for block in range(3) for n in range(6)]
    halves = [tuple(map(list, zip(*part, strict=True))) for part in (rows[:12], rows[6:])]
    futures = [client.will_need(refs, *half) for half in halves]  # the second one wants much of the first
    views = client.read_ranges(refs, *map(list, zip(*rows, strict=True)))
    assert [bytes(view) for view in views] == [lake.expected(Location(refs[n], start, size)) for n, start, size in rows]
    sizes = [future.result(60) for future in futures]
    assert sizes[0] == 6 * 8 * MIB
    assert client.stats.snapshot().bytes_origin == 6 * 9 * MIB


def test_announcements_beyond_the_room_wait_and_can_be_taken_back(
    lake: Lake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache_runtime.readahead.AHEAD_BYTES", 1)
    refs = [lake.add(f"large{n}", 8 * MIB) for n in range(5)]
    futures = [client.will_need(refs, [n], [0], [8 * MIB]) for n in range(5)]
    taken = [future.cancel() for future in futures]
    sizes = [future.result(60) for future, gone in zip(futures, taken, strict=True) if not gone]
    assert sizes == [8 * MIB] * len(sizes)
    assert client.stats.snapshot().bytes_origin == sum(sizes)
