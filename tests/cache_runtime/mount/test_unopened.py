"""Files that the kernel opens by itself: what is read is the same, and nobody is asked twice."""

from __future__ import annotations

import errno
import mmap
import os
import random
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cache_runtime.mount.capabilities import keeps_unopened_files
from cache_runtime.mount.handles import Handle, Unopened
from cache_runtime.mount.operations import Opening
from cache_runtime.mount.view import FileAt
from sources import Location, ObjectRef, StoreId, Version
from tests.cache_runtime.mount.mounted import MIB, Mounted, can_mount, make_objects, until
from tests.cache_runtime.mount.views import MemoryView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SMALL = {"empty": 0, "one": 1, "page": 4096, "some": 70_001, "edge": MIB}
WALK = {f"walk/{number:03}": 3_000 + number for number in range(60)}
SIZES = SMALL | {"odd": MIB + 1, "large": 9 * MIB + 17} | WALK
needs_mounts = pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_objects(tmp_path, SIZES)
    return tmp_path


@pytest.fixture
def mounted(root: Path) -> Iterator[Mounted]:
    with Mounted(root, capacity=64 * MIB, mount={"small_files": True}) as found:
        yield found


def requests(mounted: Mounted, name: str) -> int:
    operations: dict[str, dict[str, int]] = mounted.order("status")["operations"]
    return operations.get(name, {"requests": 0})["requests"]


def error_of(act: Callable[[], object]) -> int | None:
    try:
        act()
    except OSError as error:
        return error.errno
    return None


@needs_mounts
def test_a_second_pass_asks_the_server_nothing(mounted: Mounted) -> None:
    for name in SIZES:
        assert mounted.read(name) == mounted.expected(name)
    status = mounted.order("status")
    assert status["zero_message_opens"]
    assert not status["passthrough"]
    before = {name: requests(mounted, name) for name in ("open", "release", "read", "flush")}
    assert before["open"] <= 1
    assert before["release"] == 0
    for name in SIZES:
        assert mounted.read(name) == mounted.expected(name)
    assert requests(mounted, "open") == before["open"]
    assert requests(mounted, "flush") == before["flush"] <= 1
    assert requests(mounted, "read") <= before["read"] + 2  # the kernel may have had to drop a page


@needs_mounts
def test_any_reads_are_those_of_the_disk_while_the_cache_evicts(mounted: Mounted) -> None:
    def read(seed: int) -> None:
        draw = random.Random(seed)
        for turn in range(120):
            name = draw.choice(sorted(SIZES))
            here, there = os.open(mounted.path / name, os.O_RDONLY), os.open(mounted.objects / name, os.O_RDONLY)
            try:
                for _ in range(3):
                    length, offset = draw.choice([1, 4097, 200_000]), draw.randrange(SIZES[name] + 5000)
                    assert os.pread(here, length, offset) == os.pread(there, length, offset), (name, offset)
                if turn % 5 == 0:
                    os.posix_fadvise(here, 0, 0, os.POSIX_FADV_DONTNEED)
                if SIZES[name]:
                    with mmap.mmap(here, 0, prot=mmap.PROT_READ) as pages:
                        assert pages[-100:] == mounted.expected(name)[-100:]
            finally:
                os.close(here)
                os.close(there)

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(read, seed) for seed in range(4)]
        for _ in range(4):
            mounted.order("evict")
        for job in jobs:
            job.result(100)
    assert requests(mounted, "release") == 0
    assert mounted.reading()["reads_failed"] == 0


