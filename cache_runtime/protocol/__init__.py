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

from cache_runtime.protocol.batches import (
    BATCH_HEADER,
    BatchAnswer,
    BatchRequest,
    decode_batch,
    encode_batch,
    frame_failure,
    frame_item,
    split_batch,
)
from cache_runtime.protocol.documents import parse_share, share_fields
from cache_runtime.protocol.failures import ErrorKind, PeerFailure, error_document, parse_error
from cache_runtime.protocol.objects import object_target, parse_flag, parse_object
from cache_runtime.protocol.paths import (
    BATCH_PATH,
    BATCH_TYPE,
    BLOCKS_HEADER,
    EVICT_PATH,
    HEALTH_PATH,
    LOAD_ENDED,
    LOAD_PATH,
    LOADS_PATH,
    MAX_BATCH_BYTES,
    MAX_BATCH_ITEMS,
    MAX_LOAD_PIECES,
    MAX_NAME_BYTES,
    MAX_OBJECT_BYTES,
    MAX_PIECE_BLOCKS,
    MAX_PRESENT_PIECES,
    METRICS_PATH,
    OBJECTS_PATH,
    OPENAPI_PATH,
    PRESENT_PATH,
    READY_PATH,
    REQUEST_HEADER,
    SOURCE_HEADER,
    STATS_PATH,
    Source,
)
from cache_runtime.protocol.pieces import EvictRequest, Piece, decode_evict, decode_pieces, encode_evict, encode_pieces
from cache_runtime.protocol.ranges import (
    BlockSums,
    blocks_of,
    covers_blocks,
    format_range,
    format_sums,
    parse_range,
    parse_sums,
)
from cache_runtime.protocol.records import WholeObjects, read_whole_objects

__all__ = [
    "BATCH_HEADER",
    "BATCH_PATH",
    "BATCH_TYPE",
    "BLOCKS_HEADER",
    "EVICT_PATH",
    "HEALTH_PATH",
    "LOADS_PATH",
    "LOAD_ENDED",
    "LOAD_PATH",
    "MAX_BATCH_BYTES",
    "MAX_BATCH_ITEMS",
    "MAX_LOAD_PIECES",
    "MAX_NAME_BYTES",
    "MAX_OBJECT_BYTES",
    "MAX_PIECE_BLOCKS",
    "MAX_PRESENT_PIECES",
    "METRICS_PATH",
    "OBJECTS_PATH",
    "OPENAPI_PATH",
    "PRESENT_PATH",
    "READY_PATH",
    "REQUEST_HEADER",
    "SOURCE_HEADER",
    "STATS_PATH",
    "BatchAnswer",
    "BatchRequest",
    "BlockSums",
    "ErrorKind",
    "EvictRequest",
    "PeerFailure",
    "Piece",
    "Source",
    "WholeObjects",
    "blocks_of",
    "covers_blocks",
    "decode_batch",
    "decode_evict",
    "decode_pieces",
    "encode_batch",
    "encode_evict",
    "encode_pieces",
    "error_document",
    "format_range",
    "format_sums",
    "frame_failure",
    "frame_item",
    "object_target",
    "parse_error",
    "parse_flag",
    "parse_object",
    "parse_range",
    "parse_share",
    "parse_sums",
    "read_whole_objects",
    "share_fields",
    "split_batch",
]
