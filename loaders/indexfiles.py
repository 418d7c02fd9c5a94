"""Sample indexes as files: made once for a commit on a node, mapped by every process that reads it.

    magic, bytes of the header, its xxh3-64     8 bytes each, little-endian
    header                                      JSON: version, bytes of the file, xxh3-64 of the arrays, what an index
                                                has besides them, and for each array its name, type, count and offset
    arrays                                      each at a multiple of 64 bytes

A file appears whole (written beside, then renamed) and never changes, so a process that has mapped one keeps it when
it is removed. One that is damaged, cut or of another version counts as absent, and is made anew.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64, xxh3_64_intdigest

from loaders.errors import MissingIndexError
from loaders.objects import ObjectTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from cache_runtime import Client
    from loaders.samples import SampleIndex
    from versioning import RepositoryRoot

_log = logging.getLogger(__name__)
_VERSION = 1
_MAGIC = 0x58444E4953444246  # "FBDSINDX"
_HEAD = Struct("<QQQ")
_ALIGN = 64
_PART_OF_CACHE = 16
_MEMBERS = ("member_object", "member_offset", "member_length", "member_field", "member_crc")
_Array = Any


@dataclass(frozen=True, slots=True)
class IndexFolder:
    """Where a node keeps index files: beside the cache, with a limit of their own. Pickles.

    Attributes:
        directory: It need not exist.
        budget_bytes: Of all files together; the ones used longest ago go first.
    """

    directory: str
    budget_bytes: int

    @classmethod
    def beside(cls, client: Client) -> IndexFolder | None:
        """Return the folder in a client's cache directory, for a sixteenth of its capacity; None without a cache."""
        store = client.store
        if store is None or store.off_reason is not None:
            return None
        return cls(f"{store.directory}/sample-indexes", store.capacity_bytes // _PART_OF_CACHE)

    def path_of(self, *identity: str) -> str:
        """Return the path of an index: of what it is made from, all that it depends on."""
        name = xxh3_64("\0".join((str(_VERSION), *identity)).encode()).hexdigest()
        return f"{self.directory}/{name}-{identity[0][:16]}.index"

    def load(self, path: str, root: RepositoryRoot) -> SampleIndex | None:
        """Return the index of a file, None if there is none that can be used."""
        try:
            index = open_index(path, root, folder=self)
        except FileNotFoundError:
            return None
        except (MissingIndexError, OSError) as error:
            _log.warning("sample index made anew path=%s reason=%s", path, error)
            return None
        with suppress(OSError):  # it may be another user's
            os.utime(path)  # used now
        return index

    def save(self, path: str, index: SampleIndex) -> bool:
        """Keep an index; False if it is larger than the budget, or the disk does not take it."""
        size = sum(array.nbytes for array in _arrays_of(index).values())
        if size > self.budget_bytes:
            return False
        try:
            os.makedirs(self.directory, exist_ok=True)
            write_index(path, index)
            self._shrink(keep=path)
        except OSError as error:
            _log.warning("sample index not kept path=%s reason=%s", path, error)
            return False
        return True

    def _shrink(self, *, keep: str) -> None:
        files = []
        for path in Path(self.directory).iterdir():
            with suppress(FileNotFoundError):  # another process shrinks too
                stat = path.stat()
                files.append((str(path) == keep, stat.st_mtime_ns, str(path), stat.st_size))
        total = 0
        for _, _, name, size in sorted(files, reverse=True):
            total += size
            if total > self.budget_bytes and name != keep:
                with suppress(FileNotFoundError):
                    os.unlink(name)


def write_index(path: str, index: SampleIndex) -> None:
    """Write an index so that it appears whole or not at all, also when the machine goes down.

    Raises:
        OSError: If the disk does not take it; nothing is left behind.
    """
    arrays = _arrays_of(index)
    header = {
        "version": _VERSION,
        "bytes": 0,
        "digest": "",
        "fields": index.fields,
        "skipped": index.skipped,
        "fingerprint": index.fingerprint,
        "fields_of_each": index.fields_of_each,
        "arrays": {name: [array.dtype.str, len(array), 0] for name, array in arrays.items()},
    }
    _place(header, arrays)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".new-")
    try:
        with open(handle, "wb") as file:
            digest = xxh3_64()
            for name, array in arrays.items():
                file.seek(header["arrays"][name][2])  # type: ignore[index]
                data = np.ascontiguousarray(array).data.cast("B") if len(array) else b""
                file.write(data)
                digest.update(data)
            header["digest"] = digest.hexdigest()
            text = _text_of(header)
            file.truncate(header["bytes"])  # type: ignore[arg-type]
            file.seek(0)
            file.write(_HEAD.pack(_MAGIC, len(text), xxh3_64_intdigest(text)) + text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def open_index(
    path: str, root: RepositoryRoot, *, folder: IndexFolder | None = None, check: bool = True
) -> SampleIndex:
    """Map the index of a file: nothing of it is copied, processes share its memory.

    Args:
        path: The file.
        root: The repository that its commit lies in.
        folder: See `SampleIndex`.
        check: Compare the arrays with their checksum; a tenth of a second for ten million samples.

    Raises:
        FileNotFoundError: If there is no such file.
        MissingIndexError: If it cannot be used.
    """
    from loaders.samples import SampleIndex

    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < _HEAD.size:
            raise MissingIndexError(f"{path} is no sample index: it has {size} bytes", path=path)
        mapped = memoryview(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ))
    header = _read_header(path, mapped)
    found: dict[str, _Array] = {
        name: np.frombuffer(mapped, np.dtype(kind), count, offset)
        for name, (kind, count, offset) in header["arrays"].items()
    }
    if check and _digest_of(found) != header["digest"]:
        raise MissingIndexError(f"the arrays of {path} differ from their checksum", path=path)
    text, begins = (pa.py_buffer(found[name]) for name in ("key_bytes", "key_starts"))
    objects = pa.ipc.open_stream(pa.py_buffer(found["objects"])).read_all()
    index = SampleIndex(
        keys=cast("pa.LargeStringArray", pa.LargeStringArray.from_buffers(len(found["key_starts"]) - 1, begins, text)),
        starts=found["starts"],
        **{name: found[name] for name in _MEMBERS},
        fields=tuple(header["fields"]),
        objects=ObjectTable(objects, root),
        skipped=header["skipped"],
        path=path,
        folder=folder,
    )
    vars(index).update(fingerprint=header["fingerprint"], fields_of_each=header["fields_of_each"])
    return index


