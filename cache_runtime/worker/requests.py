"""Reading requests: bodies with their limits, shares, small JSON documents."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from cache_runtime.errors import ProtocolError
from cache_runtime.protocol import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from cache_runtime.store.shares import Share
    from cache_runtime.worker.node import Node

Result = TypeVar("Result")
_SMALL_BODY_BYTES = 256 << 10  # on all connections together 256 MiB


async def decoded(node: Node, request: web.BaseRequest, decode: Callable[[Node, bytes], Result]) -> Result:
    """Return what `decode` makes of a request's body, in a thread; a large body counts among the bytes in flight.

    Raises:
        ProtocolError: If it is not sent within `body_seconds`, or is not JSON by its type.
        WorkerBusyError: If too many bytes are in flight.
        HTTPRequestEntityTooLarge: If it is over `max_body_bytes`.
    """
    told = request.content_length
    size = node.limits.max_body_bytes if told is None else min(told, node.limits.max_body_bytes)
    with node.budget.holding(size if size > _SMALL_BODY_BYTES else 0):
        return await node.on_disk(decode, node, await _read_body(node, request))


async def _read_body(node: Node, request: web.BaseRequest) -> bytes:
    if request.content_type != "application/json":
        raise ProtocolError("the body is JSON: say so with `Content-Type: application/json`")
    try:
        async with asyncio.timeout(node.limits.body_seconds):
            return await request.read()
    except TimeoutError as error:
        raise ProtocolError("the body came too slowly", kind=ErrorKind.REQUEST_TIMEOUT) from error


def last_segment(request: web.BaseRequest) -> str:
    """Return what is behind the last slash of a path."""
    return request.path.rpartition("/")[2]


def promised(node: Node, share: Share) -> Share:
    """Return a share with what this node promises to it, which goes before what a request says."""
    return node.shares.get(share.name, share)
