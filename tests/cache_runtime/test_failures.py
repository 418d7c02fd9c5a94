from __future__ import annotations

import errno
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import lmdb
import pytest

from cache_runtime import BlockStore, CacheDirectoryError, Client, plan_load, run_load
from tests.cache_runtime.lake import MIB, whole
from tests.services.disks import mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cache_runtime.lake import Lake

CAPACITY = 64 * MIB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MiB, less than the cache is told it may use."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=12m", "tmpfs") as disk:
        yield disk


@pytest.mark.parametrize("size", [600_000, 5 * MIB])
def test_a_full_disk_turns_filling_off_and_reads_go_on(
    lake: Lake, small_disk: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    store = BlockStore.open(small_disk / "cache", capacity_bytes=CAPACITY)
    client = Client(lake.origins, store)
    refs = [lake.add(f"a{n}", size) for n in range(30 * MIB // size)]
    for ref in refs * 2:
        assert client.read(whole(ref)) == lake.expected(whole(ref))
    stats = client.stats.snapshot()
    assert stats.store_failures == 1
    assert stats.reads_local > 0  # what was cached before is still read
    assert store.status().off_reason == os.strerror(errno.ENOSPC)
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert "No space left" in caplog.text


@pytest.mark.parametrize("size", [600_000, 5 * MIB])
def test_a_disk_that_was_full_is_filled_again_when_it_has_room(lake: Lake, tmp_path: Path, size: int) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=48m", "tmpfs") as disk:
        store = BlockStore.open(disk / "cache", capacity_bytes=CAPACITY)
        client = Client(lake.origins, store)
        with (disk / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, os.statvfs(disk).f_bavail * 4096 - 8 * MIB)
        refs = [lake.add(f"a{n}", size) for n in range(20 * MIB // size)]
        for _ in range(2):
            assert [client.read(whole(ref)) for ref in refs] == [lake.expected(whole(ref)) for ref in refs]
        assert store.off_reason == os.strerror(errno.ENOSPC)
        assert not store.fill_again()  # it is full still
        os.unlink(disk / "ballast")
        assert store.fill_again()
        assert not store.fill_again()
        assert [client.read(whole(ref)) for ref in refs] == [lake.expected(whole(ref)) for ref in refs]
        before = len(lake.reads())
        assert [client.read(whole(ref)) for ref in refs] == [lake.expected(whole(ref)) for ref in refs]
        assert len(lake.reads()) == before
        assert store.status().off_reason is None
        store.fail(OSError(errno.EIO, os.strerror(errno.EIO)))
        assert not store.fill_again()  # a disk that fails is another thing


def test_a_load_onto_a_full_disk_is_a_failure(lake: Lake, small_disk: Path) -> None:
    client = Client(lake.origins, BlockStore.open(small_disk / "cache", capacity_bytes=CAPACITY))
    refs = [lake.add(f"a{n}", 2 * MIB) for n in range(15)]
    report = run_load(client, plan_load(client, [whole(ref) for ref in refs]), concurrency=4)
    assert not report.verified
    assert 5 <= report.failed_objects <= 15
    assert all("No space left" in failure.reason for failure in report.failures)
    assert len(lake.reads()) < 15 + 5  # it stops, it does not go on to read the origin


def test_a_write_of_the_index_that_a_full_disk_cut_short_leaves_the_cache_readable(
    lake: Lake, small_disk: Path
) -> None:
    store = BlockStore.open(small_disk / "cache", capacity_bytes=CAPACITY)
    client = Client(lake.origins, store)
    ref = lake.add("a", 1000)
    client.read(whole(ref))
    with (small_disk / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, os.statvfs(small_disk).f_bavail * 4096 - 8192)
    store.fail(lmdb.Error("mdb_txn_commit: Input/output error"))  # what LMDB makes of a short write
    assert store.off_reason == os.strerror(errno.ENOSPC)
    assert store.find(ref, 0, 1000) is not None


def test_a_full_disk_at_the_start_is_an_error_of_the_directory(small_disk: Path) -> None:
    with (small_disk / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 12 * MIB - 8192)
    with pytest.raises(CacheDirectoryError, match="No space left"):
        BlockStore.open(small_disk / "cache", capacity_bytes=CAPACITY)


def test_a_read_only_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=12m,ro", "tmpfs") as path:
        with pytest.raises(CacheDirectoryError, match="Read-only file system") as caught:
            BlockStore.open(path / "cache", capacity_bytes=CAPACITY)
        assert str(path) in str(caught.value)


def test_a_disk_that_becomes_read_only_turns_filling_off(lake: Lake, small_disk: Path) -> None:
    client = Client(lake.origins, BlockStore.open(small_disk / "cache", capacity_bytes=CAPACITY))
    before, after = lake.add("before", 2 * MIB), lake.add("after", 2 * MIB)
    client.read(whole(before))
    made = subprocess.run(["mount", "-o", "remount,ro", small_disk], capture_output=True, timeout=20, check=False)
    if made.returncode != 0:  # files are open for writing: take the directory away instead
        shutil.rmtree(small_disk / "cache")
    for ref in (before, after):
        assert client.read(whole(ref)) == lake.expected(whole(ref))


def test_a_directory_removed_under_a_client_is_survived(lake: Lake, client: Client, cache_path: Path) -> None:
    refs = [lake.add("small", 5000), lake.add("large", 5 * MIB)]
    client.read_many([whole(ref) for ref in refs])
    shutil.rmtree(cache_path)
    more = [lake.add("small2", 5000), lake.add("large2", 5 * MIB)]
    for ref in refs + more:
        assert client.read(whole(ref)) == lake.expected(whole(ref))
