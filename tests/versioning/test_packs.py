from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import threading
from typing import TYPE_CHECKING

import google_crc32c
import pyarrow as pa
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import FileStore, SourceUnavailableError
from tests.versioning.samples import AUTHOR, external, tiny_repository
from tests.versioning.stores import FailingStore, MemoryStore
from versioning import (
    ChangeSet,
    EntryKind,
    InvalidNameError,
    PackWriter,
    Repository,
    SpoolError,
    UnreadableFileError,
    add_files,
    entries_table,
)
from versioning.packs import put_file
from versioning.tarfiles import END, member_header, padding

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

_names = st.text(st.sampled_from("abcdefghij/é\U0001f600 \n=0"), min_size=1, max_size=300).filter(
    lambda name: all(part not in ("", ".", "..") for part in name.split("/"))
)
LONG = ["a" * 100, "d" * 155 + "/" + "n" * 100, "x" * 101, "d/" * 60 + "file", "é" * 120, "d" * 156 + "/n" * 60]


def _tar(files: dict[str, bytes]) -> bytes:
    parts = [member_header(name, len(data)) + data + padding(len(data)) for name, data in files.items()]
    return b"".join([*parts, END])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(_names, st.binary(max_size=1100), max_size=5))
def test_python_reads_back_what_was_packed(files: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=io.BytesIO(_tar(files))) as tar:
        members = tar.getmembers()
        read = {member.name: tar.extractfile(member) for member in members}
    assert list(read) == list(files)
    assert all((member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644) for member in members)


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar on this machine")
def test_gnu_tar_reads_back_what_was_packed(tmp_path: Path) -> None:
    files = {name: os.urandom(number * 300) for number, name in enumerate([*LONG, "images/1.png", "a b/ü.txt"])}
    (tmp_path / "pack.tar").write_bytes(_tar(files))
    done = subprocess.run(["tar", "-xf", "pack.tar"], cwd=tmp_path, capture_output=True, timeout=30, check=True)
    assert done.stderr == b""
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


def test_ustar_is_used_as_long_as_it_can_name_the_file() -> None:
    assert [len(member_header(name, 0)) for name in LONG] == [512, 512, 1536, 512, 1536, 1536]


@pytest.mark.parametrize("name", ["", "a/", "a\x00b", "\ud800"])
def test_names_that_no_tar_can_hold_are_refused(name: str) -> None:
    with pytest.raises(InvalidNameError):
        member_header(name, 0)
    with pytest.raises(InvalidNameError):
        member_header("a", 1 << 33)


def test_members_can_be_read_by_their_location_and_by_tar() -> None:
    repository = tiny_repository()
    files = {f"d/{number:03d}.bin": os.urandom(number * 7) for number in range(100)}
    with PackWriter(repository, pack_size=20_000) as writer:
        members = [writer.add(name, data) for name, data in files.items()]
        packs = writer.finish()
    assert len(packs.packs) > 2
    seen: dict[str, bytes] = {}
    for pack in packs.packs:
        data = bytes(repository.store.fetch(repository.prefix + pack.key)[0])
        assert pack.size == len(data) <= 20_000
        assert pack.key == f"packs/{blake3(data).hexdigest()[:2]}/{blake3(data).hexdigest()}.tar"
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            seen |= {each.name: data[each.offset_data : each.offset_data + each.size] for each in tar}
    assert seen == files
    for (name, data), member in zip(files.items(), members, strict=True):
        location = packs.entry(name, member).location(repository.root)
        tar_bytes = repository.store.fetch(location.object.key)[0]
        assert tar_bytes[location.offset : location.offset + location.length] == data
        assert (member.oid, member.crc32c) == (blake3(data).digest(), google_crc32c.value(data))


def test_equal_files_give_equal_packs() -> None:
    keys = []
    for _ in range(2):
        with PackWriter(tiny_repository()) as writer:
            writer.add("a", b"1")
            writer.add("b", memoryview(b"2"))
            keys.append(writer.finish().packs)
    assert keys[0] == keys[1]


def test_a_file_larger_than_a_pack_gets_one_of_its_own() -> None:
    with PackWriter(tiny_repository(), pack_size=10_000) as writer:
        members = [writer.add(name, bytes(size)) for name, size in (("a", 1), ("b", 50_000), ("c", 1))]
        assert len(writer.finish().packs) == 3
    assert [member.pack for member in members] == [0, 1, 2]


def test_no_file_gives_no_pack() -> None:
    repository = tiny_repository()
    with PackWriter(repository) as writer:
        assert writer.finish().packs == ()
    assert not list(repository.store.list("repo/packs/"))