@needs_mounts
def test_nothing_can_be_written(mounted: Mounted) -> None:
    mounted.read("one")  # the kernel has learned that no OPEN is answered
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
        assert error_of(lambda flags=flags: os.open(mounted.path / "page", flags)) == errno.EROFS  # type: ignore[misc]
    assert error_of(lambda: os.open(mounted.path / "walk", os.O_WRONLY)) == errno.EISDIR
    subprocess.run(["mount", "-o", "remount,rw", mounted.path], check=False, capture_output=True, timeout=20)
    with pytest.raises(OSError, match="Read-only"), (mounted.path / "page").open("r+b", buffering=0) as file:
        file.write(b"x")
    assert error_of(lambda: os.truncate(mounted.path / "page", 1)) == errno.EROFS
    assert mounted.read("page") == mounted.expected("page")


@needs_mounts
def test_a_source_that_changed_is_an_error_where_its_bytes_are_not_known(mounted: Mounted) -> None:
    known = mounted.read("some")
    for name in ("some", "edge"):
        (mounted.objects / name).write_bytes(bytes(SIZES[name]))
    mounted.order("evict")
    assert mounted.read("some") == known  # the kernel's pages are those of the commit
    assert error_of(lambda: mounted.read("edge")) == errno.EIO
    descriptor = os.open(mounted.path / "some", os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    assert error_of(lambda: os.pread(descriptor, 100, 0)) == errno.EIO
    os.close(descriptor)
    assert "the source changed since the commit" in mounted.log.read_text()


@needs_mounts
def test_sqlite_reads_a_database(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    with sqlite3.connect(tmp_path / "objects/base") as base:
        base.execute(
            "create table t as with recursive n(i) as"
            " (select 1 union all select i + 1 from n where i < 5000) select * from n"
        )
    base.close()
    with Mounted(tmp_path, mount={"small_files": True}) as mounted:
        reader = sqlite3.connect(f"file:{mounted.path}/base?mode=ro&immutable=1", uri=True)
        assert reader.execute("select sum(i) from t").fetchone() == (5000 * 5001 // 2,)
        reader.close()


@needs_mounts
def test_where_no_file_is_large_it_is_the_default_and_with_one_it_is_not(tmp_path: Path) -> None:
    make_objects(tmp_path, SMALL)
    sound = keeps_unopened_files()
    with Mounted(tmp_path) as mounted:
        until(lambda: mounted.order("status")["zero_message_opens"] == sound)
        for name in [*SMALL, *SMALL]:
            assert mounted.read(name) == mounted.expected(name)
        assert not sound or requests(mounted, "open") == 1
    make_objects(tmp_path, {"large": 2 * MIB})
    with Mounted(tmp_path) as mounted:
        for name in [*SMALL, "large"]:
            assert mounted.read(name) == mounted.expected(name)
        assert mounted.order("status")["zero_message_opens"] == (sound and not mounted.order("status")["passthrough"])
    with Mounted(tmp_path, mount={"passthrough": False, "follows": True}) as mounted:
        mounted.read("one")
        mounted.read("one")
        assert requests(mounted, "open") == 2


def opening(node: int) -> Opening:
    ref = ObjectRef(StoreId("file://"), "key", Version("v"), 10)
    return Opening(node, node, 0, FileAt("key", Location(ref, 0, 10), None), MemoryView({}), os.O_RDONLY, 0)


def test_what_was_read_last_is_remembered() -> None:
    unopened = Unopened(most=2)
    first = unopened.add(Handle(opening(1)))
    assert unopened.add(Handle(opening(1))) is first
    unopened.add(Handle(opening(2)))
    assert unopened.get(1) is first
    unopened.add(Handle(opening(3)))
    assert (1 in unopened, 2 in unopened, 3 in unopened, len(unopened)) == (True, False, True, 2)


@pytest.mark.parametrize(
    ("release", "sound"),
    [
        ("6.18.44-fc", True),
        ("6.19.0", True),
        ("7.1", True),
        ("6.18.2", False),
        ("6.1.0-31-amd64", False),
        ("odd", False),
    ],
)
def test_kernels_that_may_wait_for_themselves_are_not_trusted(release: str, *, sound: bool) -> None:
    assert keeps_unopened_files(release) is sound
