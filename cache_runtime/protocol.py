"""What workers and their callers say to each other: HTTP/1.1 paths, headers and bodies, without a socket.

    GET  /v1/objects/{id}?store=&key=&version=&size=[&fill=0|1][&share=...]   bytes of one object; HEAD likewise
    POST /v1/batch                                                            many ranges, one framed answer
    POST /v1/present | /v1/evict | /v1/load, GET | DELETE /v1/loads[/{id}]    JSON
    GET  /v1/stats | /v1/openapi.json | /metrics | /healthz | /readyz

Who asks names the object (store, key, version, size) and its id, which must be the hash of that name: a worker opens
only the stores it was configured with, and never a URI of a request.

`fill=0` (default of GET: 1): answer from this worker's store only, or `not_cached`. `fill=1`: get it, from its next
candidates' stores (`fill=0`) or the origin, as its owner would. A worker never passes a `fill=1` on to another one, so
no two workers that disagree about the members can send a request in circles.

`Forebay-Blocks: <first>:<crc>,<crc>` (8 hex digits each) are the block checksums that the store keeps, when the range
begins at a block (a small object: is the whole object, whose record's checksum is sent). They cover the blocks known as
the header was sent: all of them for a hit, at least the first one for a miss that is streamed while it is filled; a
HEAD afterwards knows the rest.

An answer that breaks off (fewer bytes than Content-Length) means that the worker failed underway: what came is good.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard
from urllib.parse import urlencode

from cache_runtime.errors import CacheShareError, ProtocolError
from cache_runtime.store.layout import BLOCK_BYTES, BLOCK_SHIFT, SMALL_BYTES, BlockRun, checksum
from cache_runtime.store.shares import Share
from sources import Location, ObjectId, ObjectRef, StoreId, Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Buffer

OBJECTS_PATH = "/v1/objects/"
BATCH_PATH = "/v1/batch"
PRESENT_PATH = "/v1/present"
EVICT_PATH = "/v1/evict"
LOAD_PATH = "/v1/load"
LOADS_PATH = "/v1/loads"
STATS_PATH = "/v1/stats"
OPENAPI_PATH = "/v1/openapi.json"
METRICS_PATH = "/metrics"
HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"

SOURCE_HEADER = "Forebay-Source"
BLOCKS_HEADER = "Forebay-Blocks"
REQUEST_HEADER = "Forebay-Request"
"""Id of a request, chosen by its sender, that appears in the logs of all that it leads to."""
BATCH_TYPE = "application/vnd.forebay.batch"

MAX_BATCH_ITEMS = 4096
MAX_BATCH_BYTES = 64 << 20
"""Most bytes of objects in one batch."""
MAX_PRESENT_PIECES = 65_536
MAX_LOAD_PIECES = 200_000
LOAD_ENDED = frozenset({"done", "failed", "cancelled"})
"""States of a load that are its last; before, it is "waiting" or "running"."""
MAX_NAME_BYTES = 2048
"""Longest store, key and version, each, in UTF-8; S3 allows 1024 bytes for a key."""
MAX_OBJECT_BYTES = 1 << 50
MAX_PIECE_BLOCKS = 16
"""Blocks of a request, at most, for each piece that it may have: a few bytes must not ask for a huge answer."""

BATCH_HEADER = Struct("<BxxxIQ")
"""Before each item of a batch's answer: 0 or 1 (an error, as JSON), crc32c of the object's id and the bytes that follow
(of a whole small object that is its record's checksum; of an error only the bytes), their number."""
_OK, _FAILED = 0, 1

_RANGE = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")
_BLOCKS = re.compile(r"(\d{1,10}):([0-9a-f]{8}(?:,[0-9a-f]{8})*)")
_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"oid:([0-9a-f]{64})")
_ITEM_PARTS = 16  # commas and brackets, on average; a row has 6, and a key may have some more


class Source(StrEnum):
    """Where a worker got the first byte of an answer from: its store, or another worker's or the origin."""

    LOCAL = "local"
    FILLED = "filled"


