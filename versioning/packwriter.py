"""Writing packs: a tar after another, uploaded while the next one is filled."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from sources.crew import Crew
from versioning.packs import PACK_BYTES, PackedMember, PackSet, Placed, StoredObject, new_object, sums_of
from versioning.tarfiles import BLOCK, END, member_header, padding

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Buffer

    from sources.stores import NewObject
    from versioning.gathering import Members
    from versioning.packs import Sums, WritesObjects

_GATHERED_BYTES = 1 << 20
_UPLOAD_SECONDS = 24 * 3600  # a store gives up by itself long before; this only ends a wait that nothing else would


class PackWriter:
    """Writes files into tars of a repository, in the order they are added; equal files give equal tars.

    A tar is uploaded under its hash when the next file would make it larger than `pack_size`; in a directory it is
    written in its place, elsewhere it is gathered in a temporary file. Use as a context manager, or call `finish` or
    `close`.

    Args:
        repository: Where the packs go.
        pack_size: Largest tar, bytes, unless one file alone is larger.
        spool: Directory of the temporary file; the system's own by default.
    """

    def __init__(self, repository: WritesObjects, *, pack_size: int = PACK_BYTES, spool: Path | None = None) -> None:
        self._repository = repository
        self._pack_size = pack_size
        self._spool = spool
        self._done: list[StoredObject] = []
        self._sending: Future[None] | None = None
        self._sender = Crew(1, name="forebay-pack")
        self._object: NewObject | None = None
        self._sent: NewObject | None = None
        self._begin()

    def _begin(self) -> None:
        self._hasher = blake3()
        self._size = 0
        self._parts: list[bytes] = []
        self._parts_bytes = 0

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, name: str, data: Buffer, *, sums: Sums | None = None) -> PackedMember:
        """Append a file; may upload the pack that is full, while the next one is gathered.

        Args:
            name: The file's name in the tar: its path in the dataset.
            data: All its bytes.
            sums: Of the bytes, if they are known.

        Raises:
            InvalidNameError: If a tar cannot name it.
            SourceError: If the upload of an earlier pack failed; nothing that was finished is lost.
            SpoolError: If the temporary file cannot be written.
        """
        content = data if isinstance(data, bytes) else bytes(data)
        size = len(content)
        header, filled = member_header(name, size), padding(size)
        length = len(header) + size + len(filled)
        if self._size and length > self._room():
            self._send()
        offset = self._size + len(header)
        oid, crc32c = sums or sums_of(content)
        self._append(header, content, filled)
        return PackedMember(name, len(self._done), offset, size, oid, crc32c)

    def extend(self, members: Members) -> Placed:
        """Append files that were gathered; the packs are those that `add` of each would make. Raises as `add`."""
        self._write_parts()
        packs = np.zeros(len(members.paths), np.int64)
        offsets = members.offsets.copy()
        first, begin = 0, 0
        while first < len(packs):
            end = int(np.searchsorted(members.ends, begin + self._room(), "right"))
            if end <= first and self._size:
                self._send()
                continue
            end = max(end, first + 1)  # a file that is larger than a pack
            packs[first:end] = len(self._done)
            offsets[first:end] += self._size - begin
            begin, piece = int(members.ends[end - 1]), members.view[begin : members.ends[end - 1]]
            self._size += len(piece)
            self._write(piece)
            first = end
        return Placed(members, packs, offsets)

    def finish(self) -> PackSet:
        """Upload what is left and return where the packs are; the writer cannot be used afterwards."""
        if self._size:
            self._send()
        self._wait()
        self.close()
        return PackSet(tuple(self._done))

    def close(self) -> None:
        """Throw away what is not uploaded yet."""
        if self._sending is not None and self._sending.cancel() and self._sent is not None:
            self._sent.close()
        self._sender.close()
        if self._object is not None:
            self._object.close()

    def _room(self) -> int:
        """Return how many bytes the pack has room for, before its end."""
        return self._pack_size - self._size - len(END)

    def _append(self, *parts: bytes) -> None:
        """Gather parts: a write for each would cost more than the bytes do."""
        self._parts += parts
        length = sum(map(len, parts))
        self._size += length
        self._parts_bytes += length
        if self._parts_bytes >= _GATHERED_BYTES:
            self._write_parts()

    def _write_parts(self) -> None:
        if self._parts:
            joined = b"".join(self._parts)
            self._parts, self._parts_bytes = [], 0
            self._write(joined)

    def _write(self, data: bytes | memoryview) -> None:
        if self._object is None:
            self._object = new_object(self._repository, "packs/", spool=self._spool)
        self._object.write(data)
        self._hasher.update(data)

    def _send(self) -> None:
        """Begin to upload the pack, after the one before it, and begin another."""
        self._append(END)
        self._write_parts()
        assert self._size % BLOCK == 0
        assert self._object is not None
        oid = self._hasher.digest()
        pack = StoredObject(f"packs/{oid.hex()[:2]}/{oid.hex()}.tar", oid, self._size)
        self._wait()
        # Only when it is on its way is it no more ours to close: a thread that cannot be started leaves no file.
        self._sending = self._sender.submit(partial(_publish, self._object, self._repository.prefix + pack.key))
        self._sent, self._object = self._object, None
        self._done.append(pack)
        self._begin()

    def _wait(self) -> None:
        """Wait for the upload under way: no more than two packs lie on the local disk."""
        if self._sending is not None:
            sending, self._sending = self._sending, None
            sending.result(_UPLOAD_SECONDS)


def _publish(content: NewObject, key: str) -> None:
    try:
        content.publish(key)
    finally:
        content.close()
