"""Names on a real mount, beside the same files on the disk."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cache_runtime.mount.shown import shown
from tests.cache_runtime.mount.views import COMMIT, MemoryView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cache_runtime.mount.shown import Shown

DEEP = bool(os.environ.get("FOREBAY_DEEP"))
NAMES = st.one_of(
    st.sampled_from(
        ["a", "b", "a.txt", "a-", "A", "é", "e\u0301", "日本語" * 10, "x" * 255, "-", " ", "\\134", "\n", "🙂"]
    ),
    st.text(min_size=1, max_size=20).filter(
        lambda name: "/" not in name and "\0" not in name and name not in (".", "..") and len(name.encode()) < 256
    ),
).filter(lambda name: name.isprintable() or name == "\n")
TREES = st.recursive(
    st.binary(max_size=300) | st.integers(4096, 300_000).map(lambda size: os.urandom(1) * size),
    lambda below: st.dictionaries(NAMES, below, min_size=1, max_size=6),
    max_leaves=40,
).filter(lambda tree: isinstance(tree, dict))


def write(tree: dict[str, object], root: Path) -> None:
    root.mkdir()
    for name, below in tree.items():
        if isinstance(below, bytes):
            (root / name).write_bytes(below)
        else:
            assert isinstance(below, dict)
            write(below, root / name)


def seen(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what a program sees of a tree: listed types, stat, bytes."""
    whole: dict[str, tuple[object, ...]] = {}
    for directory, _, _ in os.walk(root):
        with os.scandir(directory) as entries:
            for entry in entries:
                found = os.stat(entry.path)
                assert found.st_ino == entry.inode() or root.name == "real"
                kind = (entry.is_dir(), stat.S_IFMT(found.st_mode))
                if entry.is_dir():
                    whole[os.path.relpath(entry.path, root)] = (*kind, sorted(os.listdir(entry.path)))
                else:
                    content = Path(entry.path).read_bytes()
                    whole[os.path.relpath(entry.path, root)] = (*kind, found.st_size, found.st_mtime_ns, content)
    return whole


@settings(max_examples=40 if DEEP else 6, suppress_health_check=list(HealthCheck))
@given(tree=TREES, data=st.data())
def test_a_tree_looks_as_on_the_disk(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object], data: st.DataObject
) -> None:
    tmp_path = tmp_path_factory.mktemp("tree")
    real = tmp_path / "real"
    write(tree, real)
    with shown(real, tmp_path / "mnt") as mount:
        if data.draw(st.booleans()):  # paths before any listing
            for path in sorted(seen(real)):
                assert (mount.path / path).lstat().st_size == (
                    0 if (real / path).is_dir() else (real / path).stat().st_size
                )
        for _ in range(2):
            assert seen(mount.path) == seen(real)
        for name in data.draw(st.lists(NAMES, max_size=5)):
            assert os.path.lexists(mount.path / name) == os.path.lexists(real / name)
        status = mount.status()
        assert (status["errors"], status["waiting"], status["names_not_shown"]) == (0, 0, 0)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fixed") / "real"
    write({"d": {"x": b"1", "y": {"z": b"22"}}, "file": b"bytes" * 1000, "odd": b"", "slow": b"s"}, root)
    return root


@pytest.fixture(scope="module")
def mount(tree: Path) -> Iterator[Shown]:
    with shown(tree, tree.with_name("mnt")) as mounted:
        yield mounted


def test_what_stat_shows(mount: Shown) -> None:
    file, directory = (mount.path / "file").stat(), (mount.path / "d").stat()
    assert (file.st_mode, file.st_nlink, file.st_blocks) == (stat.S_IFREG | 0o444, 1, 10)
    assert (directory.st_mode, directory.st_nlink) == (stat.S_IFDIR | 0o555, 1)
    assert (file.st_uid, file.st_gid) == (os.geteuid(), os.getegid())
    assert mount.path.stat().st_ino == 1


def test_nothing_can_be_changed(mount: Shown) -> None:
    path = mount.path / "file"
    for change in (
        lambda: path.open("ab"),
        lambda: path.unlink(),
        lambda: path.rename(mount.path / "other"),
        lambda: path.chmod(0o600),
        lambda: os.utime(path),
        lambda: (mount.path / "new").mkdir(),
        lambda: (mount.path / "new").write_bytes(b""),
        lambda: os.symlink("x", mount.path / "new"),
        lambda: os.link(path, mount.path / "new"),
        lambda: os.setxattr(path, "user.x", b"1"),
        lambda: os.truncate(path, 0),
    ):
        with pytest.raises(OSError, match="Read-only") as caught:
            change()
        assert caught.value.errno == errno.EROFS


