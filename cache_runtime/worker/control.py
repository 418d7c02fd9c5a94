"""The small JSON requests: present, evict, loads, stats, health, metrics, description."""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from cache_runtime.errors import ProtocolError, WorkerBusyError
from cache_runtime.protocol import (
    MAX_LOAD_PIECES,
    MAX_PRESENT_PIECES,
    ErrorKind,
    Piece,
    decode_evict,
    decode_pieces,
    parse_share,
)
from cache_runtime.store.layout import join_blocks
from cache_runtime.worker.answers import REQUEST_ID, json_answer
from cache_runtime.worker.interfaces import LoadRequest
from cache_runtime.worker.openapi import describe
from cache_runtime.worker.requests import decoded, last_segment, promised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache_runtime.store.layout import BlockRun
    from cache_runtime.worker.interfaces import LoadJobs
    from cache_runtime.worker.node import Node

_LOAD_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAX_DEADLINE_SECONDS = 30 * 86400.0


async def post_present(node: Node, request: web.BaseRequest) -> web.Response:
    """Tell which blocks of which pieces are not here."""
    return json_answer({"missing": await decoded(node, request, _find_missing)})


def _find_missing(node: Node, body: bytes) -> list[list[BlockRun]]:
    pieces, _ = decode_pieces(body, limit=MAX_PRESENT_PIECES)
    wanted = [(ref, range(run.first, run.last + 1)) for ref, run in pieces]
    gone: list[list[BlockRun]] = []
    for start in range(0, len(wanted), 2048):  # others wait for a snapshot's end
        found = node.store.missing_among(wanted[start : start + 2048])
        gone += [list(join_blocks(missing, limit=len(missing))) for missing in found]
    return gone


async def post_evict(node: Node, request: web.BaseRequest) -> web.Response:
    """Give room back."""
    return json_answer({"freed_bytes": await decoded(node, request, _evict)})


def _evict(node: Node, body: bytes) -> int:
    return node.evict(decode_evict(body))


async def post_load(node: Node, request: web.BaseRequest) -> web.Response:
    """Start a load, or find it again."""
    loads = _loads_of(node)
    node.refuse_if_leaving()
    pieces, fields = await decoded(node, request, _decode_load)
    status = await node.on_disk(loads.submit, _make_load(node, pieces, fields, request_id=request[REQUEST_ID]))
    return json_answer(status, status=202)


def _decode_load(node: Node, body: bytes) -> tuple[Sequence[Piece], dict[str, Any]]:
    pieces, fields = decode_pieces(body, limit=MAX_LOAD_PIECES)
    for piece in pieces:
        node.origins.store_for(piece.ref)
    return pieces, fields


def _make_load(node: Node, pieces: Sequence[Piece], fields: dict[str, Any], *, request_id: str) -> LoadRequest:
    load_id, deadline = fields.get("id"), fields.get("deadline_seconds")
    if not isinstance(load_id, str) or not _LOAD_ID.fullmatch(load_id):
        raise ProtocolError("`id` has 1 to 64 letters, digits, dots, dashes and underscores")
    if deadline is not None and (type(deadline) not in (int, float) or not 0 < deadline <= _MAX_DEADLINE_SECONDS):
        raise ProtocolError(f"`deadline_seconds` is more than 0, and at most {_MAX_DEADLINE_SECONDS:g}")
    asked = parse_share(fields)
    seconds = None if deadline is None else float(deadline)
    return LoadRequest(load_id, pieces, promised(node, asked), seconds, request_id, asked.priority)


async def get_loads(node: Node, _request: web.BaseRequest) -> web.Response:
    """List the loads."""
    return json_answer({"loads": list(await node.on_disk(_loads_of(node).statuses))})


async def get_load(node: Node, request: web.BaseRequest) -> web.Response:
    """Tell how far a load is."""
    return _load_answer(await node.on_disk(_loads_of(node).find, last_segment(request)))


async def delete_load(node: Node, request: web.BaseRequest) -> web.Response:
    """Cancel a load."""
    return _load_answer(await node.on_disk(_loads_of(node).cancel, last_segment(request)))


def _load_answer(status: object) -> web.Response:
    if status is None:
        raise ProtocolError("no such load; it may be forgotten after a restart", kind=ErrorKind.NOT_FOUND)
    return json_answer(status)


def _loads_of(node: Node) -> LoadJobs:
    if node.loads is None:
        raise WorkerBusyError("this worker takes no loads", kind="unavailable", retry_after_seconds=60)
    return node.loads


async def get_stats(node: Node, _request: web.BaseRequest) -> web.Response:
    """Tell what the worker holds and did."""
    status = await node.on_disk(node.store.status)
    return json_answer(
        {
            "name": node.config.name,
            "url": node.url,
            "pid": os.getpid(),
            "incarnation": node.incarnation,
            "uptime_seconds": round(time.time() - node.started, 3),
            "draining": node.draining,
            "inflight_bytes": node.budget.used_bytes,
            "store": asdict(status),
            "reads": asdict(node.client.stats.snapshot()),
        }
    )


async def get_health(_node: Node, _request: web.BaseRequest) -> web.Response:
    """Say that the process lives."""
    return json_answer({"status": "ok"})


async def get_ready(node: Node, _request: web.BaseRequest) -> web.Response:
    """Say whether to send readers here."""
    node.refuse_if_leaving()
    if node.store.off_reason is not None:
        raise WorkerBusyError("the store is off", kind="unavailable", retry_after_seconds=60)
    return json_answer({"status": "ready"})


async def get_metrics(node: Node, _request: web.BaseRequest) -> web.Response:
    """Return the metrics."""
    text = await node.on_disk(node.metrics.text)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def get_openapi(_node: Node, _request: web.BaseRequest) -> web.Response:
    """Return the description of all this."""
    return json_answer(describe())