class ErrorKind(StrEnum):
    """`error.kind` of an error's JSON; new ones may appear, so go by the status for one that you do not know."""

    BAD_REQUEST = "bad_request"  # 400
    ID_MISMATCH = "id_mismatch"  # 400
    UNAUTHORIZED = "unauthorized"  # 401
    STORE_NOT_CONFIGURED = "store_not_configured"  # 403
    NOT_FOUND = "not_found"  # 404: no such path, or no such load
    NOT_CACHED = "not_cached"  # 404: fill=0, and it is not there
    SOURCE_NOT_FOUND = "source_not_found"  # 404: the origin has no such object
    METHOD_NOT_ALLOWED = "method_not_allowed"  # 405
    REQUEST_TIMEOUT = "request_timeout"  # 408: the body came too slowly
    SOURCE_CHANGED = "source_changed"  # 409: the origin has another version
    TOO_LARGE = "too_large"  # 413
    RANGE = "range"  # 416
    OVERLOADED = "overloaded"  # 429: this request is over a limit for now; Retry-After
    INTERNAL = "internal"  # 500
    SOURCE_FAILED = "source_failed"  # 502: the origin refuses, or its bytes are wrong
    SOURCE_UNAVAILABLE = "source_unavailable"  # 502: the origin cannot be reached
    UNAVAILABLE = "unavailable"  # 503: draining, store off, too many connections; Retry-After
    TIMEOUT = "timeout"  # 504: the fill took too long


class BlockSums(NamedTuple):
    """Checksums of neighbouring blocks from `first` on."""

    first: int
    crcs: tuple[int, ...]


class Piece(NamedTuple):
    """Blocks of an object; a small object has the one block 0."""

    ref: ObjectRef
    run: BlockRun


class BatchRequest(NamedTuple):
    """What a batch asks for; see `encode_batch`."""

    items: list[Location]
    fill: bool
    bodies: bool
    share: Share


class BatchAnswer(NamedTuple):
    """One item's answer: its bytes and their checksum, or an error and no bytes."""

    data: memoryview
    crc: int
    error: PeerFailure | None


class EvictRequest(NamedTuple):
    """What to evict: one of these is not None."""

    ids: list[ObjectId] | None
    share: str | None
    need_bytes: int | None


class PeerFailure(NamedTuple):
    """An error as a worker tells it."""

    kind: str
    message: str


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
    ref = _make_ref([query.get("store"), query.get("key"), query.get("version"), _number(query.get("size"), "size")])
    if ref.id.hex() != object_id:
        raise ProtocolError("the id is not that of store, key and version", kind=ErrorKind.ID_MISMATCH)
    return ref


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


def parse_flag(value: str | None, name: str, *, default: bool) -> bool:
    """Return a query's `0` or `1`.

    Raises:
        ProtocolError: If it is something else.
    """
    if value not in (None, "0", "1"):
        raise ProtocolError(f"{name} is 0 or 1")
    return default if value is None else value == "1"


def format_range(offset: int, length: int) -> str:
    """Return the value of a Range header; `length` is not 0."""
    return f"bytes={offset}-{offset + length - 1}"


def parse_range(value: str | None, size: int) -> tuple[int, int]:
    """Return offset and length of what a Range header selects of `size` bytes; all of it without one.

    Raises:
        ProtocolError: If it is no single range of bytes (`bad_request`) or selects nothing (`range`).
    """
    if value is None:
        return 0, size
    match = _RANGE.fullmatch(value.strip())
    if match is None or match.group(1) is None is match.group(2):
        raise ProtocolError("only one range can be asked for: `bytes=first-last`, both included")
    if match.group(1) is None:
        offset, end = max(0, size - int(match.group(2))), size
    else:
        offset, end = int(match.group(1)), min(size, int(match.group(2) or size) + 1)
        if match.group(2) is not None and int(match.group(2)) < offset:
            raise ProtocolError("the range ends before it begins")
    if offset >= end:
        raise ProtocolError(f"the range is outside of the object, which has {size} bytes", kind=ErrorKind.RANGE)
    return offset, end - offset


def blocks_of(size: int, offset: int, length: int) -> BlockRun:
    """Return the blocks that a range of an object touches; a small object has the one block 0."""
    if size <= SMALL_BYTES:
        return BlockRun(0, 0)
    return BlockRun(offset >> BLOCK_SHIFT, (offset + length - 1) >> BLOCK_SHIFT)


def covers_blocks(size: int, offset: int, length: int) -> bool:
    """Say whether a range consists of whole blocks, so that their checksums can be sent with it."""
    if size <= SMALL_BYTES:
        return (offset, length) == (0, size)
    return offset % BLOCK_BYTES == 0 and (length % BLOCK_BYTES == 0 or offset + length == size)


def format_sums(sums: BlockSums) -> str:
    """Return the value of a Forebay-Blocks header."""
    return f"{sums.first}:{','.join(format(crc, '08x') for crc in sums.crcs)}"


def parse_sums(value: str | None) -> BlockSums | None:
    """Return what a Forebay-Blocks header says; None without one.

    Raises:
        ProtocolError: If it is malformed.
    """
    if value is None:
        return None
    match = _BLOCKS.fullmatch(value)
    if match is None:
        raise ProtocolError(f"{BLOCKS_HEADER} is malformed")
    return BlockSums(int(match.group(1)), tuple(int(crc, 16) for crc in match.group(2).split(",")))


