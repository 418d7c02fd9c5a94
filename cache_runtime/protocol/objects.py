"""`GET /v1/objects/{id}`: an object named by a path and a query."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from cache_runtime.errors import ProtocolError
from cache_runtime.protocol.documents import make_ref, share_fields
from cache_runtime.protocol.failures import ErrorKind
from cache_runtime.protocol.paths import OBJECTS_PATH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache_runtime.store.shares import Share
    from sources import ObjectRef

_ID = re.compile(r"[0-9a-f]{32}")


def object_target(ref: ObjectRef, *, fill: bool, share: Share | None = None) -> str:
    """Return path and query of one object's bytes.

    Args:
        ref: The object.
        fill: Whether the worker is to get what it does not have.
        share: For what it fills.
    """
    query = {"store": ref.store, "key": ref.key, "version": ref.version, "size": ref.size, "fill": int(fill)}
    return f"{OBJECTS_PATH}{ref.id.hex()}?{urlencode({**query, **share_fields(share)})}"


def parse_object(object_id: str, query: Mapping[str, str]) -> ObjectRef:
    """Return the object that a path's id and a query name.

    Raises:
        ProtocolError: If something is missing, malformed or too long, or the id is another object's.
    """
    if not _ID.fullmatch(object_id):
        raise ProtocolError("an object's id has 32 hexadecimal digits, in lower case")
    ref = make_ref([query.get("store"), query.get("key"), query.get("version"), _number(query.get("size"), "size")])
    if ref.id.hex() != object_id:
        raise ProtocolError("the id is not that of store, key and version", kind=ErrorKind.ID_MISMATCH)
    return ref


def parse_flag(value: str | None, name: str, *, default: bool) -> bool:
    """Return a query's `0` or `1`.

    Raises:
        ProtocolError: If it is something else.
    """
    if value not in (None, "0", "1"):
        raise ProtocolError(f"{name} is 0 or 1")
    return default if value is None else value == "1"


def _number(value: str | None, name: str) -> int:
    if value is None or not re.fullmatch(r"[0-9]{1,18}", value):
        raise ProtocolError(f"{name} is a number of bytes")
    return int(value)
