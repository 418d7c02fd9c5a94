from __future__ import annotations

import errno
import multiprocessing
import os
from typing import TYPE_CHECKING

import pytest

from sources import (
    FileStore,
    Location,
    ObjectRef,
    Origins,
    SourceChangedError,
    SourceConfigError,
    SourceFullError,
    SourceNotFoundError,
    StoreId,
    SwapLostError,
    Version,
    filewrites,
    open_store,
)
from sources.locking import locked_file

if TYPE_CHECKING:
    from pathlib import Path


def key(path: Path) -> str:
    return str(path)[1:]


def test_nothing_outside_of_the_root_is_reached(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("no")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "directory").symlink_to(tmp_path)
    (root / "inside").write_text("yes")
    store = FileStore(root)
    assert [stat.key for stat in store.list(key(root) + "/")] == [key(root / "inside")]
    for outside in (tmp_path / "secret", root / "link", root / "directory" / "secret", root / ".." / "secret"):
        with pytest.raises(SourceConfigError, match="outside of the source"):
            store.read(key(outside), start=0, length=1, version=None)
        with pytest.raises(SourceConfigError, match="outside of the source"):
            store.put(key(outside), b"x")
    assert (tmp_path / "secret").read_text() == "no"


def test_a_listing_is_in_byte_order_of_full_paths(tmp_path: Path) -> None:
    for name in ("a/b", "a.b", "a0", "a/c/d", "a-", "B", "ä", "zz"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text("x")
    names = [stat.key[len(key(tmp_path)) + 1 :] for stat in FileStore(tmp_path).list(key(tmp_path) + "/")]
    assert names == sorted(names, key=str.encode)
    assert len(names) == 8


@pytest.mark.parametrize("way", ["link", "real/../link", "./real", "/real", "link/deep/.."])
def test_a_directory_is_listed_by_the_name_it_was_asked_for(tmp_path: Path, way: str) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "deep" / "file").write_text("x")
    (tmp_path / "link").symlink_to("real")
    prefix = f"{tmp_path}/{way}/"[1:]
    store = FileStore(tmp_path)
    (listed,) = store.list(prefix)
    assert listed.key == f"{prefix}deep/file"
    assert store.read(listed.key, start=0, length=1, version=listed.version) == b"x"


def test_symbolic_links_that_are_not_listed_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "directory").symlink_to("real")
    (root / "nowhere").symlink_to("nothing")
    (root / "loop").symlink_to("loop")
    (tmp_path / "outside").write_text("x")
    (root / "outside").symlink_to(tmp_path / "outside")
    assert list(FileStore(root).list(key(root) + "/")) == []
    assert "4 symbolic links" in caplog.text


def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    store = FileStore(tmp_path)
    assert list(store.list(key(tmp_path) + "/")) == []
    with pytest.raises(SourceNotFoundError):
        store.stat(key(tmp_path / "pipe"))
    with pytest.raises(SourceNotFoundError):
        store.stat(key(tmp_path))
    with pytest.raises(SourceChangedError):  # it was a file when it was pinned
        store.read(key(tmp_path / "pipe"), start=0, length=1, version=Version("stat:1:1"))


def test_the_name_of_a_new_directory_is_as_durable_as_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(filewrites, "sync_directory", synced.append)
    FileStore(tmp_path).put(key(tmp_path / "a" / "b" / "file"), b"x")
    assert synced == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SourceNotFoundError):
        FileStore(tmp_path).put(key(tmp_path / "file" / "b"), b"x")


def test_a_missing_directory_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="no such directory"):
        list(FileStore(tmp_path / "unmounted").list(key(tmp_path / "unmounted") + "/"))


def test_a_full_disk_keeps_what_was_there(small_disk: Path) -> None:
    store = FileStore(small_disk)
    store.put(key(small_disk / "ref"), b"before")
    _, version = store.fetch(key(small_disk / "ref"))
    with pytest.raises(SourceFullError, match="no space left"):
        store.put(key(small_disk / "large"), bytes(5 << 20))
    with pytest.raises(SourceFullError, match="no space left"):
        store.swap(key(small_disk / "ref"), bytes(5 << 20), expect=version)
    assert store.fetch(key(small_disk / "ref"))[0] == b"before"
    assert [stat.key for stat in store.list(key(small_disk) + "/")] == [key(small_disk / "ref")]
    assert sorted(os.listdir(small_disk)) == [".forebay-tmp-lock", "ref"]


