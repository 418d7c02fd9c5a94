"""What programs read from a mount: the server is a child process, and the kernel is the real one."""

from __future__ import annotations

import errno
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.cache_runtime.mount.mounted import MIB, Mounted, can_mount, make_objects, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse")

LARGE, PAGED, ODD = "large", "paged", "odd"
SIZES = {LARGE: 9 * MIB + 17, PAGED: 8 * MIB, ODD: MIB + 1, "small": 10_007, "edge": MIB, "empty": 0}
WALK = {f"walk/{number:03}": 3_000 + number for number in range(120)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_objects(tmp_path, SIZES | WALK)
    return tmp_path


@pytest.fixture
def mounted(root: Path) -> Iterator[Mounted]:
    with Mounted(root) as found:
        yield found


def passes(mounted: Mounted) -> bool:
    return bool(mounted.order("status")["passthrough"])


def error_of(path: Path) -> int | None:
    """Return what reading a file fails with."""
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno
    return None


def fill(mounted: Mounted, *names: str) -> None:
    for name in names or SIZES:
        assert mounted.read(name) == mounted.expected(name)


def test_files_have_their_bytes_cold_and_warm(mounted: Mounted) -> None:
    for _ in range(2):
        fill(mounted, *SIZES, *WALK)
    until(lambda: mounted.reading()["open_handles"] == 0)  # the kernel tells later that a file was closed
    reading = mounted.reading()
    assert reading["reads_failed"] == 0
    assert reading["walk_files"] > len(WALK) // 2
    if passes(mounted):
        assert reading["opens_passthrough"] == 3


def test_what_the_kernel_reads_past_us_ends_where_the_file_does(mounted: Mounted, tmp_path: Path) -> None:
    fill(mounted)
    for name in (LARGE, PAGED, ODD):
        expected, before = mounted.expected(name), mounted.reading()["opens_passthrough"]
        fd = os.open(mounted.path / name, os.O_RDONLY)
        copy = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            assert mounted.reading()["opens_passthrough"] == before + passes(mounted)
            size = os.fstat(fd).st_size
            assert os.pread(fd, 2 * size, 0) == expected
            assert os.pread(fd, 4096, size - 1) == expected[-1:]
            assert os.pread(fd, 4096, size) == os.pread(fd, 1, size + 100) == b""
            with mmap.mmap(fd, size, prot=mmap.PROT_READ) as mapped:
                assert mapped[:] == expected
            sent = 0
            while count := os.sendfile(copy, fd, sent, 1 << 20):
                sent += count
            assert sent == size
            assert (tmp_path / "copy").read_bytes() == expected
        finally:
            os.close(fd)
            os.close(copy)


def test_a_later_server_checks_what_is_cached_and_reads_it_past_itself(root: Path) -> None:
    with Mounted(root) as mounted:
        fill(mounted)
    with Mounted(root) as mounted:
        fill(mounted)
        assert mounted.order("status")["reads"] == 0
        if passes(mounted):
            assert mounted.reading()["opens_passthrough"] == 3


def test_what_becomes_cached_under_open_handles_is_read_past_us_by_new_ones(mounted: Mounted) -> None:
    path, expected = mounted.path / LARGE, mounted.expected(LARGE)
    with path.open("rb", buffering=0) as old:
        assert old.read(100) == expected[:100]
        with mmap.mmap(old.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            for start in range(0, len(expected), MIB):
                assert os.pread(old.fileno(), 4096, start) == expected[start : start + 4096]
            if passes(mounted):
                until(lambda: mounted.reading()["switches"] == 1)
                until(lambda: path.read_bytes() == expected and mounted.reading()["opens_passthrough"] > 0)
            with path.open("rb") as new:
                assert new.read() == expected
                assert os.fstat(new.fileno()).st_ino == os.fstat(old.fileno()).st_ino
                assert os.pread(old.fileno(), len(expected), 0) == expected
                assert mapped[:] == expected
    until(lambda: mounted.reading()["open_handles"] == 0)
    fill(mounted, LARGE)


def test_what_is_evicted_under_open_handles_keeps_its_bytes_until_they_are_closed(mounted: Mounted) -> None:
    fill(mounted)
    expected = mounted.expected(LARGE)
    with (mounted.path / LARGE).open("rb") as file, (mounted.path / LARGE).open("rb") as other:
        assert mounted.order("evict", LARGE) > 0
        assert file.read() == expected
        with (mounted.path / LARGE).open("rb") as late:
            assert late.read() == other.read() == expected
        if passes(mounted):
            reading = mounted.reading()
            assert (reading["evicted_while_open_files"], reading["evicted_while_open_bytes"]) == (1, len(expected))
    until(lambda: mounted.reading()["passthrough_files"] == 0)
    assert mounted.reading()["evicted_while_open_files"] == 0
    before = mounted.order("status")["reads"]
    fill(mounted, LARGE)
    assert mounted.order("status")["reads"] >= before


def test_a_disk_that_fails_leaves_open_handles_and_new_ones_readable(mounted: Mounted) -> None:
    fill(mounted)
    expected = mounted.expected(LARGE)
    with (mounted.path / LARGE).open("rb") as old:
        assert old.read(10) == expected[:10]
        mounted.order("fail")
        if passes(mounted):
            until(lambda: mounted.reading()["switches"] == 1)
        before = mounted.reading()["opens_passthrough"]
        assert mounted.read(LARGE) == expected
        assert mounted.reading()["opens_passthrough"] == before
        assert old.read() == expected[10:]
        fill(mounted)
    assert mounted.order("status")["reads"] > 0


def test_an_origin_that_is_down_is_an_error_with_a_reason_and_then_it_is_not(mounted: Mounted) -> None:
    mounted.order("trouble", {"broken": True})
    for name in ("small", LARGE):
        assert error_of(mounted.path / name) == errno.EIO
    log = mounted.log.read_text()
    assert f"path={LARGE}" in log
    assert "broken by the test" in log
    assert mounted.reading()["reads_failed"] >= 2
    mounted.order("trouble", {"broken": False})
    fill(mounted)


def test_a_source_that_changed_since_the_commit_is_an_error(mounted: Mounted) -> None:
    for name in ("small", LARGE):
        (mounted.objects / name).write_bytes(random.randbytes(SIZES[name]))
        assert error_of(mounted.path / name) == errno.EIO
        assert f"path={name} " in mounted.log.read_text()
    assert "changed since the commit" in mounted.log.read_text()


def test_a_reader_that_is_killed_ends_and_one_that_waits_too_long_gets_an_error(root: Path) -> None:
    with Mounted(root, files={"read_seconds": 4.0}) as mounted:
        mounted.order("trouble", {"delay": 9.0})
        reader = subprocess.Popen([sys.executable, "-c", f"open({str(mounted.path / LARGE)!r}, 'rb').read()"])
        until(lambda: mounted.reading()["waiting"] > 0)
        began = time.monotonic()
        reader.send_signal(signal.SIGKILL)
        assert reader.wait(10) == -signal.SIGKILL
        assert time.monotonic() - began < 3.5
        assert error_of(mounted.path / "small") == errno.EIO
        assert time.monotonic() - began < 12
        assert "no answer after 4 s" in mounted.log.read_text()
        mounted.order("trouble", {"delay": 0.0})
        until(lambda: mounted.reading()["waiting"] == 0)
        time.sleep(max(0.0, began + 6 - time.monotonic()))  # what was asked of the slow origin ends
        fill(mounted)


def test_a_dead_server_is_an_error_at_once(root: Path) -> None:
    with Mounted(root) as mounted:
        fill(mounted)
        with (mounted.path / "small").open("rb") as file:
            mounted.kill()
            assert error_of(mounted.path / ODD) == errno.ENOTCONN
            assert os.fstat(file.fileno()).st_size == SIZES["small"]


READER = """
import os, random, sys, time
objects, mounted, seconds, seed = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
pick, end, reads = random.Random(seed), time.monotonic() + seconds, 0
names = sorted(name for name in os.listdir(objects) if os.path.isfile(os.path.join(objects, name)))
known = {name: open(os.path.join(objects, name), "rb").read() for name in names}
while time.monotonic() < end:
    name = pick.choice(names)
    expected = known[name]
    with open(os.path.join(mounted, name), "rb", buffering=0) as file:
        assert os.fstat(file.fileno()).st_size == len(expected)
        for _ in range(pick.randrange(1, 30)):
            start, length = pick.randrange(len(expected) + 10), pick.choice([1, 100, 4096, 70_000, 2 << 20])
            got = os.pread(file.fileno(), length, start)
            assert got == expected[start:start + length], (name, start, length, len(got))
            reads += 1
print(reads)
"""
DEEP = bool(os.environ.get("FOREBAY_DEEP"))


def test_random_reads_of_several_processes_are_right_while_the_cache_evicts_and_ways_change(root: Path) -> None:
    make_objects(root, {f"more{number}": 5 * MIB + number for number in range(6)})
    with Mounted(root, capacity=40 * MIB) as mounted:
        words = [sys.executable, "-c", READER, str(mounted.objects), str(mounted.path), "60" if DEEP else "5"]
        readers = [
            subprocess.Popen([*words, str(seed)], stdout=subprocess.PIPE, text=True) for seed in range(4 if DEEP else 2)
        ]
        pick = random.Random(1)
        while any(reader.poll() is None for reader in readers):
            mounted.order("evict", pick.choice([LARGE, PAGED, "more1", "more2", "small"]))
            time.sleep(pick.random() / 2)
        assert [reader.returncode for reader in readers] == [0] * len(readers)
        assert all(int(reader.communicate()[0]) > 0 for reader in readers)
        until(lambda: mounted.reading()["open_handles"] == 0)
        reading = mounted.reading()
        assert reading["reads_failed"] == 0
        if passes(mounted):
            assert reading["opens_passthrough"] > 0