def test_packing_is_a_layout_change_and_the_next_import_sees_nothing_new() -> None:
    repository = tiny_repository()
    first = repository.commit_changes(
        "main",
        ChangeSet.of([external("a", "etag:1", size=1), external("b", "etag:2", size=1)]),
        message="",
        author=AUTHOR,
        base=None,
    )
    table = pa.concat_tables(repository.tree("main").scan()).combine_chunks()
    with PackWriter(repository) as writer:
        members = [writer.add(path, b"x") for path in ("a", "b")]
        packed = writer.finish().relocate(table, members)
    second = repository.commit_changes("main", ChangeSet.of_table(packed), message="", author=AUTHOR, base=first)
    assert repository.diff(first, second).table["op"].to_pylist() == ["L", "L"]
    found = repository.tree("main").get("a")
    assert found is not None
    assert (found.source, found.kind, found.oid) == ("etag:1", EntryKind.PACKED, blake3(b"x").digest())


def test_local_files_become_packed_or_blobs(tmp_path: Path) -> None:
    repository = Repository.init(FileStore(tmp_path / "repo"), f"{tmp_path}/repo/"[1:])
    contents = {"small": b"abc", "empty": b"", "large": os.urandom(100_000)}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    seen: list[int] = []
    change = add_files(
        repository,
        [(f"data/{name}", tmp_path / name) for name in contents],
        blob_size=50_000,
        on_progress=lambda progress: seen.append(progress.bytes),
    )
    repository.commit_changes("main", change, message="", author=AUTHOR, base=None)
    assert seen == sorted(seen)
    assert seen[-1] == 100_003
    kinds = {each.path: each.kind for each in repository.tree("main").entries()}
    assert kinds == {"data/empty": "packed", "data/large": "blob", "data/small": "packed"}
    for each in repository.tree("main").entries():
        where = each.location(repository.root)
        version = where.object.version
        data = bytes(repository.store.read(where.object.key, start=where.offset, length=where.length, version=version))
        assert data == contents[each.path.removeprefix("data/")]
        assert each.oid == blake3(data).digest()
        assert each.mtime_ns == (tmp_path / each.path.removeprefix("data/")).stat().st_mtime_ns


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for file in (tmp_path / "absent", tmp_path):
        with pytest.raises(UnreadableFileError, match=f"cannot read {file}: .*nothing was staged"):
            add_files(tiny_repository(), [("a", file)])


def test_a_spool_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with PackWriter(tiny_repository(), spool=tmp_path / "absent") as writer:
        writer.add("a", b"1")
        with pytest.raises(SpoolError, match="cannot write temporary files in"):
            writer.finish()


def test_a_failed_upload_is_the_stores_error(tmp_path: Path) -> None:
    store = FailingStore(MemoryStore())
    repository = tiny_repository(store)
    (tmp_path / "large").write_bytes(bytes(1000))
    store.arm(1)
    with pytest.raises(SourceUnavailableError):
        add_files(repository, [("a", tmp_path / "large")], blob_size=10)
    store.arm(1)
    with pytest.raises(SourceUnavailableError):
        add_files(repository, [("a", tmp_path / "large")])


def test_nothing_is_left_where_no_thread_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    repository = Repository.init(FileStore(tmp_path), f"{tmp_path}/repo/"[1:])
    with PackWriter(repository) as writer:
        writer.add("a", b"abc")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="new thread"):
                writer.finish()
    assert [each.name for each in tmp_path.rglob(".forebay-tmp-*") if each.name != ".forebay-tmp-lock"] == []


def test_relocated_tables_keep_their_schema() -> None:
    table = entries_table([external("a", "v")])
    with PackWriter(tiny_repository()) as writer:
        member = writer.add("a", b"1")
        assert writer.finish().relocate(table, [member]).schema == table.schema


def test_ctrl_c_in_a_write_that_holds_on_to_its_bytes_is_ctrl_c(tmp_path: Path) -> None:
    class Interrupted(MemoryStore):
        held: memoryview

        def put(self, key: str, data: Buffer) -> None:
            self.held = memoryview(data)
            raise KeyboardInterrupt

    repository = tiny_repository(MemoryStore())
    store = Interrupted()
    repository.store = store
    with open(tmp_path / "pack", "w+b") as file:
        file.write(b"bytes")
        file.flush()
        with pytest.raises(KeyboardInterrupt):
            put_file(repository.store, "key", file.fileno(), 5)
    assert bytes(store.held) == b"bytes"
