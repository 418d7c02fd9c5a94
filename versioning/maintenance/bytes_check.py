"""Whether the bytes of packs and blobs are what leaves say: each object against its id, each file against its sums."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from blake3 import blake3

from sources import SourceChangedError, SourceNotFoundError, SourceUnavailableError
from versioning.entries import EntryKind
from versioning.maintenance.findings import Finding, FindingKind, Findings
from versioning.maintenance.ids import IdSet, ids_of, ids_of_hex
from versioning.maintenance.journals import Checked, Journal
from versioning.maintenance.leaves import Need, own_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Buffer

    from sources import RepositoryStore
    from versioning.nodes import Node

_OBJECTS_AT_ONCE = 4  # each may hold a whole pack of 64 MiB in memory
_WHOLE_BYTES = 256 << 20
_SLICE_BYTES = 16 << 20
_FEW_ROWS = 8
_KEY = re.compile(r"(packs|blobs)/[0-9a-f]{2}/[0-9a-f]{64}(\.tar)?")  # of others, the check of the leaf tells


class BytesCheck:
    """Reads what leaves name and compares it. Files that were compared once are not read again for another leaf.

    Args:
        store: Holds the repository.
        prefix: Its prefix.
        journal: Remembers which objects were good.
        findings: Where findings go.
        on_bytes: Called with the number of bytes read.

    Attributes:
        bytes: How many were read.
    """

    def __init__(
        self,
        store: RepositoryStore,
        prefix: str,
        *,
        journal: Journal,
        findings: Findings,
        on_bytes: Callable[[int], None],
    ) -> None:
        self.bytes = 0
        self._store = store
        self._prefix = prefix
        self._journal = journal
        self._findings = findings
        self._on_bytes = on_bytes
        self._files = IdSet()

    def check(self, leaf: Node, need: Need) -> bool:
        """Compare all files of a leaf whose bytes lie in the repository."""
        before = self._findings.count
        rows = own_rows(leaf).select(["path", "kind", "size", "oid", "crc32c", "key", "offset", "object_size"])
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in self._unchecked([row for row in rows.to_pylist() if _KEY.fullmatch(row["key"])]):
            groups.setdefault(row["key"], []).append(row)
        with ThreadPoolExecutor(_OBJECTS_AT_ONCE, "forebay-fsck") as pool:
            good = list(pool.map(lambda each: self._check_object(each[0], each[1], need), groups.items()))
        names = [key for key, is_good in zip(groups, good, strict=True) if is_good]
        self._journal.add(Checked.OBJECT, ids_of_hex(map(_hash_in, names)))
        self._on_bytes(self.bytes)
        return self._findings.count == before

    def _unchecked(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not rows:
            return []
        texts = (f"{row['key']} {row['offset']} {row['size']} {row['oid']} {row['crc32c']}" for row in rows)
        new = self._files.add(ids_of(blake3(text.encode()).digest() for text in texts))
        return [row for row, is_new in zip(rows, new, strict=True) if is_new]

    def _check_object(self, key: str, rows: list[dict[str, Any]], need: Need) -> bool:
        """Compare an object and its files; say whether the object as a whole was read and is good."""
        known = bool(self._journal.contains(Checked.OBJECT, ids_of_hex([_hash_in(key)]))[0])
        try:
            if rows[0]["kind"] == EntryKind.BLOB or rows[0]["object_size"] > _WHOLE_BYTES:
                return self._check_stream(key, rows, need)
            if known and len(rows) <= _FEW_ROWS:
                for row in rows:
                    self._check_file(row, self._read(key, row["offset"], row["size"]), need)
                return True
            data = memoryview(self._read(key, 0, rows[0]["object_size"]))
        except (SourceNotFoundError, SourceChangedError, SourceUnavailableError) as error:
            if isinstance(error, SourceUnavailableError) and getattr(error, "retryable", True):
                raise
            return False  # missing or short: the check of the leaf has found that
        is_good = self._is_named(key, blake3(data).hexdigest(), rows[0], need)
        for row in rows:
            self._check_file(row, data[row["offset"] : row["offset"] + row["size"]], need)
        return is_good

    def _check_stream(self, key: str, rows: list[dict[str, Any]], need: Need) -> bool:
        """Compare an object that is too large to hold; its files are read one by one, unless it is one file."""
        size, hasher, crc32c = rows[0]["object_size"], blake3(), 0
        for start in range(0, size, _SLICE_BYTES):
            data = memoryview(self._read(key, start, min(_SLICE_BYTES, size - start)))
            part: Any = np.frombuffer(data, np.uint8)  # the checksum's extension takes no memoryview
            hasher.update(part)
            crc32c = google_crc32c.extend(crc32c, part)
        for row in rows:
            if row["offset"] == 0 and row["size"] == size:
                self._compare(row, hasher.digest(), crc32c, need)
            elif row["size"] <= _WHOLE_BYTES:
                self._check_file(row, self._read(key, row["offset"], row["size"]), need)
        return self._is_named(key, hasher.hexdigest(), rows[0], need)

    def _check_file(self, row: Mapping[str, Any], data: Buffer, need: Need) -> None:
        view = memoryview(data)
        self._compare(row, blake3(view).digest(), google_crc32c.value(bytes(view)), need)

    def _compare(self, row: Mapping[str, Any], oid: bytes, crc32c: int, need: Need) -> None:
        wrong = [
            name
            for name, expected, found in (("oid", row["oid"], oid), ("crc32c", row["crc32c"], crc32c))
            if expected is not None and expected != found
        ]
        if wrong:
            detail = f"the bytes of {row['path']} do not match its {' and '.join(wrong)}"
            found = Finding(FindingKind.DAMAGED, row["key"], detail, need.ref, need.commit, row["path"])
            self._findings.add(found)

    def _is_named(self, key: str, found: str, row: Mapping[str, Any], need: Need) -> bool:
        if found == _hash_in(key):
            return True
        detail = "its bytes do not match its name"
        self._findings.add(Finding(FindingKind.DAMAGED, key, detail, need.ref, need.commit, row["path"]))
        return False

    def _read(self, key: str, start: int, length: int) -> Buffer:
        data = self._store.read(self._prefix + key, start=start, length=length, version=None) if length else b""
        self.bytes += length
        return data


def _hash_in(key: str) -> str:
    """Return the hash in the key of a pack or blob."""
    return key.rpartition("/")[2].removesuffix(".tar")
