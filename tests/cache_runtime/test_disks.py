from __future__ import annotations

import errno
import os
import pickle
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from cache_runtime import BlockStore, CacheDirectoryError, Client
from cache_runtime.store.diskplaces import rank_disks
from cache_runtime.store.disks import Disk, DiskSet, open_store
from cache_runtime.store.shares import Share
from tests.cache_runtime.lake import MIB, whole
from tests.cache_runtime.objects import CAPACITY, content, make_refs, put_all
from tests.services.disks import mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sources import ObjectRef
    from tests.cache_runtime.lake import Lake

REFS = make_refs(40, 60_000, name="s") + make_refs(4, 2 * MIB, name="l")


def disks_below(path: Path, count: int = 3) -> list[Disk]:
    return [Disk(path / f"disk{n}", CAPACITY) for n in range(count)]


@pytest.fixture
def disks(tmp_path: Path) -> DiskSet:
    return DiskSet(disks_below(tmp_path))


def fill(store: DiskSet) -> None:
    for ref in REFS:
        assert store.put(ref, 0, content(ref))


def found(store: DiskSet) -> list[ObjectRef]:
    refs = []
    for ref in REFS:
        view = store.find(ref, 0, ref.size)
        assert view is None or view == content(ref)
        if view is not None:
            refs.append(ref)
    return refs


def test_one_directory_is_a_block_store(tmp_path: Path) -> None:
    assert isinstance(open_store(disks_below(tmp_path, 1)), BlockStore)
    assert isinstance(open_store(disks_below(tmp_path, 2)), DiskSet)


def test_objects_are_spread_by_capacity_and_a_lost_disk_moves_only_its_own() -> None:
    weights = {"a": 1.0, "b": 1.0, "c": 2.0}
    orders = [rank_disks(weights, group) for group in range(4096)]
    firsts = [order[0] for order in orders]
    assert firsts.count("c") / 4096 == pytest.approx(0.5, abs=0.03)
    assert firsts.count("a") / 4096 == pytest.approx(0.25, abs=0.03)
    for group, order in enumerate(orders):
        assert rank_disks({"a": 1.0, "b": 1.0}, group) == tuple(name for name in order if name != "c")


def test_several_disks_do_what_one_does(disks: DiskSet, tmp_path: Path) -> None:
    fill(disks)
    assert found(disks) == REFS
    status = disks.status()
    assert (status.objects, status.capacity_bytes, status.off_reason) == (len(REFS), 3 * CAPACITY, None)
    assert all(disk.objects > 0 for disk in status.disks)
    assert disks.stats.fills == len(REFS)
    more = make_refs(30, 5000, name="m")
    assert disks.missing_ids([REFS[0].id, more[0].id]) == [more[0].id]
    assert disks.put_many([(ref, content(ref)) for ref in more]) == 30
    assert disks.missing_among([(ref, [0]) for ref in REFS + more]) == [[]] * (len(REFS) + 30)
    lent = disks.lend(REFS[-1], 100, 1000)
    assert lent is not None
    assert os.pread(lent.fd, lent.length, lent.offset) == content(REFS[-1])[100:1100]
    assert disks.pin(REFS[:5], "mine") == 5
    assert [(pin.label, pin.objects, pin.cached_objects) for pin in disks.pins()] == [("mine", 5, 5)]
    assert disks.scrub().checked_parts >= len(REFS) + 30
    assert disks.scrub(objects=REFS[5:8]).checked_parts == 3
    assert disks.unpin("mine") == 5
    disks.close()
    copy = pickle.loads(pickle.dumps(disks))
    assert found(copy) == REFS
    assert copy.evict(REFS) > 0
    assert copy.missing_ids([ref.id for ref in REFS + more]) == [ref.id for ref in REFS]
    assert DiskSet(disks_below(tmp_path)).status().objects == 30


def test_a_quota_is_one_for_all_disks(disks: DiskSet) -> None:
    share = Share("images", quota_bytes=12 * MIB)
    for ref in make_refs(120, 300_000, name="q"):
        disks.put(ref, 0, content(ref), share=share)
    row = next(row for row in disks.status().shares if row.share.name == "images")
    assert 4 * MIB < row.used_bytes <= 12 * MIB
    assert row.share.quota_bytes == 12 * MIB
    assert disks.budget_bytes(share) <= 12 * MIB < disks.budget_bytes()


