from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.versioning.worktree.copies import Bench, simple
from versioning import UnreadableFileError
from versioning.worktree import local_changes


def test_what_did_not_change_is_not_read(tmp_path: Path) -> None:
    bench, _, _ = simple(tmp_path)
    bench.status()
    assert bench.status().hashed == 0
    bench.checkout(bench.copy.index().head.commit, force=True)
    assert bench.status().hashed == 0


def test_a_file_that_was_only_touched_is_read_once(tmp_path: Path) -> None:
    bench, _, _ = simple(tmp_path)
    bench.status()
    os.utime(bench.root / "top", ns=(1, 1))
    time.sleep(0.03)  # else it is read until its tick is over
    assert bench.status().hashed == 1
    assert bench.status().hashed == 0


@pytest.mark.parametrize("again", range(5))
def test_a_file_written_again_with_the_same_size_and_time_is_seen(tmp_path: Path, again: int) -> None:
    bench, first, second = simple(tmp_path)
    file = bench.root / "a/2"
    bench.checkout(first if again % 2 else second)
    before = file.stat()
    file.write_bytes(file.read_bytes()[::-1].swapcase())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert bench.status().modified == ["a/2"]


def test_a_file_written_right_after_it_was_added_is_seen(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for number in range(20):
        bench.write({"a": b"%04d" % number})
        bench.add_all()
        bench.write({"a": b"%04d" % (number + 1000)})
        assert bench.status().modified == ["a"]


def test_a_file_replaced_by_something_else_counts_as_deleted(tmp_path: Path) -> None:
    bench, _, _ = simple(tmp_path)
    (bench.root / "top").unlink()
    (bench.root / "top").symlink_to("a/1")
    (bench.root / "a/2").unlink()
    (bench.root / "a/2").mkdir()
    (bench.root / "a/2/x").write_bytes(b"")
    os.mkfifo(bench.root / "pipe")
    found = bench.status()
    assert found.deleted == ["top", "a/2"] or sorted(found.deleted) == ["a/2", "top"]
    assert found.untracked == ["a/2/x"]


def test_only_a_directory_is_looked_at_if_that_is_asked(tmp_path: Path) -> None:
    bench, _, _ = simple(tmp_path)
    bench.write({"top": b"x", "a/1": b"changed", "ab": b"", "a/new": b""})
    (bench.root / "a/2").unlink()
    found, _ = local_changes(bench.copy, bench.copy.index(), below="a")
    assert (found.modified, found.deleted, found.untracked) == (["a/1"], ["a/2"], ["a/new"])


def test_a_name_that_is_not_unicode_is_untracked(tmp_path: Path) -> None:
    bench, _, _ = simple(tmp_path)
    Path(os.fsdecode(os.fsencode(bench.root) + b"/a/\xff")).write_bytes(b"")
    assert [os.fsencode(path) for path in bench.status().untracked] == [b"a/\xff"]


def test_a_working_copy_that_nobody_may_write_can_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, _, _ = simple(tmp_path)
    os.utime(bench.root / "top", ns=(1, 1))

    def refused(path: object, *rest: object, **options: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("versioning.worktree.clock.FileClock.__init__", refused)
    monkeypatch.setattr("versioning.worktree.copies.locked_file", refused)
    assert not bench.status()


def test_a_directory_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, _, _ = simple(tmp_path)
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("/a/"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("versioning.worktree.scanning.os.scandir", refusing)
    with pytest.raises(UnreadableFileError, match="Permission denied"):
        bench.status()
