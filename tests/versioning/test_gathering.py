from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import FileStore, SourceError
from tests.versioning.samples import tiny_repository
from tests.versioning.stores import FailingStore, MemoryStore
from versioning import PackWriter, Repository, UnreadableFileError, add_files, adding
from versioning.adding import AddOptions, upload_files
from versioning.gathering import buffer_bytes, gather
from versioning.tarfiles import member_header, padding

if TYPE_CHECKING:
    from collections.abc import Callable

    from versioning.filereading import File
    from versioning.packs import WritesObjects

LIMIT = 3000
_sizes = st.one_of(st.integers(0, LIMIT + 200), st.sampled_from([0, 1, 511, 512, 513, LIMIT, LIMIT + 1]))
_names = st.one_of(st.just(""), st.sampled_from(["é", "x" * 120, "/deep" * 40]))
_files = st.lists(st.tuples(_names, _sizes), max_size=40)


def _written(directory: Path, files: list[tuple[str, int]]) -> dict[str, bytes]:
    """Write files of given sizes, and return the bytes of each path."""
    made = {f"{number:03d}{name}": os.urandom(size) for number, (name, size) in enumerate(files)}
    for path, data in made.items():
        (directory / path.replace("/", "_")).write_bytes(data)
    return made


def _in_directory(directory: Path) -> Repository:
    return Repository.init(FileStore(directory), f"{directory}/repo/"[1:])


@settings(max_examples=60, deadline=None)
@given(files=_files, pack_size=st.sampled_from([1024, 6000, 20_000, 1 << 20]))
def test_packs_are_those_of_one_file_after_another(files: list[tuple[str, int]], pack_size: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        contents = _written(Path(scratch), files)
        named: list[File] = [(path, f"{scratch}/{path.replace('/', '_')}") for path in contents]
        places: list[WritesObjects] = [tiny_repository(), _in_directory(Path(scratch, "store"))]
        options = AddOptions(pack_size=pack_size, blob_size=LIMIT)
        found = [upload_files(place, named, options) for place in places]
        small = {path: data for path, data in contents.items() if len(data) <= LIMIT}
        with PackWriter(tiny_repository(), pack_size=pack_size) as writer:
            members = {path: writer.add(path, data) for path, data in small.items()}
            packs = writer.finish()
        for added in found:
            rows = added.changes.upserts.to_pylist()
            assert [row["path"] for row in rows] == sorted(contents, key=str.encode)
            for row, kept in zip(rows, added.stats.to_pylist(), strict=True):
                path, data = row["path"], contents[row["path"]]
                stat = os.stat(f"{scratch}/{path.replace('/', '_')}")
                assert (row["size"], row["oid"]) == (len(data), blake3(data).digest())
                assert row["crc32c"] == google_crc32c.value(data)
                assert kept == {
                    "size": len(data),
                    "mtime_ns": stat.st_mtime_ns,
                    "ctime_ns": stat.st_ctime_ns,
                    "inode": stat.st_ino,
                }
                if path in small:
                    expected = packs.entry(path, members[path])
                    assert (row["kind"], row["key"], row["offset"]) == ("packed", expected.key, expected.offset)
        assert found[0].changes.upserts.equals(found[1].changes.upserts)


@settings(max_examples=40, deadline=None)
@given(files=_files)
def test_what_has_no_room_is_left_in_order(files: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        contents = _written(Path(scratch), files)
        rest: list[File] = [(path, f"{scratch}/{path.replace('/', '_')}") for path in contents]
        buffer = bytearray(b"\xff" * buffer_bytes(LIMIT))  # as if it had been used before
        tar, large = b"", list[str]()
        while rest:
            found = gather(rest, buffer, limit=LIMIT)
            assert len(found.rest) < len(rest)
            tar += bytes(found.members.view)
            large += [path for path, _ in found.large]
            rest = found.rest
    small = {path: data for path, data in contents.items() if len(data) <= LIMIT}
    assert tar == b"".join(member_header(path, len(data)) + data + padding(len(data)) for path, data in small.items())
    assert large == [path for path in contents if path not in small]


@pytest.mark.parametrize("size", [0, 10, 5000, LIMIT * 10])
def test_a_file_that_changes_while_it_is_read_is_taken_as_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1000))
    real, limit = os.fstat, 6000

    def changing(fd: int) -> os.stat_result:
        found = real(fd)
        file.write_bytes(b"x" * size)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", changing)
        found = gather([("file", str(file))], bytearray(buffer_bytes(limit)), limit=limit)
    if size > limit:
        assert found.large == [("file", str(file))]
        assert not found.members.paths
    else:
        assert found.members.sizes.tolist() == [size]
        assert bytes(found.members.view) == member_header("file", size) + b"x" * size + padding(size)