def encode_batch(items: Sequence[Location], *, fill: bool, bodies: bool = True, share: Share | None = None) -> bytes:
    """Write the body of a batch: `{"fill": ..., ..., "items": [[store, key, version, size, offset, length], ...]}`.

    Args:
        items: At most `MAX_BATCH_ITEMS`, of `MAX_BATCH_BYTES` bytes in all: who asks for more, sends several.
        fill: Whether the worker is to get what it does not have.
        bodies: False: the worker is to get and keep them; each answer then has no bytes.
        share: For what it fills.
    """
    rows = [[*_name(item.object), item.offset, item.length] for item in items]
    return _dump({"fill": fill, "bodies": bodies, **share_fields(share), "items": rows})


def decode_batch(body: bytes) -> BatchRequest:
    """Read the body of a batch.

    Raises:
        ProtocolError: If it is malformed or over a limit, or a range is outside of its object or empty.
    """
    document = _load(body, limit=MAX_BATCH_ITEMS)
    items = [_location(row) for row in _rows(document, "items", width=6, limit=MAX_BATCH_ITEMS)]
    if sum(item.length for item in items) > MAX_BATCH_BYTES:
        raise ProtocolError(f"a batch has at most {MAX_BATCH_BYTES} bytes", kind=ErrorKind.TOO_LARGE)
    fill, bodies = document.get("fill", True), document.get("bodies", True)
    if not isinstance(fill, bool) or not isinstance(bodies, bool):
        raise ProtocolError("`fill` and `bodies` are true or false")
    return BatchRequest(items, fill, bodies, parse_share(document))


def frame_item(object_id: bytes, data: Buffer) -> bytes:
    """Return what goes before the bytes of a batch's item."""
    view = memoryview(data)
    # bytes as a whole are summed up in half the time: no array has to be made of them
    whole = view.obj if type(view.obj) is bytes and len(view.obj) == view.nbytes else view
    return BATCH_HEADER.pack(_OK, checksum(whole, object_id), view.nbytes)


def frame_failure(failure: PeerFailure) -> bytes:
    """Return the answer of an item that failed, its header included."""
    body = _dump(error_document(*failure))
    return BATCH_HEADER.pack(_FAILED, checksum(body), len(body)) + body


def split_batch(body: Buffer, items: Sequence[Location], *, bodies: bool = True) -> Iterator[BatchAnswer]:
    """Take the answer of a batch apart, in the order of its items; the bytes are slices of it.

    Give it the `items` and `bodies` that the batch was encoded with.

    Raises:
        ProtocolError: Where it is malformed, ends too early or its bytes fail their check; what came before is good.
    """
    view = memoryview(body).cast("B").toreadonly()
    start = 0
    for item in items:
        if len(view) - start < BATCH_HEADER.size:
            raise ProtocolError("the answer to a batch ends too early")
        status, crc, length = BATCH_HEADER.unpack_from(view, start)
        start += BATCH_HEADER.size
        data = view[start : start + length]
        start += length
        if len(data) != length or (status == _OK and length != item.length * bodies):
            raise ProtocolError("the answer to a batch ends too early, or has another item's length")
        if checksum(data, item.object.id if status == _OK else b"") != crc:
            raise ProtocolError("the answer to a batch failed its check")
        yield BatchAnswer(data, crc, None) if status == _OK else BatchAnswer(view[:0], crc, parse_error(bytes(data)))


def encode_pieces(pieces: Sequence[tuple[ObjectRef, BlockRun]], **fields: object) -> bytes:
    """Write `{..., "pieces": [[store, key, version, size, first, last], ...]}`: the body of present and of load."""
    return _dump({**fields, "pieces": [[*_name(ref), run.first, run.last] for ref, run in pieces]})


def decode_pieces(body: bytes, *, limit: int) -> tuple[list[Piece], dict[str, Any]]:
    """Read the body of present or of load; return its pieces and its other fields, unchecked.

    Raises:
        ProtocolError: If it is malformed or has more than `limit` pieces or `MAX_PIECE_BLOCKS` times as many blocks,
            or a piece is outside of its object.
    """
    document = _load(body, limit=limit)
    pieces = [_piece(row) for row in _rows(document, "pieces", width=6, limit=limit)]
    if sum(run.last + 1 - run.first for _, run in pieces) > limit * MAX_PIECE_BLOCKS:
        raise ProtocolError(f"at most {limit * MAX_PIECE_BLOCKS} blocks in one request", kind=ErrorKind.TOO_LARGE)
    return pieces, {name: value for name, value in document.items() if name != "pieces"}