def test_of_racing_processes_each_swap_counts_once(tmp_path: Path) -> None:
    FileStore(tmp_path).swap(key(tmp_path / "counter"), b"0", expect=None)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count, args=(str(tmp_path), 25)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert FileStore(tmp_path).fetch(key(tmp_path / "counter"))[0] == b"100"


def _count(root: str, times: int) -> None:
    store, done = FileStore(root), 0
    while done < times:
        value, version = store.fetch(f"{root[1:]}/counter")
        try:
            store.swap(f"{root[1:]}/counter", str(int(value) + 1).encode(), expect=version)
        except SwapLostError:
            continue
        done += 1


def test_a_file_source_takes_no_options_and_an_absolute_path() -> None:
    with pytest.raises(SourceConfigError, match="takes no options, found: key"):
        open_store("file:///data", {"key": "x"})
    with pytest.raises(SourceConfigError, match="file:///data/images"):
        open_store("file://data/images")


def test_only_configured_origins_are_read(tmp_path: Path) -> None:
    for name in ("mounted", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(b"12345")
    origins = Origins()
    store = FileStore(tmp_path / "mounted")
    origins.add(key(tmp_path / "mounted") + "/", store)
    stat = store.stat(key(tmp_path / "mounted" / "x"))
    inside = Location(ObjectRef(store.id, stat.key, stat.version, stat.size), 1, 3)
    assert bytes(origins.read(inside.object, start=inside.offset, length=inside.length)) == b"234"
    for store_id, path in ((store.id, tmp_path / "other" / "x"), (StoreId("s3://bucket"), tmp_path / "mounted" / "x")):
        stranger = ObjectRef(store_id, key(path), Version("stat:1:5"), 5)
        with pytest.raises(SourceConfigError, match="not below any source of this dataset"):
            origins.read(stranger, start=0, length=1)


def test_a_lock_that_stays_held_is_told_after_a_while(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        locked_file(lock, seconds=1),
        pytest.raises(TimeoutError, match="another process holds"),
        locked_file(lock, seconds=0.05),
    ):
        pytest.fail("the lock was given twice")
    with locked_file(lock, seconds=0.05):
        pass


def test_no_key_leads_out_of_a_prefix(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("secret")
    store = open_store(f"fsspec+file://{tmp_path}/in/")
    origins = Origins()
    origins.add(key(tmp_path / "in") + "/", store)
    ref = ObjectRef(store.id, f"{key(tmp_path)}/in/../secret", Version("oid:00"), 6)
    with pytest.raises(SourceConfigError, match=r"'\.\.'"):
        origins.read(ref, start=0, length=6)


def test_a_directory_that_became_a_link_to_the_outside_is_not_scanned(tmp_path: Path) -> None:
    (tmp_path / "root" / "a" / "one").mkdir(parents=True)
    (tmp_path / "root" / "a" / "two").mkdir()
    (tmp_path / "outside").mkdir()
    store = FileStore(tmp_path / "root")
    above = key(tmp_path / "root" / "a")
    store.scan_directory(f"{above}/one/")
    (tmp_path / "root" / "a" / "two").rmdir()
    (tmp_path / "root" / "a" / "two").symlink_to(tmp_path / "outside")
    with pytest.raises(SourceConfigError, match="outside of the source"):
        store.scan_directory(f"{above}/two/")


def test_a_file_that_cannot_be_closed_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS, closing says that a write failed."""
    new = FileStore(tmp_path).begin(key(tmp_path) + "/")
    new.write(b"half")
    close = os.close

    def fail(fd: int) -> None:
        close(fd)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", fail)
        with pytest.raises(OSError, match="Input/output error"):
            new.close()
    assert os.listdir(tmp_path) == []
