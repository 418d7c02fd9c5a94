"""A mount that goes on to another version while programs are in it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from cache_runtime.mount.epochs import KEPT
from tests.cache_runtime.mount.shown import shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WAIT_SECONDS = 30.0


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def versions(root: Path) -> tuple[Path, Path]:
    old, new = root / "old", root / "new"
    for number, version in enumerate((old, new)):
        (version / "d" / "e").mkdir(parents=True)
        (version / "file").write_bytes(b"%d" % number * (number + 1))
        (version / "d" / "e" / "deep").write_bytes(b"deep %d" % number)
        (version / f"only-{version.name}").write_bytes(b"")
        (version / "d" / f"below-{version.name}").write_bytes(b"")
    return old, new


@pytest.mark.parametrize("old_kernel", [False, True])
def test_new_look_ups_see_the_new_version_and_open_files_keep_theirs(tmp_path: Path, *, old_kernel: bool) -> None:
    old, new = versions(tmp_path)
    with shown(old, tmp_path / "mnt", follows=True) as mount:
        if old_kernel:  # without one notice for all names
            mount.order("old-kernel")
        path = mount.path
        assert sorted(os.listdir(path)) == ["d", "file", "only-old"]
        assert not (path / "only-new").exists()  # the kernel remembers that too
        assert (path / "d" / "e" / "deep").read_bytes() == b"deep 0"
        inside = os.open(path / "d", os.O_RDONLY)
        with (path / "file").open("rb") as file:
            mount.order(f"follow {new}")
            until(lambda: (path / "file").stat().st_size == 2)
            assert file.read() == b"0"
        until((path / "only-new").exists)
        assert not (path / "only-old").exists()
        assert sorted(os.listdir(path)) == ["d", "file", "only-new"]
        assert (path / "file").read_bytes() == b"11"
        assert (path / "d" / "e" / "deep").read_bytes() == b"deep 1"
        assert sorted(os.listdir(path / "d")) == ["below-new", "e"]
        assert sorted(os.listdir(inside)) == ["below-old", "e"]
        assert os.stat("e/deep", dir_fd=inside).st_size == 6
        assert mount.status()["commit"] == str(new)
        for _ in range(KEPT // 2):
            mount.order(f"follow {old}")
            mount.order(f"follow {new}")
        until(lambda: mount.status()["epoch"] == 1 + 2 * (KEPT // 2))
        assert mount.status()["epochs"] == KEPT
        with pytest.raises(OSError, match="Stale"):
            os.stat("never looked up", dir_fd=inside)
        os.close(inside)
        assert (path / "file").read_bytes() == b"11"


def test_a_listing_that_began_goes_on_in_its_version(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for version in (old, new):
        version.mkdir()
        for number in range(3000):
            (version / f"{version.name}-{number:04d}").touch()
    with shown(old, tmp_path / "mnt", follows=True) as mount:
        with os.scandir(mount.path) as entries:
            names = [next(entries).name]
            mount.order(f"follow {new}")
            until(lambda: (mount.path / "new-0000").exists())
            names += [entry.name for entry in entries]
        assert names == [f"old-{number:04d}" for number in range(3000)]
        assert sorted(os.listdir(mount.path)) == [f"new-{number:04d}" for number in range(3000)]
