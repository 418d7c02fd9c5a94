"""Running a worker: from the first connection to the last answer."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from cache_runtime.errors import WorkerConfigError
from cache_runtime.peers.presence import RunningWorker, announced
from cache_runtime.worker.application import make_server
from cache_runtime.worker.doorman import HANDSHAKE_SECONDS, Doorman
from cache_runtime.worker.handover import hand_over
from cache_runtime.worker.node import Node

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_runtime.client import Client
    from cache_runtime.worker.config import Limits, WorkerConfig
    from cache_runtime.worker.interfaces import LoadJobs, Neighbours
    from sources import Origins

_log = logging.getLogger(__name__)
_MAX_FILES = 1 << 16
_SEND_BUFFER_BYTES = 9 << 18  # the kernel doubles it, and counts some 2 % on top of what it holds
_LARGEST_BUFFER = Path("/proc/sys/net/core/wmem_max")
_FLUSH_SECONDS = 0.01
_LAST_SECONDS = 1.0  # kept back from the deadline for answers that are under way


def serve(
    config: WorkerConfig,
    *,
    client: Client,
    origins: Origins,
    loads: LoadJobs | None = None,
    neighbours: Neighbours | None = None,
    on_ready: Callable[[str], None] | None = None,
    on_node: Callable[[Node], None] | None = None,
) -> None:
    """Serve a node's store until SIGTERM or SIGINT; in the main thread, in a process of its own.

    Then it leaves, within `drain_seconds`: it is not ready any more and fetches nothing new, the next candidates take
    over what was read lately, what is under way is answered. A second signal ends it without that. Threads that still
    wait for an origin at the end are ended with the process: the store is made for it.

    Args:
        config: Its name, address and limits.
        client: Reads and fills this node's store; closed by the caller.
        origins: The stores that may be read.
        loads: Its load jobs.
        neighbours: The other workers.
        on_ready: Called with the worker's URL once it answers.
        on_node: Called with its parts before it serves; what it promises to shares may be changed while it does.

    Raises:
        WorkerConfigError: If it cannot listen, or another worker serves its directory.
        CacheOffError: If the client has no store.
    """
    node = Node(config, client=client, origins=origins, loads=loads, neighbours=neighbours)
    if on_node is not None:
        on_node(node)
    _allow_files()
    gc.freeze()  # what lives as long as the process need not be looked through for each request's garbage
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        asyncio.run(_Run(node, on_ready).until_signal())
    finally:
        for number in before:  # the loop's handlers are gone, and we are leaving already
            signal.signal(number, signal.SIG_IGN)
        ended = node.close(seconds=_LAST_SECONDS)
        for number, handler in before.items():
            signal.signal(number, handler)
    if not ended:
        _log.warning("fills left behind name=%s", config.name)
        logging.shutdown()
        os._exit(0)


class _Run:
    def __init__(self, node: Node, on_ready: Callable[[str], None] | None) -> None:
        self._node = node
        self._on_ready = on_ready
        self._leave = asyncio.Event()
        self._hurry = asyncio.Event()

    async def until_signal(self) -> None:
        """Serve, then leave."""
        node, loop = self._node, asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        runner = web.ServerRunner(make_server(node), handle_signals=False, shutdown_timeout=_LAST_SECONDS / 4)
        await runner.setup()
        server = await _listen(node, runner)
        deadline = 0.0
        try:
            with announced(node.config.directory, RunningWorker(node.config.name, node.url, os.getpid())):
                _log.info("worker ready name=%s url=%s", node.config.name, node.url)
                if self._on_ready is not None:
                    self._on_ready(node.url)
                await self._leave.wait()
                deadline = time.monotonic() + node.config.drain_seconds
                await self._drain(deadline - _LAST_SECONDS)
        finally:
            server.close()
            await _finish(runner, seconds=max(_LAST_SECONDS, deadline - time.monotonic()))

    def _signalled(self) -> None:
        (self._hurry if self._leave.is_set() else self._leave).set()

    async def _drain(self, deadline: float) -> None:
        node = self._node
        node.draining = True
        _log.info("worker leaving name=%s", node.config.name)
        if node.loads is not None:
            await node.on_disk(_stop_loads, node.loads)
        if node.neighbours is None:
            return
        handing = asyncio.create_task(hand_over(node, node.neighbours, deadline=deadline))
        hurry = asyncio.create_task(self._hurry.wait())
        left = max(0.0, deadline - time.monotonic())
        await asyncio.wait((handing, hurry), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for task in (handing, hurry):
            task.cancel()
        await asyncio.gather(handing, hurry, return_exceptions=True)


def _handler_settings(limits: Limits) -> dict[str, Any]:
    """Return how aiohttp reads requests."""
    return {
        "access_log": None,  # ours has no query in it
        "keepalive_timeout": limits.idle_seconds,
        "max_line_size": limits.max_header_bytes,
        "max_field_size": limits.max_header_bytes,
        "lingering_time": 1.0,
        "auto_decompress": False,  # a small body could become a large one
    }


async def _listen(node: Node, runner: web.ServerRunner) -> asyncio.Server:
    config = node.config
    assert runner.server is not None
    tls = None if config.tls is None else config.tls.server_context()
    try:
        server = await asyncio.get_running_loop().create_server(
            Doorman(node, runner.server, **_handler_settings(config.limits)),
            config.host or None,
            config.port,
            ssl=tls,
            backlog=512,
            ssl_handshake_timeout=None if tls is None else HANDSHAKE_SECONDS,
        )
    except OSError as error:
        await runner.cleanup()
        raise WorkerConfigError(f"cannot listen on {config.host}:{config.port}: {error}") from error
    if tls is None:
        _widen(server)
    host, port = server.sockets[0].getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    node.url = config.url or f"{'http' if tls is None else 'https'}://{shown}:{port}"
    return server


def _widen(server: asyncio.Server) -> None:
    """Let each connection hold a block with its header, so that one call takes it, if the system allows that.

    Else the kernel goes on choosing sizes, below its own limits. What is held of a block that was written from a
    mapping is a copy, some 4 MiB at most for a connection; `sendfile` holds the file's own pages.
    """
    if int(_LARGEST_BUFFER.read_text()) >= _SEND_BUFFER_BYTES:
        for listener in server.sockets:  # connections inherit it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)


async def _finish(runner: web.ServerRunner, *, seconds: float) -> None:
    """Let the answers that are under way end; nothing new begins."""
    assert runner.server is not None
    transports = [each.transport for each in runner.server.connections if each.transport is not None]
    runner.server.pre_shutdown()  # ends the idle connections
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await runner.server.shutdown(seconds)
            while any(each.get_write_buffer_size() for each in transports):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(_FLUSH_SECONDS)  # closed, but the ends of answers are still to be sent
    await runner.cleanup()


def _stop_loads(loads: LoadJobs) -> None:
    loads.stop(seconds=5.0)


def _allow_files() -> None:
    """Use as many descriptors as the system allows: sockets come on top of the store's files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