def _read_header(path: str, mapped: memoryview) -> dict[str, Any]:
    magic, length, digest = _HEAD.unpack_from(mapped)
    text = mapped[_HEAD.size : _HEAD.size + length] if magic == _MAGIC else b""
    if magic != _MAGIC or xxh3_64_intdigest(text) != digest:
        raise MissingIndexError(f"{path} is no sample index, or its header is damaged", path=path)
    header: dict[str, Any] = json.loads(bytes(text))
    if header["version"] != _VERSION or header["bytes"] != len(mapped):
        raise MissingIndexError(
            f"{path} is of version {header['version']} and has {len(mapped)} of {header['bytes']} bytes;"
            f" version {_VERSION} is read",
            path=path,
        )
    return header


def _arrays_of(index: SampleIndex) -> dict[str, npt.NDArray[Any]]:
    begins, text = index.key_bytes
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, index.objects.table.schema) as writer:
        writer.write_table(index.objects.table)
    return {
        "starts": index.starts,
        **{name: getattr(index, name) for name in _MEMBERS},
        "key_starts": begins,
        "key_bytes": np.frombuffer(text, np.uint8)[: int(begins[-1])],
        "objects": np.frombuffer(memoryview(sink.getvalue()), np.uint8),
    }


def digest_of(index: SampleIndex) -> str:
    """Return a hash of all that an index says: keys, and which ranges of which versions of which objects."""
    return _digest_of(_arrays_of(index))


def _digest_of(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = xxh3_64()
    for array in arrays.values():
        digest.update(array.data.cast("B") if len(array) else b"")
    return digest.hexdigest()


def _place(header: dict[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Give each array its offset; the header grows with the digits of the numbers, so room is left for them."""
    end = _HEAD.size + len(_text_of(header)) + 24 * (len(arrays) + 2)
    for name, array in arrays.items():
        end = -(-end // _ALIGN) * _ALIGN
        header["arrays"][name][2] = end
        end += array.nbytes
    header["bytes"] = end


def _text_of(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header).encode()
