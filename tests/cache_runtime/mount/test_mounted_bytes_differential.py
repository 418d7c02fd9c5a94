"""Bytes read from a mount and from the same files on the disk, in any order and by any call."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cache_runtime.mount.mounted import MIB, Mounted, can_mount, make_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse")

DEEP = bool(os.environ.get("FOREBAY_DEEP"))
GIB = 1 << 30
SPARSE = "sparse"
SPARSE_BYTES = 3 * GIB + 12_345
SIZES = {
    "empty": 0,
    "one": 1,
    "page": 4096,
    "small": 70_001,
    "edge": MIB,
    "odd": MIB + 1,
    "large": 9 * MIB + 17,
    "n" * 255: 5_000,
    "日本語" * 28: 6_000,
    "e\u0301 \\ \n 🙂": 7_000,
}
NAMES = [*SIZES, SPARSE]


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    root = tmp_path_factory.mktemp("differential")
    make_objects(root, SIZES)
    with (root / "objects" / SPARSE).open("wb") as file:
        file.truncate(SPARSE_BYTES)
        for offset in (5, GIB - 1, 2 * GIB + 7, SPARSE_BYTES - 3):
            file.seek(offset)
            file.write(b"abc")
    with Mounted(root, capacity=256 * MIB) as found:
        yield found


def offsets(size: int) -> st.SearchStrategy[int]:
    """Some are behind the end, and of a large file most lie where its bytes are."""
    near = [max(0, size + delta) for delta in (-4097, -4096, -100, -1, 0, 1, 5000)]
    return st.one_of(st.sampled_from([0, 1, 4095, 4096, *near]), st.integers(0, min(size, 10 * MIB)))


def told(act: Callable[..., object], *words: object) -> object:
    """Return what a call returns, or the number of its error."""
    try:
        return act(*words)
    except OSError as error:
        return error.errno


def mapped(descriptor: int, start: int, length: int) -> bytes:
    at = start - start % mmap.ALLOCATIONGRANULARITY
    size = os.fstat(descriptor).st_size
    if at >= size:
        return b""
    with mmap.mmap(descriptor, min(length + start - at, size - at), prot=mmap.PROT_READ, offset=at) as view:
        return view[start - at :]


def scattered(descriptor: int, start: int, length: int) -> list[bytes]:
    parts = [bytearray(length % 777), bytearray(1), bytearray(length)]
    count = os.preadv(descriptor, parts, start)
    return [bytes(b"".join(parts))[:count]]


CALLS: dict[str, Callable[[int, int, int], object]] = {
    "pread": lambda fd, start, length: os.pread(fd, length, start),
    "preadv": scattered,
    "seek and read": lambda fd, start, length: (os.lseek(fd, start, os.SEEK_SET), os.read(fd, length)),
    "read on": lambda fd, _, length: (os.read(fd, length), os.lseek(fd, 0, os.SEEK_CUR)),
    "from the end": lambda fd, start, length: (os.lseek(fd, -min(start, 3), os.SEEK_END), os.read(fd, length)),
    "before the start": lambda fd, start, _: os.lseek(fd, -1 - start, os.SEEK_SET),
    "mmap": mapped,
    "stat": lambda fd, *_: (os.fstat(fd).st_size, stat.S_IFMT(os.fstat(fd).st_mode)),
    "write": lambda fd, *_: os.write(fd, b"x"),
    "advise": lambda fd, start, length: os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED),
}


@settings(max_examples=300 if DEEP else 60, suppress_health_check=list(HealthCheck))
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_any_call_returns_what_it_does_on_the_disk(mounted: Mounted, data: st.DataObject, name: str) -> None:
    flags = os.O_RDONLY | data.draw(st.sampled_from([0, os.O_NOATIME, os.O_NONBLOCK]))
    here, there = os.open(mounted.path / name, flags), os.open(mounted.objects / name, flags)
    try:
        size = SPARSE_BYTES if name == SPARSE else SIZES[name]
        for _ in range(data.draw(st.integers(1, 8))):
            call, start = data.draw(st.sampled_from(sorted(CALLS))), data.draw(offsets(size))
            length = data.draw(st.sampled_from([0, 1, 100, 4096, 4097, 131_073]))
            act = CALLS[call]
            assert told(act, here, start, length) == told(act, there, start, length), (call, start, length)
        if data.draw(st.integers(0, 9)) == 0:
            mounted.order("evict")
    finally:
        os.close(here)
        os.close(there)


def test_a_sparse_file_of_gibs_is_read_where_it_is_read(mounted: Mounted) -> None:
    with (mounted.path / SPARSE).open("rb", buffering=0) as file:
        assert os.fstat(file.fileno()).st_size == SPARSE_BYTES
        for offset, data in ((0, bytes(5) + b"abc" + bytes(8)), (2 * GIB, bytes(7) + b"abc" + bytes(6))):
            assert os.pread(file.fileno(), 16, offset) == data
        assert os.pread(file.fileno(), 100, SPARSE_BYTES - 4) == b"\0abc"


def kind_of(path: bytes) -> int:
    return stat.S_IFMT(os.stat(path).st_mode)


def test_long_and_odd_names_are_answered_as_on_the_disk(mounted: Mounted) -> None:
    names: list[bytes] = [
        b"n" * 255,
        b"n" * 256,
        b"n" * 254,
        b"\xff\xfe",
        b"\xe9",
        b"small\xff",
        b".",
        b"..",
        b"a" * 4096,
    ]
    for name in [*names, *(each.encode() for each in NAMES)]:
        for root in (b"", b"small/", b"nothing/"):
            here, there = (os.path.join(os.fsencode(at), root, name) for at in (mounted.path, mounted.objects))
            assert told(kind_of, here) == told(kind_of, there), (root, name)
    assert sorted(os.listdir(mounted.path)) == sorted(os.listdir(mounted.objects))


def test_no_file_is_a_link(mounted: Mounted) -> None:
    for name in ("small", "."):
        with pytest.raises(OSError, match="Invalid argument") as caught:
            os.readlink(mounted.path / name)
        assert caught.value.errno == errno.EINVAL
    assert not any(entry.is_symlink() for entry in os.scandir(mounted.path))
    assert Path(mounted.path / ".." / mounted.path.name / "small").resolve() == mounted.path / "small"
