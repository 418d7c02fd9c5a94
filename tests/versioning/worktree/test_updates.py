from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sources.locking import locked_file
from tests.versioning.worktree.copies import Bench, simple
from versioning import (
    CorruptRepositoryError,
    InterruptedUpdateError,
    InvalidNameError,
    LocalChangesError,
    UnwritableFileError,
    WorkingCopyBusyError,
    WorkingCopyIndexError,
    add_files,
)
from versioning.worktree import WorkingCopy

ROOT = Path(__file__).parents[3]


def test_a_checkout_writes_and_deletes_what_differs_and_nothing_else(tmp_path: Path) -> None:
    bench, first, second = simple(tmp_path)
    untouched = (bench.root / "a/1").stat()

    report = bench.checkout(first)

    assert bench.files() == {"a/1": b"one", "a/2": b"two", "a/b/3": b"three", "top": b"top"}
    assert (report.written, report.removed) == (2, 1)
    assert (bench.root / "a/1").stat() == untouched
    assert bench.directories() == ["a", "a/b"]
    assert not bench.status()
    bench.checkout(second)
    assert bench.files() == {"a/1": b"one", "a/2": b"TWO!", "n/4": b"four", "top": b"top"}
    assert not bench.status()


def test_changed_files_are_never_overwritten_and_then_nothing_is(tmp_path: Path) -> None:
    bench, first, _ = simple(tmp_path)
    bench.write({"a/2": b"mine", "a/b/3": b"in the way", "n/4": b"mine, too"})
    before = bench.files()

    with pytest.raises(LocalChangesError) as caught:
        bench.checkout(first)

    assert caught.value.conflicts == {
        "a/2": "changed here",
        "a/b/3": "untracked and in the way",
        "n/4": "changed here",
    }
    assert bench.files() == before
    bench.checkout(first, force=True)
    assert bench.files() == {"a/1": b"one", "a/2": b"two", "a/b/3": b"three", "top": b"top"}


def test_changes_elsewhere_stay_through_a_checkout(tmp_path: Path) -> None:
    bench, first, _ = simple(tmp_path)
    bench.write({"top": b"mine", "new": b"new"})
    (bench.root / "a/1").unlink()

    bench.checkout(first)

    found = bench.status()
    assert (found.modified, found.deleted, found.untracked) == (["top"], ["a/1"], ["new"])


def test_force_brings_back_what_was_changed_and_deleted(tmp_path: Path) -> None:
    bench, _, second = simple(tmp_path)
    bench.write({"top": b"mine", "new": b"new"})
    (bench.root / "a/1").unlink()

    bench.checkout(second, force=True)

    assert bench.files() == {"a/1": b"one", "a/2": b"TWO!", "n/4": b"four", "top": b"top", "new": b"new"}
    assert bench.status().untracked == ["new"]


def test_a_file_gives_way_to_a_directory_and_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.version({"a": b"file", "b/c/d": b"deep"})
    second = bench.version({"a/b": b"below", "b": b"file"})
    bench.checkout(first)
    assert bench.files() == {"a": b"file", "b/c/d": b"deep"}
    bench.write({"b/c/mine": b"untracked"})

    with pytest.raises(LocalChangesError, match="b/c/mine is in the way"):
        bench.checkout(second)

    (bench.root / "b/c/mine").unlink()
    bench.checkout(second)
    assert bench.files() == {"a/b": b"below", "b": b"file"}