def test_links_are_followed_only_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "large").write_bytes(bytes(100))
    (tmp_path / "far").symlink_to("large")
    os.mkfifo(tmp_path / "pipe")
    options = AddOptions(blob_size=50)
    assert upload_files(tiny_repository(), [("a", tmp_path / "link")], options).stats["size"].to_pylist() == [3]
    for name in ("link", "far"):
        with pytest.raises(UnreadableFileError, match=f"cannot read {tmp_path / name}: .*symbolic link"):
            upload_files(tiny_repository(), [("a", tmp_path / name)], AddOptions(blob_size=50, follow=False))
    with pytest.raises(UnreadableFileError, match="no regular file"):
        upload_files(tiny_repository(), [("a", tmp_path / "pipe")], options)


def test_nothing_is_left_of_what_was_not_finished(tmp_path: Path) -> None:
    repository = _in_directory(tmp_path / "store")
    (tmp_path / "small").write_bytes(bytes(2000))
    files = [("a", tmp_path / "small"), ("b", tmp_path / "absent")]
    with pytest.raises(UnreadableFileError):
        add_files(repository, files)
    (tmp_path / "large").write_bytes(bytes(2000))
    add_files(repository, [("large", tmp_path / "large")], blob_size=10)
    left = [path.name for path in (tmp_path / "store").rglob("*") if path.name.startswith(".forebay-tmp-")]
    assert set(left) <= {".forebay-tmp-lock"}


def test_a_pack_that_waits_behind_a_failed_one_is_not_uploaded(tmp_path: Path) -> None:
    inner = MemoryStore()
    store = FailingStore(inner)
    repository = tiny_repository(store)
    (tmp_path / "file").write_bytes(bytes(2000))
    store.arm(1)
    with pytest.raises(SourceError):
        add_files(repository, [(f"{number:02d}", tmp_path / "file") for number in range(20)], pack_size=4096)
    assert len(list(inner.list(repository.prefix + "packs/"))) <= 1


@pytest.mark.parametrize("in_directory", [False, True])
def test_a_large_file_that_is_cut_to_nothing_is_added_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_directory: bool
) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(2000))
    repository = _in_directory(tmp_path / "store") if in_directory else tiny_repository()
    _before_large_files(monkeypatch, lambda: os.truncate(file, 0))
    (row,) = add_files(repository, [("large", file)], blob_size=10).upserts.to_pylist()
    assert (row["size"], row["oid"]) == (0, blake3(b"").digest())
    assert repository.store.read(repository.prefix + row["key"], start=0, length=0, version=None) == b""


def test_a_large_file_that_becomes_a_pipe_is_not_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(2000))

    def replace() -> None:
        file.unlink()
        os.mkfifo(file)

    _before_large_files(monkeypatch, replace)
    with pytest.raises(UnreadableFileError, match="no regular file"):
        add_files(tiny_repository(), [("large", file)], blob_size=10)


def _before_large_files(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], object]) -> None:
    """Let something happen between the look at a large file and its reading."""
    add_large = adding._add_large

    def add_later(*args: Any) -> Any:
        happen()
        return add_large(*args)

    monkeypatch.setattr(adding, "_add_large", add_later)