def test_a_directory_that_cannot_be_opened_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "disk1").write_text("no directory")
    disks = DiskSet(disks_below(tmp_path))
    fill(disks)
    assert found(disks) == REFS
    assert disks.stats.store_failures == 1
    assert str(tmp_path / "disk1") in caplog.text
    lost = [disk for disk in disks.status().disks if disk.off_reason is not None]
    assert [disk.directory for disk in lost] == [str(tmp_path / "disk1")]
    for n in (0, 2):
        (tmp_path / f"none{n}").write_text("")
    with pytest.raises(CacheDirectoryError):
        DiskSet([Disk(tmp_path / f"none{n}", CAPACITY) for n in (0, 2)])


def test_a_full_disk_is_read_and_the_others_are_filled(lake: Lake, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=8m", "tmpfs") as small:
        disks = DiskSet([Disk(small / "cache", CAPACITY), Disk(tmp_path / "large", CAPACITY)])
        client = Client(lake.origins, cast("Any", disks))  # until it takes a NodeStore
        refs = [lake.add(f"a{n}", 500_000) for n in range(60)]
        for ref in refs * 2:
            assert client.read(whole(ref)) == lake.expected(whole(ref))
        assert [disk.off_reason for disk in disks.status().disks] == [os.strerror(errno.ENOSPC), None]
        assert disks.off_reason is None
        assert disks.status().disks[0].objects > 0
        assert len(lake.reads()) <= len(refs) + 1  # what met the full disk is fetched once more, all else once
        client.close()


@contextmanager
def loop_disk(path: Path) -> Iterator[Path]:
    """An ext4 on a loop device, whose blocks are cut away by truncating `<path>.img`: reads of them are EIO."""
    image = path.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(96 * MIB)
    made = subprocess.run(
        ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", image], capture_output=True, timeout=30, check=False
    )
    if made.returncode != 0:
        pytest.skip("no mkfs.ext4 here")
    with mounted(path, "-o", "loop", os.fspath(image)) as disk:
        yield disk


def test_a_disk_with_unreadable_blocks_is_taken_out_and_reads_go_on(lake: Lake, tmp_path: Path) -> None:
    with ExitStack() as stack:
        disk = stack.enter_context(loop_disk(tmp_path / "bad"))
        disks = DiskSet([Disk(disk / "cache", CAPACITY), Disk(tmp_path / "good", CAPACITY)])
        client = Client(lake.origins, cast("Any", disks))  # until it takes a NodeStore
        refs = [lake.add(f"a{n}", 400_000) for n in range(20)] + [lake.add(f"b{n}", 3 * MIB) for n in range(6)]
        for ref in refs:
            assert client.read(whole(ref)) == lake.expected(whole(ref))
        for path in disk.rglob("*"):
            if path.is_file() and path.suffix != ".map" and "index" not in path.name:
                fd = os.open(path, os.O_RDONLY)
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)
        disks.close()
        os.truncate(tmp_path / "bad.img", 4 * MIB)
        before = client.stats.snapshot()
        for ref in refs * 2:
            assert client.read(whole(ref)) == lake.expected(whole(ref))
        delta = client.stats.snapshot() - before
        assert delta.store_failures == 1
        assert 0 < delta.reads_origin < len(refs)  # of the bad disk, and once
        assert [disk.off_reason for disk in disks.status().disks] == [os.strerror(errno.EIO), None]
        os.truncate(tmp_path / "bad.img", 96 * MIB)


def test_a_disk_that_fails_under_several_ways_of_reading_is_a_miss(
    disks: DiskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(disks)
    disks.close()
    broken = disks.status().disks[1].directory
    its = {ref.id for ref in REFS if disks.store_of(ref.id).directory == broken}
    read: tuple[Any, ...] = (os.pread, os.preadv)

    def failing(number: int, fd: int, *arguments: object) -> object:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(broken):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read[number](fd, *arguments)

    monkeypatch.setattr("cache_runtime.store.reading._pread", lambda *arguments: failing(0, *arguments))
    monkeypatch.setattr("os.pread", lambda *arguments: failing(0, *arguments))
    monkeypatch.setattr("os.preadv", lambda *arguments: failing(1, *arguments))
    assert {ref.id for ref in REFS} - {ref.id for ref in found(disks)} == its
    assert set(disks.missing_ids([ref.id for ref in REFS])) == its
    fill(disks)  # into the next ones
    assert found(disks) == REFS
    assert disks.stats.store_failures == 1
    assert all(store != broken for store in {disks.store_of(ref.id).directory for ref in REFS})
    put_all(disks.store_of(REFS[0].id), REFS[:1])