def test_no_link_leads_a_checkout_out_of_the_working_copy(tmp_path: Path) -> None:
    bench, first, _ = simple(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (bench.root / "a/b").symlink_to(outside)

    with pytest.raises(LocalChangesError, match="a/b is in the way"):
        bench.checkout(first)
    with pytest.raises(LocalChangesError):
        bench.checkout(first, force=True)

    assert list(outside.iterdir()) == []


def test_a_tracked_directory_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    bench, first, second = simple(tmp_path)
    outside = tmp_path / "outside"
    (bench.root / "n").rename(outside)
    (bench.root / "n").symlink_to(outside)

    assert bench.status().deleted == ["n/4"]
    bench.checkout(first)
    assert (outside / "4").read_bytes() == b"four"
    del second


def test_a_version_cannot_write_into_the_working_copys_own_directory(tmp_path: Path) -> None:
    bench, first, _ = simple(tmp_path)
    changes = add_files(bench.repository, [(".DS/local/lock", bench.root / "top")])
    hostile = bench.repository.commit_changes("evil", changes, message="", author="Eve", base=first)

    with pytest.raises(InvalidNameError, match="working copy's own"):
        bench.checkout(hostile)


def test_a_versions_own_configuration_is_checked_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.version({".ds/attributes": b"* merge=ours\n", "a": b"a"})
    bench.version({"a": b"a"})
    bench.checkout(first)
    assert bench.files() == {".ds/attributes": b"* merge=ours\n", "a": b"a"}


def test_damaged_bytes_are_not_written(tmp_path: Path) -> None:
    bench, first, _ = simple(tmp_path)
    for pack in (tmp_path / "repo/packs").rglob("*.tar"):
        pack.chmod(0o644)
        pack.write_bytes(pack.read_bytes().replace(b"three", b"thREE"))

    with pytest.raises(CorruptRepositoryError, match="a/b/3"):
        bench.checkout(first)
    assert "a/b/3" not in bench.files()


def test_a_name_that_the_disk_cannot_hold_is_named(tmp_path: Path) -> None:
    bench, first, _ = simple(tmp_path)
    changes = add_files(bench.repository, [("x" * 300, bench.root / "top")])
    long = bench.repository.commit_changes("long", changes, message="", author="Ada", base=first)

    with pytest.raises(UnwritableFileError, match="File name too long"):
        bench.checkout(long)


def test_names_that_differ_in_case_alone_are_refused_where_they_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, first, _ = simple(tmp_path)
    two = bench.version({"A/x": b"1", "a/X": b"2"})
    bench.checkout(first)
    monkeypatch.setattr("versioning.worktree.updating.is_case_blind", lambda root: True)
    with pytest.raises(UnwritableFileError, match="for their case"):
        bench.checkout(two)


def test_odd_names_come_through(tmp_path: Path) -> None:
    files = {"ü/é\U0001f600": b"1", "a b/c\td\n": b"2", "-r": b"3", "*?[x]": b"4", "\x01\uffff": b"5", "empty": b""}
    bench = Bench(tmp_path)
    made = bench.version(files)
    other = bench.version({"a": b""})
    bench.checkout(made)
    assert bench.files() == files
    assert not bench.status()
    bench.checkout(other)


def test_a_large_file_is_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("versioning.worktree.writing._PIECE_BYTES", 10)
    monkeypatch.setattr("versioning.worktree.writing.BATCH_BYTES", 12)
    files = {"a": b"a" * 35, "b": b"b" * 9, "c": b"c" * 9, "d": b"d" * 20, "e": b""}
    bench = Bench(tmp_path)
    first = bench.version(files)
    bench.version({"z": b"z"})
    bench.checkout(first)
    assert bench.files() == files


def test_sparse_patterns_choose_what_is_held(tmp_path: Path) -> None:
    bench, first, second = simple(tmp_path)
    bench.checkout(second, sparse=("a/**",))
    assert set(bench.files()) == {"a/1", "a/2"}
    assert not bench.status()
    bench.checkout(first, sparse=("a/**",))
    assert set(bench.files()) == {"a/1", "a/2", "a/b/3"}
    bench.write({"a/1": b"mine"})
    with pytest.raises(LocalChangesError, match="a/1: changed here"):
        bench.checkout(first, sparse=("/top",))
    bench.checkout(first, sparse=("/top", "/a/1"))
    assert bench.files() == {"a/1": b"mine", "top": b"top"}


def test_a_commit_in_a_sparse_copy_changes_only_what_it_holds(tmp_path: Path) -> None:
    bench, first, _ = simple(tmp_path)
    bench.checkout(first, branch="part", sparse=("/top",))
    bench.write({"top": b"new top"})
    bench.add_all()
    staged = bench.copy.stage.read()
    made = bench.repository.commit_changes("part", staged.changes, message="", author="Ada", base=staged.base)
    assert bench.repository.tree_of(made).rows == 4


def test_what_is_staged_stays_staged_unless_the_version_has_the_path_otherwise(tmp_path: Path) -> None:
    bench, first, second = simple(tmp_path)
    bench.write({"top": b"staged"})
    bench.add_all()
    bench.checkout(first)
    staged = bench.copy.stage.read()
    assert staged.changes.paths().to_pylist() == ["top"]
    assert staged.base == first
    bench.write({"a/2": b"staged, too"})
    bench.add_all()
    with pytest.raises(LocalChangesError, match="a/2: staged here"):
        bench.checkout(second)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.versioning.worktree.copies import Bench
import versioning.worktree.writing as writing
count, rename = int(sys.argv[3]), os.rename

def killing(*arguments, **options):
    global count
    if "dst_dir_fd" in options:
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        count -= 1
    return rename(*arguments, **options)

writing.os.rename = killing
Bench(Path(sys.argv[1])).checkout(sys.argv[2])
"""


@pytest.mark.parametrize("then", ["finish", "back", "elsewhere"])
def test_a_checkout_that_was_killed_is_finished_by_the_next(tmp_path: Path, then: str) -> None:
    bench = Bench(tmp_path)
    first = bench.version({f"{n % 3}/{n}": b"old %d" % n for n in range(12)} | {"only/first": b"1"})
    other = bench.version({f"{n % 3}/{n}": b"other %d" % (n % 5) for n in range(9)})
    second = bench.version({f"{n % 3}/{n}": b"new %d" % n for n in range(12)} | {"only/second": b"2"})
    wanted = {"finish": first, "back": second, "elsewhere": other}[then]
    clean = Bench(tmp_path, "clean")
    clean.checkout(wanted)

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), first, "5"], cwd=ROOT, check=False, timeout=60
    )

    assert killed.returncode == -signal.SIGKILL
    assert bench.status().modified
    with pytest.raises(InterruptedUpdateError, match=f"ds checkout {first[:8]}"):
        bench.add_all()
    bench.checkout(wanted)
    assert bench.files() == clean.files()
    assert not bench.status()
    assert list((bench.copy.local / "tmp").iterdir()) == []


def test_work_done_after_a_killed_checkout_is_not_lost(tmp_path: Path) -> None:
    bench, first, _ = simple(tmp_path)
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), first, "1"], cwd=ROOT, check=False, timeout=60)
    bench.write({"a/2": b"mine"})
    with pytest.raises(LocalChangesError, match="a/2"):
        bench.checkout(first)
    assert bench.files()["a/2"] == b"mine"


def test_a_second_command_waits_for_the_first_and_then_gives_up(tmp_path: Path) -> None:
    bench, first, _ = simple(tmp_path)
    with locked_file(bench.copy.local / "lock", seconds=1):
        patient = WorkingCopy(bench.root, lock_seconds=0.05)
        start = time.monotonic()
        with pytest.raises(WorkingCopyBusyError, match="another process holds its lock"), patient.locked():
            pass
        assert 0.04 < time.monotonic() - start < 5
        assert not bench.status()  # looking needs no lock
    bench.checkout(first)


def test_a_read_only_directory_is_named_and_the_rest_goes_on_later(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    bench, first, _ = simple(tmp_path)
    (bench.root / "a").chmod(0o555)
    try:
        with pytest.raises(UnwritableFileError, match="Permission denied"):
            bench.checkout(first)
    finally:
        (bench.root / "a").chmod(0o755)
    bench.checkout(first)
    assert not bench.status()


def test_a_damaged_index_is_refused_and_can_be_made_anew(tmp_path: Path) -> None:
    bench, _, second = simple(tmp_path)
    index = bench.copy.local / "index.arrow"
    for damaged in (b"", b"ARROW1", index.read_bytes()[:-200], b"x" * 5000):
        index.write_bytes(damaged)
        with pytest.raises(WorkingCopyIndexError, match="delete it and check your branch out again"):
            bench.status()
    index.unlink()
    report = bench.checkout(second)  # every file is there already
    assert report.written == 0
    assert not bench.status()


def test_a_commit_without_files_empties_the_working_copy(tmp_path: Path) -> None:
    bench, first, _ = simple(tmp_path)
    empty = bench.version({})
    bench.checkout(first)
    bench.checkout(empty)
    assert bench.files() == {}
    assert bench.directories() == []
