from __future__ import annotations

import errno
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cache_runtime.store.footers import SlabRecord
from cache_runtime.store.layout import RECORD_HEADER
from cache_runtime.store.scrubbing import ScrubReport, windows
from tests.cache_runtime.objects import ALL, LARGE, SMALL, flip, found, open_cache, put_all, unit_files

if TYPE_CHECKING:
    from pathlib import Path

    from cache_runtime import BlockStore


@pytest.fixture
def store(cache_path: Path) -> BlockStore:
    store = open_cache(cache_path)
    put_all(store)
    return store


def size_of_all() -> int:
    return sum(ref.size + RECORD_HEADER.size for ref in SMALL) + sum(ref.size for ref in LARGE)


def test_a_scrub_reads_all_and_finds_nothing_wrong_in_what_is_right(store: BlockStore) -> None:
    seen: list[ScrubReport] = []
    report = store.scrub(on_progress=seen.append)
    assert report.checked_bytes == size_of_all()
    assert report.checked_parts == len(SMALL) + 2 * len(LARGE)
    assert (report.bad_parts, report.bad_units, report.complete) == (0, 0, True)
    assert seen[-1].checked_bytes == report.checked_bytes


def test_a_scrub_finds_damage_that_memory_hides_and_the_next_read_fetches_anew(
    store: BlockStore, cache_path: Path
) -> None:
    assert all(found(store, ref) for ref in ALL)  # checked, and remembered as right
    for path in unit_files(cache_path):
        flip(path, 5000)
    report = store.scrub()
    assert report.bad_parts == store.stats.corrupt_blocks == len(unit_files(cache_path))
    bad = [ref for ref in ALL if ref.id in report.bad_objects]
    assert [ref for ref in ALL if not found(store, ref)] == bad
    assert {store.why_missing(ref).name for ref in bad} == {"CORRUPT"}
    put_all(store, bad)
    assert all(found(store, ref) for ref in ALL)
    assert store.scrub().bad_parts == 0


def test_only_some_objects_are_verified(store: BlockStore, cache_path: Path) -> None:
    for path in unit_files(cache_path):
        flip(path, 5000)
    report = store.scrub(objects=[SMALL[1], LARGE[0].id])
    assert report.bad_objects == (LARGE[0].id,)
    assert report.checked_bytes == SMALL[1].size + RECORD_HEADER.size + LARGE[0].size


def test_a_unit_that_is_missing_or_cannot_be_read_is_forgotten_whole(
    store: BlockStore, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, removed = (next(path for path in unit_files(cache_path) if ref.id.hex() in path.name) for ref in LARGE)
    removed.unlink()
    read = os.preadv

    def failing(fd: int, *arguments: object) -> int:
        if os.readlink(f"/proc/self/fd/{fd}") == str(broken):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(fd, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("os.preadv", failing)
    report = store.scrub()
    monkeypatch.undo()
    assert (report.bad_units, report.bad_parts) == (2, 0)
    assert [ref for ref in ALL if not found(store, ref)] == LARGE
    assert not broken.exists()
    put_all(store, LARGE)
    assert all(found(store, ref) for ref in ALL)


def test_a_scrub_keeps_its_pace_and_stops_when_told(store: BlockStore) -> None:
    begun = time.monotonic()
    report = store.scrub(objects=SMALL[:3], bytes_per_second=8 << 20)
    assert time.monotonic() - begun > (report.checked_bytes - (1 << 20)) / (8 << 20) - 0.1
    stop = threading.Event()
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    begun = time.monotonic()
    report = store.scrub(bytes_per_second=1 << 20, stop=stop)
    timer.join()
    assert time.monotonic() - begun < 5
    assert not report.complete
    assert report.checked_bytes < size_of_all()


def test_windows_join_neighbours_and_leave_none_out() -> None:
    records = [SlabRecord(bytes(16), header, 1000 - RECORD_HEADER.size) for header in range(0, 10_000, 1000)]
    for limit in (1, 1000, 2500, 100_000):
        joined = list(windows(records, limit=limit))
        assert [record for window in joined for record in window] == records
        assert all(len(window) <= max(1, limit // 1000) for window in joined)
    assert list(windows([])) == []
