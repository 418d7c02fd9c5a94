"""Errors as answers: one status and kind for each, JSON always, nothing of the inside of the worker in it."""

from __future__ import annotations

import json
import logging
import re
import time
from random import getrandbits
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from cache_runtime.errors import CacheError, ProtocolError, WorkerBusyError
from cache_runtime.protocol import (
    HEALTH_PATH,
    READY_PATH,
    REQUEST_HEADER,
    ErrorKind,
    PeerFailure,
    error_document,
)
from sources import (
    SourceChangedError,
    SourceConfigError,
    SourceError,
    SourceNotFoundError,
    SourceUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cache_runtime.worker.node import Node

    Handler = Callable[[Node, web.BaseRequest], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
REQUEST_ID = "forebay_request_id"
_OPEN = frozenset({HEALTH_PATH, READY_PATH})  # probes carry no token
STATUS = {
    ErrorKind.BAD_REQUEST: 400,
    ErrorKind.ID_MISMATCH: 400,
    ErrorKind.UNAUTHORIZED: 401,
    ErrorKind.STORE_NOT_CONFIGURED: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.NOT_CACHED: 404,
    ErrorKind.SOURCE_NOT_FOUND: 404,
    ErrorKind.METHOD_NOT_ALLOWED: 405,
    ErrorKind.REQUEST_TIMEOUT: 408,
    ErrorKind.SOURCE_CHANGED: 409,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.RANGE: 416,
    ErrorKind.OVERLOADED: 429,
    ErrorKind.INTERNAL: 500,
    ErrorKind.SOURCE_FAILED: 502,
    ErrorKind.SOURCE_UNAVAILABLE: 502,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.TIMEOUT: 504,
}
_OF_SOURCES = {
    SourceConfigError: ErrorKind.STORE_NOT_CONFIGURED,
    SourceChangedError: ErrorKind.SOURCE_CHANGED,
    SourceNotFoundError: ErrorKind.SOURCE_NOT_FOUND,
    SourceUnavailableError: ErrorKind.SOURCE_UNAVAILABLE,
}


def failure_of(error: Exception) -> PeerFailure:
    """Return what the caller is told of an error."""
    if isinstance(error, ProtocolError | WorkerBusyError):
        return PeerFailure(ErrorKind(error.kind), str(error))
    if isinstance(error, SourceError):
        kind = next((kind for class_, kind in _OF_SOURCES.items() if isinstance(error, class_)), None)
        return PeerFailure(kind or ErrorKind.SOURCE_FAILED, str(error))
    if isinstance(error, TimeoutError):  # a CacheTimeoutError is one
        return PeerFailure(ErrorKind.TIMEOUT, "it took too long; ask again, or another worker")
    if isinstance(error, CacheError):  # a digest that does not fit
        return PeerFailure(ErrorKind.SOURCE_FAILED, str(error))
    return PeerFailure(ErrorKind.INTERNAL, "the worker failed; its log says why")


def refuse(failure: PeerFailure, *, retry_after_seconds: int = 1) -> web.Response:
    """Return an error's answer."""
    status = STATUS[ErrorKind(failure.kind)]
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(retry_after_seconds)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return json_answer(error_document(*failure), status=status, headers=headers)


def json_answer(document: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a document as an answer."""
    body = json.dumps(document, separators=(",", ":")).encode()
    return web.Response(body=body, status=status, headers=headers, content_type="application/json", charset="utf-8")


def start_request(request: web.BaseRequest) -> str:
    """Give a request its id: the sender's, if it has one, or a new one."""
    request_id = request[REQUEST_ID] = choose_id(request.headers.get(REQUEST_HEADER))
    return request_id


def choose_id(given: str | None) -> str:
    """Return the id that a sender gave to its request, if it is a usable one, or a new one."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else f"{getrandbits(64):016x}"


async def guard(node: Node, request: web.BaseRequest, route: str, handler: Handler) -> web.StreamResponse:
    """Ask for the token, turn errors into answers, count and log."""
    request_id = start_request(request)
    begin = time.perf_counter()
    if route in _OPEN or node.tokens.accept(request.headers.get("Authorization")):
        answer = await _answer(node, request, route, handler)
    else:
        answer = refuse(PeerFailure(ErrorKind.UNAUTHORIZED, "show a token: `Authorization: Bearer ...`"))
    if not answer.prepared:
        answer.headers["Server"] = "forebay"
        answer.headers[REQUEST_HEADER] = request_id
    answered = Answered(request_id, request.method, route, answer.status, request.remote)
    note_answer(node, answered, seconds=time.perf_counter() - begin)
    return answer


class Answered(NamedTuple):
    """A request and how it was answered, for the log."""

    id: str
    method: str
    route: str
    status: int
    remote: str | None


def note_answer(node: Node, answered: Answered, *, seconds: float) -> None:
    """Count and log an answer."""
    node.metrics.count_request(answered.route, answered.status, seconds)
    level = logging.WARNING if answered.status >= 500 else logging.DEBUG
    if _log.isEnabledFor(level):
        # neither the query, which names objects, nor the headers, which carry the token
        text = "request id=%s method=%s route=%s status=%d seconds=%.4f remote=%s"
        request_id, method, route, status, remote = answered
        _log.log(level, text, request_id, method, route, status, seconds, remote)


async def _answer(node: Node, request: web.BaseRequest, route: str, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(node, request)
    except web.HTTPRequestEntityTooLarge:
        return refuse(PeerFailure(ErrorKind.TOO_LARGE, "the body is larger than this worker takes"))
    except (SourceError, CacheError, TimeoutError) as error:
        retry = error.retry_after_seconds if isinstance(error, WorkerBusyError) else 1
        answer = refuse(failure_of(error), retry_after_seconds=retry)
        if answer.status == 416:
            answer.headers["Content-Range"] = f"bytes */{request.query.get('size', '0')}"
        return answer
    except ConnectionError:
        # what was sent goes out, then the connection ends: fewer bytes than promised tell the reader
        request.protocol.force_close()
        return web.Response(status=499)
    except Exception:  # noqa: BLE001 - the edge of the process: aiohttp's own answer would be no JSON
        _log.exception("request failed id=%s route=%s", request[REQUEST_ID], route)
        return refuse(failure_of(RuntimeError()))
