"""What happens to a mount: moved directories, killed processes, and who is in it meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache_runtime.mount.mountinfo import mount_at, mounts
from ds.mounting.records import Records, is_running
from tests.ds.cached_shop import TOKEN
from tests.services.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ds.mounting.records import Record
    from tests.ds.cached_shop import CachedShop

SECONDS = 60.0


def wait_until(true: Callable[[], bool], what: str) -> None:
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < SECONDS, f"waited for: {what}"
        time.sleep(0.05)


def only_record() -> Record:
    (record,) = Records(Path(os.environ["FOREBAY_HOME"])).all()
    return record


def is_mounted(point: Path) -> bool:
    seen = mount_at(os.fspath(point))
    return seen is not None and seen.kind == "fuse.forebay"


def has_restarted(times: int) -> bool:
    return only_record().restarts == times


def reads(point: Path, shop: CachedShop) -> bool:
    try:
        return (point / "small/03.bin").read_bytes() == (shop.directory / "raw/small/03.bin").read_bytes()
    except OSError:
        return False


@pytest.fixture
def moved(shop: CachedShop, tmp_path: Path) -> Iterator[Path]:
    """A mount whose mount point's parent was renamed since; where it is now."""
    before, now = tmp_path / "before" / "mnt", tmp_path / "now" / "mnt"
    before.mkdir(parents=True)
    shop.ok("mount", "pets@main", os.fspath(before), "--background")
    before.parent.rename(now.parent)
    yield now
    subprocess.run(["umount", "-l", now], check=False, capture_output=True, timeout=20)


def test_a_mount_goes_where_its_directory_is_moved_and_ends_there(shop: CachedShop, moved: Path) -> None:
    assert reads(moved, shop)
    everywhere = shop.ds("mounts").out  # other tests' mounts too, and what has become of them
    assert f"{moved}" in everywhere
    assert f"{moved.parents[1] / 'before'}" not in everywhere
    processes = only_record().supervisor, only_record().server
    assert "forebay_mount_files" in shop.ok("mounts", os.fspath(moved), "--metrics").out
    shop.ok("umount", os.fspath(moved))
    assert not is_mounted(moved)
    wait_until(lambda: not any(map(is_running, processes)), "the end of the processes")
    assert Records(Path(os.environ["FOREBAY_HOME"])).all() == []


def test_a_moved_mount_is_taken_away_by_a_signal(shop: CachedShop, moved: Path) -> None:
    supervisor = only_record().supervisor
    os.kill(supervisor, signal.SIGTERM)
    wait_until(lambda: not is_running(supervisor), "the end of the supervisor")
    assert not is_mounted(moved)


def test_a_moved_mount_whose_server_dies_comes_back_where_it_is(shop: CachedShop, moved: Path) -> None:
    os.kill(only_record().server, signal.SIGKILL)
    wait_until(lambda: reads(moved, shop), "the next server")
    records = Records(Path(os.environ["FOREBAY_HOME"]))
    wait_until(lambda: [each.plan.mount_point for each in records.all()] == [os.fspath(moved)], "its record")
    shop.ok("umount", os.fspath(moved))


def test_a_moved_mount_that_is_left_is_said_to_be_stale_and_repaired(shop: CachedShop, moved: Path) -> None:
    record = only_record()
    for process in (record.supervisor, record.server):
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: not is_running(record.server), "the server's end")
    listed = shop.ds("mounts")
    assert (listed.code, f"{moved} is stale" in listed.out) == (1, True)
    refused = shop.ds("mount", "pets@main", os.fspath(moved), "--background")
    assert (refused.code, "--repair" in refused.err) == (2, True)
    shop.ok("mount", "pets@main", os.fspath(moved), "--background", "--repair")
    assert reads(moved, shop)
    shop.ok("umount", os.fspath(moved))
    assert sum(mount.path == os.fspath(moved) for mount in mounts()) == 0


LOAD = """
import os, pathlib, sys, time
point, source = map(pathlib.Path, sys.argv[1:])
known = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
right = failed = 0
while not (point.parent / "enough").exists():
    for name, data in known.items():
        try:
            found = (point / name).read_bytes()
        except OSError:
            failed += 1
            time.sleep(0.01)
        else:
            assert found == data, name
            right += 1
print(right, failed)
"""


def test_a_server_killed_again_and_again_under_load_comes_back_and_no_byte_is_wrong(
    shop: CachedShop, point: Path
) -> None:
    shop.ok("mount", "pets@main", os.fspath(point), "--background")
    words = [sys.executable, "-c", LOAD, os.fspath(point), os.fspath(shop.directory / "raw")]
    readers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for death in range(1, 3):
            wait_until(lambda: reads(point, shop), "files")
            os.kill(only_record().server, signal.SIGKILL)
            wait_until(partial(has_restarted, death), "the next server")
        wait_until(lambda: reads(point, shop), "files")
        (point.parent / "enough").touch()
        for reader in readers:
            told = reader.communicate(timeout=SECONDS)[0].split()
            assert reader.returncode == 0
            assert int(told[0]) > 0
    finally:
        for reader in readers:
            reader.kill()
            reader.wait(SECONDS)
    shop.ok("umount", os.fspath(point), "--lazy")


def test_a_worker_that_is_killed_while_a_mount_reads_from_it_costs_no_read(
    shop: CachedShop, point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.ports = {"w1": free_port()}
    monkeypatch.setenv("FOREBAY_WORKER_TOKEN", TOKEN)
    with shop.worker("w1") as worker:
        shop.apply("here")
        shop.ok("load")
        shop.ok("mount", "pets@main", os.fspath(point), "--background")
        source = shop.directory / "raw"
        expected = (source / "big.bin").read_bytes()
        with (point / "big.bin").open("rb", buffering=0) as file:
            source.rename(source.with_name("away"))  # so that it can come from the worker only
            assert os.pread(file.fileno(), 5000, 0) == expected[:5000]
            source.with_name("away").rename(source)
            worker.kill()
            assert os.pread(file.fileno(), len(expected), 0) == expected
        for path in sorted((source / "small").iterdir()):
            assert (point / "small" / path.name).read_bytes() == path.read_bytes()
        shop.ok("umount", os.fspath(point))
