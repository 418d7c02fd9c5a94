"""JSON bodies, and the names of objects in them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeGuard

from cache_runtime.errors import CacheShareError, ProtocolError
from cache_runtime.protocol.failures import ErrorKind
from cache_runtime.protocol.paths import MAX_NAME_BYTES, MAX_OBJECT_BYTES
from cache_runtime.store.shares import Share
from sources import ObjectRef, StoreId, Version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DIGEST = re.compile(r"oid:([0-9a-f]{64})")
_ITEM_PARTS = 16  # commas and brackets, on average; a row has 6, and a key may have some more
_write = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def share_fields(share: Share | None) -> dict[str, str | int]:
    """Return a share as fields of a query or a body; nothing for the default one."""
    share = share or Share()
    fields: dict[str, str | int | None] = {
        "share": share.name,
        "priority": share.priority,
        "quota_bytes": share.quota_bytes,
        "cycle_bytes": share.cycle_bytes,
    }
    kept = {name: value for name, value in fields.items() if value is not None}
    return {name: value for name, value in kept.items() if value or name == "quota_bytes"}


def parse_share(fields: Mapping[str, Any]) -> Share:
    """Return the share that fields of a query or a body name; the default one without any.

    Raises:
        ProtocolError: If one is malformed.
    """
    name = fields.get("share", "")
    if not isinstance(name, str) or not (name.isprintable() or not name):
        raise ProtocolError("`share` is a name of printable characters")
    priority, quota, cycle = (_whole(fields, name) for name in ("priority", "quota_bytes", "cycle_bytes"))
    try:
        return Share(name, priority or 0, quota, cycle or 0)
    except (CacheShareError, UnicodeEncodeError) as error:
        raise ProtocolError(f"the share is not possible: {error}") from error


def name_row(ref: ObjectRef) -> list[str | int]:
    """Return an object as rows of bodies begin with it."""
    return [ref.store, ref.key, ref.version, ref.size]


def make_ref(row: Sequence[object]) -> ObjectRef:
    """Return the object that store, key, version and size name.

    Raises:
        ProtocolError: If one is malformed.
    """
    store, key, version, size = row
    if not (_is_name(store) and _is_name(key) and _is_name(version)):
        raise ProtocolError(f"store, key and version are texts of 1 to {MAX_NAME_BYTES} bytes")
    if "\0" in store or "\0" in key or "\0" in version:  # it parts them in what the id is the hash of
        raise ProtocolError("no store, key or version has a NUL in it")
    if version.startswith("oid:") and not is_named_by_hash(key, version):
        raise ProtocolError("an object whose version is the hash of its bytes has that hash in its name")
    if type(size) is not int or not 0 < size <= MAX_OBJECT_BYTES:
        raise ProtocolError("size is the object's whole length in bytes, and not 0")
    try:
        return ObjectRef(StoreId(store), key, Version(version), size)
    except UnicodeEncodeError as error:  # lone surrogates, which JSON can write
        raise ProtocolError("store, key and version are Unicode texts") from error


def is_named_by_hash(key: str, version: str) -> bool:
    """Say whether a key is one that this hash's bytes are written under.

    The hash alone is the object's identity, and bytes of a part of it cannot be compared with it: under the name of
    any other object, that one's bytes would be cached as these.
    """
    match = _DIGEST.fullmatch(version)
    return match is not None and key.rpartition("/")[2].removesuffix(".tar") == match.group(1)


def _is_name(value: object) -> TypeGuard[str]:
    if type(value) is not str or not value:
        return False
    # four bytes for a character at most: most need not be encoded to be measured
    return 4 * len(value) <= MAX_NAME_BYTES or len(value.encode("utf-8", "replace")) <= MAX_NAME_BYTES


def rows_of(document: Mapping[str, Any], name: str, *, width: int, limit: int) -> list[list[Any]]:
    """Return a document's list of rows.

    Raises:
        ProtocolError: If it is something else or too long.
    """
    rows = document.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == width for row in rows):
        raise ProtocolError(f"`{name}` is a list of lists of {width}")
    if len(rows) > limit:
        raise ProtocolError(f"at most {limit} {name} in one request", kind=ErrorKind.TOO_LARGE)
    return rows


def _whole(fields: Mapping[str, Any], name: str) -> int | None:
    """Return a field that is a number in a body, and its digits in a query."""
    if name not in fields:
        return None
    value = fields[name]
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        value = int(value)
    if type(value) is not int:
        raise ProtocolError(f"`{name}` is a whole number")
    return value


def load(body: bytes, *, limit: int) -> dict[str, Any]:
    """Read a JSON object that is a list of at most `limit` items and little else.

    Raises:
        ProtocolError: If it is something else.
    """
    # before it is read: two bytes of a body can become a list of sixty
    if sum(map(body.count, (b",", b"[", b"{"))) > (limit + 1) * _ITEM_PARTS:
        raise ProtocolError(f"at most {limit} items in one request", kind=ErrorKind.TOO_LARGE)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("the body is not JSON") from error
    if not isinstance(document, dict):
        raise ProtocolError("the body is a JSON object")
    return document


def dump(document: Mapping[str, object]) -> bytes:
    """Write a JSON body."""
    return _write(document).encode("utf-8", "surrogatepass")
