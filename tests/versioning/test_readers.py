from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sources import FileStore
from tests.versioning.samples import tiny_repository
from versioning import Repository, UnreadableFileError, readahead, readers
from versioning.adding import AddOptions, upload_files
from versioning.errors import ReaderDiedError
from versioning.gathering import gathered_of
from versioning.readers import Readers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from versioning.filereading import File
    from versioning.gathering import Gathered

SIZES = (0, 1, 511, 512, 700, 3000, 3001, 9000)
LIMIT = 3000
_ADD_FOREVER = """
import sys
from sources import FileStore
from versioning import Repository
from versioning.adding import AddOptions, upload_files
repository = Repository.init(FileStore(sys.argv[1]), sys.argv[1][1:] + "/repo/")
files = ((f"{number:09d}", sys.argv[2]) for number in range(10**9))
upload_files(repository, files, AddOptions(readers=2), on_progress=lambda now: print(now.files, flush=True))
"""


@pytest.fixture
def files(tmp_path: Path) -> list[File]:
    (tmp_path / "files").mkdir()
    named: list[File] = []
    for number in range(400):
        file = tmp_path / "files" / f"{number:04d}"
        file.write_bytes(os.urandom(SIZES[number % len(SIZES)]))
        named.append((f"a/{number:04d}{'é' * (number % 3)}", file if number % 2 else str(file)))
    return named


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started."""
    found: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            found.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    return found


def _in_directory(directory: Path) -> Repository:
    return Repository.init(FileStore(directory), f"{directory}/repo/"[1:])


def _unfinished(directory: Path) -> list[str]:
    return [each.name for each in directory.rglob(".forebay-tmp-*") if each.name != ".forebay-tmp-lock"]


@pytest.mark.parametrize("pack_size", [20_000, 1 << 20])
def test_what_is_stored_does_not_depend_on_who_reads(tmp_path: Path, files: list[File], pack_size: int) -> None:
    found = []
    for count in (0, 1, 3):
        repository = _in_directory(tmp_path / f"store{count}")
        options = AddOptions(pack_size=pack_size, blob_size=LIMIT, readers=count)
        added = upload_files(repository, files, options)
        commit = repository.commit_changes("main", added.changes, message="all", author="Ada", base=None)
        found.append((added, repository.tree_of(commit).id))
        assert not _unfinished(tmp_path / f"store{count}")
    for added, tree in found[1:]:
        assert tree == found[0][1]
        assert added.changes.upserts.equals(found[0][0].changes.upserts)
        assert added.stats.equals(found[0][0].stats)


def test_processes_read_only_where_there_are_many_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[Any]
) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    for count, expected in [(50, 0), (readahead._MANY_FILES, 2)]:
        upload_files(tiny_repository(), [(f"{row:05d}", tmp_path / "file") for row in range(count)], AddOptions())
        assert len(started) == expected
    assert all(process.returncode is not None for process in started)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert readers.usual_readers() == 0


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, files: list[File], started: list[Any]) -> None:
    repository = _in_directory(tmp_path / "store")
    bad: list[tuple[File, str]] = [
        (("b", tmp_path / "absent"), os.strerror(errno.ENOENT)),
        (("b", tmp_path), "no regular file"),
        (("b", "/" + "x" * (5 << 20)), os.strerror(errno.ENAMETOOLONG)),
    ]
    for file, reason in bad:
        with pytest.raises(UnreadableFileError, match=reason) as caught:
            upload_files(repository, [*files, file, *files], AddOptions(readers=2))
        assert caught.value.file == str(file[1])
    assert not _unfinished(tmp_path / "store")
    assert len(started) == 6
    assert all(process.returncode is not None for process in started)


def test_a_reader_that_is_killed_is_an_error_that_says_so(
    tmp_path: Path, files: list[File], started: list[Any]
) -> None:
    def killing() -> Iterator[File]:
        for number in range(100):
            yield from ((f"{number:03d}/{path}", file) for path, file in files)
            if number == 2:
                started[0].kill()
                started[0].wait(60)

    repository = _in_directory(tmp_path / "store")
    with pytest.raises(ReaderDiedError, match=r"signal 9 .*memory.* nothing was staged") as caught:
        upload_files(repository, killing(), AddOptions(readers=2))
    assert caught.value.status == -signal.SIGKILL
    assert not _unfinished(tmp_path / "store")
    assert all(process.returncode is not None for process in started)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_one_that_adds(tmp_path: Path, ending: signal.Signals) -> None:
    (tmp_path / "file").write_bytes(bytes(10_000))
    command = [sys.executable, "-c", _ADD_FOREVER, str(tmp_path), str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as adding:
        assert adding.stdout is not None
        try:
            assert adding.stdout.readline()
            children = _children(adding.pid)
            assert len(children) == 2
            adding.send_signal(ending)
            adding.stdout.read()
        finally:
            adding.kill()
    _wait_until(lambda: not any(_is_alive(pid) for pid in children))
    if ending == signal.SIGINT:
        assert not _unfinished(tmp_path)


def test_files_are_read_here_where_no_process_can_be_had(
    tmp_path: Path, files: list[File], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = upload_files(_in_directory(tmp_path / "one"), files, AddOptions(readers=0))
    for number, program in enumerate(["/bin/true", "/absent"]):  # one that is no Python, and none at all
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", program)
            found = upload_files(_in_directory(tmp_path / f"other{number}"), files, AddOptions(readers=2))
        assert found.changes.upserts.equals(expected.changes.upserts)


def test_more_processes_come_where_a_disk_is_waited_for(
    files: list[File], monkeypatch: pytest.MonkeyPatch, started: list[Any]
) -> None:
    class Slow:
        def __iter__(self) -> Iterator[list[File]]:
            return iter([files[at : at + 10] for at in range(0, len(files), 10)])

        def learn(self, found: Gathered) -> None:
            pass

    monkeypatch.setattr(readers, "gathered_of", lambda *args: gathered_of(*args)._replace(waited=10))
    with Readers(1, limit=10_000, follow=True) as reading:
        paths = [path for found in reading.run(Slow(), most=3) for path in found.members.paths]
    assert paths == [path for path, _ in files]
    assert len(started) == 3


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_until(is_so: Callable[[], bool]) -> None:
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.1)
    raise AssertionError("it took longer than a minute")
