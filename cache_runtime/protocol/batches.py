"""`POST /v1/batch`: many ranges asked for at once, and one answer of frames."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.errors import ProtocolError
from cache_runtime.protocol.documents import dump, load, make_ref, parse_share, rows_of, share_fields
from cache_runtime.protocol.failures import ErrorKind, PeerFailure, error_document, parse_error
from cache_runtime.protocol.paths import MAX_BATCH_BYTES, MAX_BATCH_ITEMS
from cache_runtime.store.layout import checksum, checksums_in
from sources import Location

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

    from cache_runtime.store.shares import Share

BATCH_HEADER = Struct("<4s16sII4x")
"""Before each item of a batch's answer: `FBR1`, or `FBRE` for an error, as JSON; the object's id; the number of bytes
that follow; crc32c of the id and those bytes. It is a record's header, so that a record is sent as it lies on disk."""
_OK, _FAILED = b"FBR1", b"FBRE"


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


def encode_batch(items: Sequence[Location], *, fill: bool, bodies: bool = True, share: Share | None = None) -> bytes:
    """Write the body of a batch: `{"fill": ..., ..., "items": [[store, key, version, size, offset, length], ...]}`.

    Args:
        items: At most `MAX_BATCH_ITEMS`, of `MAX_BATCH_BYTES` bytes in all: who asks for more, sends several.
        fill: Whether the worker is to get what it does not have.
        bodies: False: the worker is to get and keep them; each answer then has no bytes.
        share: For what it fills.
    """
    rows = [
        (ref.store, ref.key, ref.version, ref.size, item.offset, item.length)
        for item in items
        for ref in (item.object,)
    ]
    return dump({"fill": fill, "bodies": bodies, **share_fields(share), "items": rows})


def decode_batch(body: bytes) -> BatchRequest:
    """Read the body of a batch.

    Raises:
        ProtocolError: If it is malformed or over a limit, or a range is outside of its object or empty.
    """
    document = load(body, limit=MAX_BATCH_ITEMS)
    items = [_location(row) for row in rows_of(document, "items", width=6, limit=MAX_BATCH_ITEMS)]
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
    return BATCH_HEADER.pack(_OK, object_id, view.nbytes, checksum(whole, object_id))


def frame_failure(object_id: bytes, failure: PeerFailure) -> bytes:
    """Return the answer of an item that failed, its header included."""
    body = dump(error_document(*failure))
    return BATCH_HEADER.pack(_FAILED, object_id, len(body), checksum(body, object_id)) + body


def split_batch(body: Buffer, items: Sequence[Location], *, bodies: bool = True) -> Iterator[BatchAnswer]:
    """Take the answer of a batch apart, in the order of its items; the bytes are slices of it.

    Give it the `items` and `bodies` that the batch was encoded with.

    Raises:
        ProtocolError: Where it is malformed, ends too early or its bytes fail their check; what came before is good.
    """
    view = memoryview(body).cast("B").toreadonly()
    crc_of = checksums_in(view)
    unpack, header, start = BATCH_HEADER.unpack_from, BATCH_HEADER.size, 0
    for item in items:
        data_start = start + header
        if len(view) < data_start:
            raise ProtocolError("the answer to a batch ends too early")
        magic, object_id, length, crc = unpack(view, start)
        start = data_start + length
        if len(view) < start or object_id != item.object.id:
            raise ProtocolError("the answer to a batch ends too early, or has another item")
        if crc_of(data_start, start, object_id) != crc:
            raise ProtocolError("the answer to a batch failed its check")
        if magic == _OK:
            if length != (item.length if bodies else 0):
                raise ProtocolError("the answer to a batch has another item's length")
            yield BatchAnswer(view[data_start:start], crc, None)
        elif magic == _FAILED:
            yield BatchAnswer(view[:0], crc, parse_error(bytes(view[data_start:start])))
        else:
            raise ProtocolError("the answer to a batch is in a format that is not known here")


def _location(row: Sequence[object]) -> Location:
    ref, (offset, length) = make_ref(row[:4]), row[4:]
    if type(offset) is not int or type(length) is not int or offset < 0 or not 0 < length <= ref.size - offset:
        raise ProtocolError("an item's range is outside of its object, or empty")
    return Location(ref, offset, length)
