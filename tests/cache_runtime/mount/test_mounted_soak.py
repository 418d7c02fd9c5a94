"""A mount under load for a while: what it holds does not grow. Minutes with FOREBAY_DEEP=1."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cache_runtime.mount.mounted import MIB, Mounted, can_mount, make_objects, until
from tests.cache_runtime.mount.readers import Readers

pytestmark = pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse")

DEEP = bool(os.environ.get("FOREBAY_DEEP"))
SECONDS = float(os.environ.get("FOREBAY_SOAK_SECONDS") or (300 if DEEP else 4))
SIZES = {f"large{number}": 5 * MIB + number for number in range(8)} | {f"small{number}": 9_001 for number in range(200)}
FETCHES = {"threads": 8, "ahead_threads": 2}
GROWTH_BYTES = 96 * MIB
"""What malloc may keep of the buffers of as many fetches at a time as a busy machine ever has on their way: 8 blocks of
4 MiB, 2 streams of 16 MiB, and as much again. At 2,500 opens a second a leak of 100 bytes is more in ten minutes."""


class Held(NamedTuple):
    """What a server holds."""

    descriptors: int
    threads: int
    rss_bytes: int
    handles: int
    waiting: int
    kernel_inodes: int


def held(mounted: Mounted) -> Held:
    lines = Path(f"/proc/{mounted.pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    reading = mounted.reading()
    return Held(
        len(os.listdir(f"/proc/{mounted.pid}/fd")),
        int(status["Threads"]),
        int(status["RssAnon"].split()[0]) << 10,
        reading["open_handles"],
        reading["waiting"],
        fuse_inodes(),
    )


def fuse_inodes() -> int:
    """Return how many inodes of all FUSE mounts of this machine the kernel holds; only printed, for others mount, too.

    The server remembers nothing of what was looked up, so FORGET has nothing to free.
    """
    rows = [line.split() for line in Path("/proc/slabinfo").read_text().splitlines()]
    return next((int(row[1]) for row in rows if row[0] == "fuse_inode"), 0)


@pytest.mark.timeout(SECONDS + 120)
def test_what_a_mount_holds_does_not_grow_under_load(tmp_path: Path) -> None:
    make_objects(tmp_path, SIZES)
    pick = random.Random(5)
    with Mounted(tmp_path, capacity=40 * MIB, files=FETCHES) as mounted, Readers(mounted, 3) as readers:
        end, rounds = time.monotonic() + SECONDS, 0
        until(lambda: mounted.reading()["reads_at_once"] > 100, seconds=60)
        early, most = held(mounted), held(mounted)
        while time.monotonic() < end:
            readers.await_reads(1)
            mounted.order("evict", pick.choice(sorted(SIZES)))
            if rounds % 20 == 0:
                readers.kill_one(pick.randrange(3))
            now = held(mounted)
            most = Held(*map(max, most, now))
            rounds += 1
            time.sleep(0.1)
            if rounds % 300 == 0:
                print(f"{time.monotonic() - end + SECONDS:.0f} s: {now}")
        readers.stop()
        until(lambda: mounted.reading()["open_handles"] == mounted.reading()["waiting"] == 0, seconds=60)
        until(lambda: mounted.reading()["passthrough_files"] == 0, seconds=60)
        late, reading = held(mounted), mounted.reading()
        operations = mounted.order("status")["operations"]
        print(f"early {early}\nmost  {most}\nlate  {late}")
        print({name: count for name, count in reading.items() if isinstance(count, int)}, operations)
        assert reading["reads_failed"] == 0
        assert operations["release"]["requests"] <= operations["open"]["requests"]  # one that was killed has no release
        assert late.threads <= early.threads + 40  # those of fetches go when they are idle for a while
        assert late.descriptors <= early.descriptors + 40  # files of the cache that were used last stay open
        assert most.descriptors < 200
        assert late.rss_bytes - early.rss_bytes < GROWTH_BYTES
