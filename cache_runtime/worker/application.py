"""The worker's paths.

aiohttp's lower server is used, without its application and router: those take as long as the rest of a hit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from cache_runtime import protocol
from cache_runtime.protocol import ErrorKind, PeerFailure
from cache_runtime.worker import control
from cache_runtime.worker.answers import guard, refuse
from cache_runtime.worker.batches import post_batch
from cache_runtime.worker.connections import Connection
from cache_runtime.worker.objects import get_object
from cache_runtime.worker.quick import finish_answer

if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from aiohttp.http import RawRequestMessage
    from aiohttp.streams import StreamReader

    from cache_runtime.worker.answers import Handler
    from cache_runtime.worker.node import Node

_ROUTES: dict[str, dict[str, Handler]] = {
    protocol.BATCH_PATH: {"POST": post_batch},
    protocol.PRESENT_PATH: {"POST": control.post_present},
    protocol.EVICT_PATH: {"POST": control.post_evict},
    protocol.LOAD_PATH: {"POST": control.post_load},
    protocol.LOADS_PATH: {"GET": control.get_loads},
    protocol.STATS_PATH: {"GET": control.get_stats},
    protocol.OPENAPI_PATH: {"GET": control.get_openapi},
    protocol.METRICS_PATH: {"GET": control.get_metrics},
    protocol.HEALTH_PATH: {"GET": control.get_health},
    protocol.READY_PATH: {"GET": control.get_ready},
}
_BELOW: dict[str, dict[str, Handler]] = {
    protocol.OBJECTS_PATH: {"GET": get_object, "HEAD": get_object},
    f"{protocol.LOADS_PATH}/": {"GET": control.get_load, "DELETE": control.delete_load},
}


def make_server(node: Node) -> web.Server:
    """Return the server of one worker."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        begun = request.protocol.take_begun() if isinstance(request.protocol, Connection) else None
        if begun is not None:
            return await finish_answer(node, request, begun)
        route, methods = find_route(request.path)
        return await guard(node, request, route, _choose(methods, request.method))

    def make_request(
        message: RawRequestMessage, payload: StreamReader, handler: Any, writer: Any, task: asyncio.Task[None]
    ) -> web.BaseRequest:
        limit = node.limits.max_body_bytes
        return web.BaseRequest(message, payload, handler, writer, task, task.get_loop(), client_max_size=limit)

    # cancelled when the reader goes away: it needs no more blocks
    return web.Server(answer, request_factory=make_request, handler_cancellation=True)


def find_route(path: str) -> tuple[str, dict[str, Handler]]:
    """Return the route of a path, as metrics and logs call it, and its methods."""
    methods = _ROUTES.get(path)
    if methods is not None:
        return path, methods
    above, slash, name = path.rpartition("/")
    methods = _BELOW.get(above + slash) if name else None
    return ("(none)", {}) if methods is None else (f"{above}/{{id}}", methods)


def _choose(methods: dict[str, Handler], method: str) -> Handler:
    return methods.get(method) or (_no_such_method if methods else _no_such_path)


async def _no_such_path(_node: Node, _request: web.BaseRequest) -> web.Response:
    return refuse(PeerFailure(ErrorKind.NOT_FOUND, "no such path; see /v1/openapi.json"))


async def _no_such_method(_node: Node, request: web.BaseRequest) -> web.Response:
    answer = refuse(PeerFailure(ErrorKind.METHOD_NOT_ALLOWED, "this path has other methods; see /v1/openapi.json"))
    answer.headers["Allow"] = ", ".join(find_route(request.path)[1])
    return answer
