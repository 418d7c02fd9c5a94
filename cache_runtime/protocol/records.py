"""Batches of whole small objects, the usual ones, read without an `ObjectRef` for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from cache_runtime.errors import ProtocolError
from cache_runtime.protocol.documents import is_named_by_hash, load, parse_share
from cache_runtime.protocol.paths import MAX_BATCH_ITEMS, MAX_NAME_BYTES
from sources import ObjectId, ObjectRef, StoreId, Version, object_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache_runtime.store.shares import Share


class WholeObjects(NamedTuple):
    """What a batch asks for, a column for each part of the names: all of some objects."""

    ids: list[ObjectId]
    stores: Sequence[str]
    keys: Sequence[str]
    versions: Sequence[str]
    sizes: Sequence[int]
    share: Share

    def ref(self, number: int) -> ObjectRef:
        """Return one of the objects."""
        store, version = StoreId(self.stores[number]), Version(self.versions[number])
        return ObjectRef(store, self.keys[number], version, self.sizes[number])


def read_whole_objects(body: bytes) -> WholeObjects | None:
    """Read the body of a batch that asks for nothing but whole objects, with their bytes.

    Returns:
        None for any other one, and for one that is not as it should be: `decode_batch` reads it, or says what is wrong.
    """
    try:
        document = load(body, limit=MAX_BATCH_ITEMS)
        share = parse_share(document)
    except ProtocolError:
        return None
    rows = document.get("items")
    if not _is_table(rows) or type(document.get("fill", True)) is not bool or document.get("bodies", True) is not True:
        return None
    stores, keys, versions, sizes, offsets, lengths = zip(*rows, strict=True)
    if {*map(type, sizes + offsets + lengths)} != {int} or any(offsets) or sizes != lengths or min(sizes) <= 0:
        return None
    names = stores + keys + versions
    if {*map(type, names)} != {str} or not all(names) or 4 * max(map(len, names)) > MAX_NAME_BYTES:  # 4 for a character
        return None
    text = "\n".join(names)
    if "\0" in text or ("oid:" in text and not all(map(_is_named, keys, versions))):
        return None
    try:
        ids = list(map(object_id, stores, keys, versions))
    except UnicodeEncodeError:
        return None
    return WholeObjects(ids, stores, keys, versions, sizes, share)


def _is_table(rows: object) -> TypeGuard[list[list[Any]]]:
    return type(rows) is list and {*map(type, rows)} == {list} and {*map(len, rows)} == {6}


def _is_named(key: str, version: str) -> bool:
    return not version.startswith("oid:") or is_named_by_hash(key, version)