def test_attributes_tell_where_bytes_come_from(mount: Shown, tree: Path) -> None:
    view = MemoryView.of(tree)
    path = mount.path / "file"
    row = next(row for row in range(view.rows) if view.file(row).path == "file")
    assert set(os.listxattr(path)) >= {"user.ds.commit", "user.ds.location"}
    assert os.getxattr(path, "user.ds.commit") == COMMIT.encode()
    assert os.getxattr(path, "user.ds.location").startswith(view.file(row).location.object.uri.encode())
    assert os.getxattr(mount.path, "user.ds.commit") == COMMIT.encode()
    with_digest = next(view.file(row) for row in range(view.rows) if view.file(row).digest)
    assert with_digest.digest is not None
    assert os.getxattr(mount.path / with_digest.path, "user.ds.digest") == with_digest.digest.hex().encode()
    for name, number in (("user.none", errno.ENODATA), ("security.selinux", errno.EOPNOTSUPP)):
        with pytest.raises(OSError) as caught:  # noqa: PT011 # its number is looked at
            os.getxattr(path, name)
        assert caught.value.errno == number


def test_file_systems_are_told_apart_and_sized(mount: Shown, tree: Path) -> None:
    sizes = os.statvfs(mount.path)
    view = MemoryView.of(tree)
    assert (sizes.f_files, sizes.f_bfree, sizes.f_namemax) == (view.rows, 0, 255)
    assert sizes.f_blocks * sizes.f_frsize >= view.size
    assert sizes.f_flag & os.ST_RDONLY


def test_seeking_finds_data_and_the_hole_at_the_end(mount: Shown) -> None:
    with (mount.path / "file").open("rb") as file:
        assert os.lseek(file.fileno(), 7, os.SEEK_DATA) == 7
        assert os.lseek(file.fileno(), 7, os.SEEK_HOLE) == 5000
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(file.fileno(), 5000, os.SEEK_DATA)


class Dirent(ctypes.Structure):
    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("length", ctypes.c_ushort),
        ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = ctypes.c_void_p
LIBC.readdir.restype = ctypes.POINTER(Dirent)
LIBC.readdir.argtypes = LIBC.closedir.argtypes = LIBC.telldir.argtypes = (ctypes.c_void_p,)
LIBC.telldir.restype = ctypes.c_long
LIBC.seekdir.argtypes = (ctypes.c_void_p, ctypes.c_long)


class Reader:
    """A directory as C reads it."""

    def __init__(self, path: Path) -> None:
        self._stream = LIBC.opendir(os.fspath(path).encode())
        assert self._stream

    def next(self) -> bytes | None:
        entry = LIBC.readdir(self._stream)
        return bytes(entry.contents.name) if entry else None

    def tell(self) -> int:
        return int(LIBC.telldir(self._stream))

    def seek(self, position: int) -> None:
        LIBC.seekdir(self._stream, position)

    def close(self) -> None:
        LIBC.closedir(self._stream)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A directory of 10**5 names of all lengths, and one of directories."""
    import json

    root = tmp_path_factory.mktemp("wide")
    files = [(f"wide/{number:06d}" + "n" * (number % 250), number, number) for number in range(100_000)]
    files += [(f"deep/{number:03d}/file", 1, 1) for number in range(500)]
    (root / "files.json").write_text(json.dumps(files))
    with shown(root / "files.json", root / "mnt") as mounted:
        yield mounted


def test_a_directory_of_many_names_is_whole(wide: Shown) -> None:
    for _ in range(2):
        with os.scandir(wide.path / "wide") as entries:
            names = [entry.name for entry in entries]
        assert names == [f"{number:06d}" + "n" * (number % 250) for number in range(100_000)]
    for number in range(0, 100_000, 9973):
        assert (wide.path / "wide" / names[number]).stat().st_size == number
    assert sorted(os.listdir(wide.path / "deep")) == [f"{number:03d}" for number in range(500)]
    operations = wide.status()["operations"]
    assert operations.get("lookup", {"requests": 0})["requests"] < 20  # the listing brought them
    assert "readdir" not in operations


@settings(max_examples=100 if DEEP else 15, suppress_health_check=list(HealthCheck))
@given(data=st.data(), directory=st.sampled_from(["wide", "deep"]))
def test_positions_in_a_directory_stay_valid(wide: Shown, data: st.DataObject, directory: str) -> None:
    reader = Reader(wide.path / directory)
    positions: dict[int, bytes | None] = {}
    for _ in range(data.draw(st.integers(1, 30))):
        for _ in range(data.draw(st.integers(0, 400))):
            position = reader.tell()
            name = reader.next()
            assert positions.setdefault(position, name) == name
            if name is None:
                break
        if positions:
            reader.seek(data.draw(st.sampled_from(sorted(positions))))
    reader.seek(data.draw(st.integers(0, (1 << 63) - 1)))
    reader.next()  # anything, at once
    reader.close()
