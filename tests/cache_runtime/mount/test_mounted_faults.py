"""Disks, origins and processes that fail while programs read a mount."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.cache_runtime.mount.mounted import MIB, Mounted, can_mount, make_objects, until
from tests.cache_runtime.mount.readers import Readers
from tests.services.disks import mounted as mounted_disk

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse")

SOON_SECONDS = 40.0
"""Enough on a busy machine, and far below what follows."""
HANGS_SECONDS = 110.0
"""Less than the time-out of reads, 120 s."""
SIZES = {f"large{number}": 2 * MIB + number for number in range(16)} | {
    f"small{number}": 90_001 for number in range(30)
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_objects(tmp_path, SIZES)
    return tmp_path


def fill_up(disk: Path) -> Path:
    """Take all room of a disk, unless the cache is faster."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * 4096
    with ballast.open("ab") as file, suppress(OSError):
        os.posix_fallocate(file.fileno(), file.tell(), max(1, free - 64 * 1024))
    return ballast


def read_anew(mounted: Mounted, name: str) -> bytes:
    """Read a file of which the kernel keeps nothing."""
    with (mounted.path / name).open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()


def test_reads_are_right_while_the_caches_disk_is_full_and_it_is_filled_again_when_it_has_room(root: Path) -> None:
    with mounted_disk(root / "disk", "-t", "tmpfs", "-o", "size=64m", "tmpfs") as disk:
        settings = {"cache": str(disk / "cache"), "capacity": 1 << 30, "files": {"refill_seconds": 0.5}}
        with Mounted(root, **settings) as mounted, Readers(mounted, 2) as readers:
            readers.await_reads(20)
            ballast = fill_up(disk)
            deadline = time.monotonic() + SOON_SECONDS
            while mounted.reading()["cache_is_filled"] or os.statvfs(disk).f_bavail * 4096 > 4 * MIB:
                if mounted.reading()["cache_is_filled"]:
                    mounted.order("evict")  # so that there is something to fill
                assert time.monotonic() < deadline
                time.sleep(0.05)
                fill_up(disk)
            assert mounted.reading()["cache_off_reason"] == "No space left on device"
            readers.await_reads(50)
            assert not mounted.reading()["cache_is_filled"]
            ballast.unlink()
            until(lambda: bool(mounted.reading()["cache_is_filled"]), seconds=SOON_SECONDS)
            readers.await_reads(50)
            readers.stop()
            mounted.order("evict")
            for name in SIZES:
                assert read_anew(mounted, name) == mounted.expected(name)
            assert mounted.order("evict") > 0  # they were cached
            assert mounted.reading()["reads_failed"] == 0
        log = mounted.log.read_text()
        assert "cache turned off for this process" in log
        assert "No space left on device" in log
        assert "cache turned on again" in log


READ = "import sys; open(sys.argv[1], 'rb').read()"


def test_who_waits_for_an_origin_that_hangs_can_be_ended(root: Path) -> None:
    """With a handler, as Python has one of SIGINT, and without: only signals without one end a wait for pages."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    with Mounted(root) as mounted:
        mounted.order("trouble", {"delay": HANGS_SECONDS})
        readers = {
            subprocess.Popen(
                [sys.executable, "-c", READ, mounted.path / f"{kind}{number:d}"], stderr=subprocess.DEVNULL
            ): number
            for number in numbers
            for kind in ("small", "large")
        }
        try:
            until(lambda: mounted.reading()["waiting"] >= len(readers), seconds=SOON_SECONDS)
            began = time.monotonic()
            for reader, number in readers.items():
                reader.send_signal(number)
            for reader, number in readers.items():
                assert reader.wait(SOON_SECONDS) == -number
            assert time.monotonic() - began < SOON_SECONDS
            until(lambda: mounted.reading()["waiting"] == 0, seconds=SOON_SECONDS)
            assert mounted.reading()["interrupted"] >= len(readers)
        finally:
            for reader in readers:
                reader.kill()
                reader.wait(SOON_SECONDS)
        mounted.kill()  # its threads wait for the origin still


def test_a_server_that_is_killed_under_load_ends_all_reads_and_the_next_one_serves(root: Path) -> None:
    with Mounted(root) as mounted, Readers(mounted, 3) as readers:
        readers.await_reads(30)
        mounted.order("trouble", {"delay": HANGS_SECONDS})  # some wait, some do not
        mounted.order("evict")
        time.sleep(0.5)
        mounted.kill()
        assert readers.ends(SOON_SECONDS) <= {errno.ENOTCONN, errno.ECONNABORTED}  # and nobody hangs
    with Mounted(root) as mounted, Readers(mounted, 2) as readers:
        readers.await_reads(30)
        readers.stop()


def test_readers_that_are_killed_leave_nothing_behind(root: Path) -> None:
    with Mounted(root, capacity=40 * MIB) as mounted:
        pick = random.Random(3)
        with Readers(mounted, 4) as readers:
            for _ in range(12):
                readers.await_reads(2)
                mounted.order("evict", pick.choice(sorted(SIZES)))
                readers.kill_one(pick.randrange(4))
            readers.stop()
        until(lambda: mounted.reading()["open_handles"] == mounted.reading()["waiting"] == 0, seconds=SOON_SECONDS)
        until(lambda: mounted.reading()["passthrough_files"] == 0, seconds=SOON_SECONDS)
        assert mounted.reading()["reads_failed"] == 0
