"""Small local files as members of a tar, many at a time: what a pack needs is then written in one piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from versioning.filereading import buffer_bytes, take_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from versioning.filereading import File, TakenFiles

__all__ = ["Gathered", "Members", "buffer_bytes", "gather", "gathered_of"]


class Members(NamedTuple):
    """Small files as they lie in a tar, one after another: header, bytes, zeros up to a whole block.

    Attributes:
        view: The bytes of all; good until the buffer below is used again.
        paths: In the dataset, and in the tar.
        offsets: Where the bytes of each begin in the view.
        ends: Where each ends in the view, zeros included.
        sizes: Bytes of each.
        oids: BLAKE3-256 of each, joined.
        crc32c: Of each.
        mtime_ns: Of each, as the next two from before its bytes were read: what is written later changes them.
        ctime_ns: Of each.
        inodes: Of each.
    """

    view: memoryview
    paths: list[str]
    offsets: NDArray[np.int64]
    ends: NDArray[np.int64]
    sizes: NDArray[np.int64]
    oids: bytes
    crc32c: NDArray[np.uint32]
    mtime_ns: NDArray[np.int64]
    ctime_ns: NDArray[np.int64]
    inodes: NDArray[np.uint64]


class Gathered(NamedTuple):
    """What became of some files.

    Attributes:
        members: The small ones that the buffer had room for.
        large: Files with more bytes than were allowed.
        rest: Files that nobody has looked at: the buffer is full.
        waited: For how many files a disk or a server was asked, as far as that can be known; the others were in memory.
    """

    members: Members
    large: list[File]
    rest: list[File]
    waited: int


def gather(files: Sequence[File], buffer: bytearray, *, limit: int, follow: bool = True) -> Gathered:
    """Read files behind each other into a buffer, in the order given, and hash them. As `filereading.take_files`."""
    view = memoryview(buffer)
    return gathered_of(files, take_files(files, view, limit=limit, follow=follow), view)


def gathered_of(files: Sequence[File], found: TakenFiles, view: memoryview) -> Gathered:
    """Give what was found out about files its place in arrays; the numbers of `found` may be their bytes."""
    types = (np.int64, np.int64, np.int64, np.uint32, np.int64, np.int64, np.uint64)
    begin, end, size, crc32c, *kept = (
        np.frombuffer(column, kind) for column, kind in zip(found.columns, types, strict=True)
    )
    paths = [files[row][0] for row in found.taken]
    members = Members(view[: found.size], paths, begin, end, size, found.oids, crc32c, *kept)
    large = [files[row] for row in found.large]
    return Gathered(members, large, list(files[found.looked_at :]), found.waited)
