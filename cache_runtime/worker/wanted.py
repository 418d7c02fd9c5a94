"""What a request for an object's bytes asks for, and the header of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from cache_runtime.errors import ProtocolError
from cache_runtime.protocol import (
    BLOCKS_HEADER,
    REQUEST_HEADER,
    SOURCE_HEADER,
    format_sums,
    parse_flag,
    parse_object,
    parse_range,
    parse_share,
)
from cache_runtime.worker.requests import promised

if TYPE_CHECKING:
    from cache_runtime.protocol import BlockSums, Source
    from cache_runtime.store.shares import Share
    from cache_runtime.worker.node import Node
    from sources import ObjectRef

_MAX_FIELDS = 32


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one request asks for; `status` is that of its answer, if all goes well."""

    ref: ObjectRef
    offset: int
    length: int
    fill: bool
    share: Share
    status: int

    def header(self, source: Source, sums: BlockSums | None, *, request_id: str) -> dict[str, str]:
        """Return the header of the answer, when its first bytes are from `source`, and `sums` are known."""
        fields = {
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "Content-Length": str(self.length),
            "Server": "forebay",
            SOURCE_HEADER: source.value,
            REQUEST_HEADER: request_id,
        }
        if sums is not None:
            fields[BLOCKS_HEADER] = format_sums(sums)
        if self.status == 206:
            fields["Content-Range"] = f"bytes {self.offset}-{self.offset + self.length - 1}/{self.ref.size}"
        return fields


def read_wanted(node: Node, target: str, wanted_range: str | None) -> Wanted:
    """Check what is asked for.

    Args:
        node: The worker.
        target: Path and query.
        wanted_range: Value of the Range header.

    Raises:
        ProtocolError: If it is malformed.
        SourceConfigError: If the object's store is not one of this worker's.
    """
    ref, fill, share = _parse_target(target)
    node.origins.store_for(ref)
    offset, length = _parse_range(wanted_range, ref.size)
    return Wanted(ref, offset, length, fill, promised(node, share), 200 if wanted_range is None else 206)


@lru_cache(4096)
def _parse_target(target: str) -> tuple[ObjectRef, bool, Share]:
    """Take path and query apart; remembered, because the ranges of one object differ in their header only."""
    path, _, query = target.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise ProtocolError(f"a query has at most {_MAX_FIELDS} fields") from error
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ProtocolError("a field of a query is given once")
    ref = parse_object(path.rpartition("/")[2], fields)
    return ref, parse_flag(fields.get("fill"), "fill", default=True), parse_share(fields)


_parse_range = lru_cache(4096)(parse_range)  # blocks are asked for by the same ranges again and again
