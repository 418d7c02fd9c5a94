"""Decoded tree nodes in files of this machine, so that a process finds what another one has fetched and checked."""

from __future__ import annotations

import os
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.ipc
import xxhash

from versioning.columns import as_bytes, single_chunks
from versioning.entries import ENTRY_SCHEMA
from versioning.nodes import NODE_SCHEMA, Node

if TYPE_CHECKING:
    from pathlib import Path

    from versioning.nodes import NodeId

NODE_FILES_BYTES = 2 << 30
"""Usual limit: some 900 leaves of imported and hashed files, 9 * 10^6 paths."""
_TRAILER = struct.Struct("<8sQ")  # magic, xxh3_64 of all that precedes
_MAGIC = b"fbnode1\n"
_TEMPORARY = ".new-"
_ABANDONED_SECONDS = 3600
_ipc: Any = pyarrow.ipc


class NodeFiles:
    """Keeps nodes as Arrow files that are mapped, not read. Safe for several processes, threads and after a fork.

    A node is written after it was checked against its id, under a temporary name, and renamed: a file is whole or not
    there. Files are never changed, so a mapping stays valid when its file is evicted. A damaged file, and any error of
    the disk, is a miss: what is here can always be fetched again. Nothing is locked and nothing held open.

    Args:
        directory: Made when the first node is kept, for this user only.
        max_bytes: Evict what was used longest ago beyond this; each process may overshoot by a sixteenth.
    """

    def __init__(self, directory: Path, *, max_bytes: int = NODE_FILES_BYTES) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self._checked: set[NodeId] = set()  # their checksums were compared by this process: once is enough
        self._written: int | None = None  # since the directory was last measured; None: never

    def get(self, node_id: NodeId, *, in_parts: bool = False) -> Node | None:
        """Return a node, or None.

        Args:
            node_id: Which.
            in_parts: It will be looked at here and there, for a long time: what is not looked at takes no memory.
        """
        path = self._path(node_id)
        try:
            if in_parts and node_id not in self._checked:  # by a copy: over the mapping, it would load each page
                content = pa.py_buffer(path.read_bytes())
                if _decode(content, node_id, check=True) is not None:
                    self._checked.add(node_id)
            with pa.memory_map(str(path)) as file:
                content = file.read_buffer()
            # To compare again would read all of a node of which a search needs a few pages.
            node = _decode(content, node_id, check=node_id not in self._checked)
            if node is None:
                os.unlink(path)
            else:
                self._checked.add(node_id)
                os.utime(path)  # used just now
        except (OSError, pa.ArrowException, ValueError):
            return None
        return node

    def put(self, node: Node) -> None:
        """Keep a node that was checked; nothing happens if the disk does not take it."""
        path = self._path(node.id)
        temporary = path.with_name(f"{_TEMPORARY}{os.urandom(8).hex()}")
        with suppress(OSError):
            if path.exists():
                return
            body, trailer = _encode(node)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                with open(temporary, "xb", buffering=0) as file:
                    if file.write(body) != body.size or file.write(trailer) != len(trailer):
                        return  # the disk is full
                os.rename(temporary, path)
            finally:
                with suppress(FileNotFoundError):
                    temporary.unlink()
            self._count(body.size + len(trailer))

    def _path(self, node_id: NodeId) -> Path:
        name = node_id.hex()
        return self.directory / name[:2] / f"{name}.arrow"

    def _count(self, size: int) -> None:
        if self._written is not None:
            self._written += size
        if self._written is None or self._written > self.max_bytes // 16:
            self._written = 0
            self._evict()

    def _evict(self) -> None:
        """Delete what was used longest ago until nine tenths of the limit are left."""
        found: list[tuple[float, int, str]] = []
        for folder in os.scandir(self.directory):
            with suppress(OSError), os.scandir(folder.path) as files:
                for file in files:
                    with suppress(FileNotFoundError):
                        status = file.stat()
                        found.append((status.st_mtime, status.st_size, file.path))
        total = sum(size for _, size, _ in found)
        goal = total if total <= self.max_bytes else self.max_bytes * 9 // 10
        for used_at, size, path in sorted(found):
            abandoned = os.path.basename(path).startswith(_TEMPORARY) and time.time() - used_at > _ABANDONED_SECONDS
            if total > goal or abandoned:
                with suppress(OSError):
                    os.unlink(path)
                total -= size


def _encode(node: Node) -> tuple[pa.Buffer, bytes]:
    sink = pa.BufferOutputStream()
    with _ipc.new_file(sink, node.table.schema) as writer:
        writer.write_table(node.table)
    body = sink.getvalue()
    return body, _TRAILER.pack(_MAGIC, xxhash.xxh3_64_intdigest(memoryview(body)))


def _decode(content: pa.Buffer, node_id: NodeId, *, check: bool) -> Node | None:
    """Map a node's columns; None if the file is damaged, as far as it is checked.

    Its checksum is enough: what was written had been checked against the id, and hashing that again costs more than to
    read it.
    """
    size = content.size - _TRAILER.size
    if size < 0:
        return None
    body = content.slice(0, size)
    magic, expected = _TRAILER.unpack(content.slice(size).to_pybytes())
    if magic != _MAGIC or (check and xxhash.xxh3_64_intdigest(memoryview(body)) != expected):
        return None
    table = single_chunks(_ipc.open_file(pa.BufferReader(body)).read_all())
    if table.schema.names == ENTRY_SCHEMA.names:
        return Node(node_id, 0, table, as_bytes(table.column("path")))
    if table.schema.names != NODE_SCHEMA.names or not table.num_rows:
        return None
    return Node(node_id, int(table.column("level")[0].as_py()), table, as_bytes(table.column("path")))