def encode_evict(
    *, ids: Sequence[bytes] | None = None, share: str | None = None, need_bytes: int | None = None
) -> bytes:
    """Write the body of evict: one of some objects, all of a share, or so many bytes of what is least wanted."""
    if ids is not None:
        return _dump({"ids": [object_id.hex() for object_id in ids]})
    return _dump({"share": share} if share is not None else {"bytes": need_bytes})


def decode_evict(body: bytes) -> EvictRequest:
    """Read the body of evict.

    Raises:
        ProtocolError: If it is malformed, or names none or several of the three.
    """
    document = _load(body, limit=MAX_PRESENT_PIECES)
    ids, share, need_bytes = (document.get(name) for name in ("ids", "share", "bytes"))
    if sum(given is not None for given in (ids, share, need_bytes)) != 1:
        raise ProtocolError("give one of `ids`, `share` and `bytes`")
    if ids is not None:
        if not isinstance(ids, list) or not all(isinstance(one, str) and _ID.fullmatch(one) for one in ids):
            raise ProtocolError("`ids` is a list of objects' ids, 32 hexadecimal digits each")
        if len(ids) > MAX_PRESENT_PIECES:
            raise ProtocolError(f"at most {MAX_PRESENT_PIECES} ids in one request", kind=ErrorKind.TOO_LARGE)
        return EvictRequest([ObjectId(bytes.fromhex(one)) for one in ids], None, None)
    if share is not None:
        return EvictRequest(None, parse_share({"share": share}).name, None)
    if type(need_bytes) is not int or not 0 < need_bytes <= MAX_OBJECT_BYTES:
        raise ProtocolError("`bytes` is a number of bytes, and not 0")
    return EvictRequest(None, None, need_bytes)


def error_document(kind: str, message: str) -> dict[str, dict[str, str]]:
    """Return an error as its JSON document."""
    return {"error": {"kind": kind, "message": message}}


def parse_error(body: bytes) -> PeerFailure:
    """Return the error that a body tells; one of kind "internal" where it tells none, as a proxy's page."""
    try:
        error = json.loads(body)["error"]
        return PeerFailure(str(error["kind"]), str(error["message"])[:2000])
    except (ValueError, KeyError, TypeError, RecursionError):
        return PeerFailure(ErrorKind.INTERNAL, body[:200].decode("utf-8", "replace"))


def _name(ref: ObjectRef) -> list[str | int]:
    return [ref.store, ref.key, ref.version, ref.size]


def _make_ref(row: Sequence[object]) -> ObjectRef:
    store, key, version, size = row
    if not (_is_name(store) and _is_name(key) and _is_name(version)):
        raise ProtocolError(f"store, key and version are texts of 1 to {MAX_NAME_BYTES} bytes")
    if "\0" in store or "\0" in key or "\0" in version:  # it parts them in what the id is the hash of
        raise ProtocolError("no store, key or version has a NUL in it")
    if version.startswith("oid:") and not _is_named_by_hash(key, version):
        raise ProtocolError("an object whose version is the hash of its bytes has that hash in its name")
    if type(size) is not int or not 0 < size <= MAX_OBJECT_BYTES:
        raise ProtocolError("size is the object's whole length in bytes, and not 0")
    try:
        return ObjectRef(StoreId(store), key, Version(version), size)
    except UnicodeEncodeError as error:  # lone surrogates, which JSON can write
        raise ProtocolError("store, key and version are Unicode texts") from error


def _is_named_by_hash(key: str, version: str) -> bool:
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


def _location(row: Sequence[object]) -> Location:
    ref, (offset, length) = _make_ref(row[:4]), row[4:]
    if type(offset) is not int or type(length) is not int or offset < 0 or not 0 < length <= ref.size - offset:
        raise ProtocolError("an item's range is outside of its object, or empty")
    return Location(ref, offset, length)


def _piece(row: Sequence[object]) -> Piece:
    ref, (first, last) = _make_ref(row[:4]), row[4:]
    end = blocks_of(ref.size, 0, ref.size).last
    if type(first) is not int or type(last) is not int or not 0 <= first <= last <= end:
        raise ProtocolError("a piece's blocks are outside of its object")
    return Piece(ref, BlockRun(first, last))


def _rows(document: Mapping[str, Any], name: str, *, width: int, limit: int) -> list[list[Any]]:
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


def _number(value: str | None, name: str) -> int:
    if value is None or not re.fullmatch(r"[0-9]{1,18}", value):
        raise ProtocolError(f"{name} is a number of bytes")
    return int(value)


def _load(body: bytes, *, limit: int) -> dict[str, Any]:
    """Read a JSON object that is a list of at most `limit` items and little else."""
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


def _dump(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
