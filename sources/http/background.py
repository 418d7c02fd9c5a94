"""One event loop on a thread of its own, for code that is not async itself."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from sources.errors import SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import aiohttp

_T = TypeVar("_T")
_STOP_SECONDS = 2

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_ended = False
_sessions: weakref.WeakSet[aiohttp.ClientSession] = weakref.WeakSet()


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine on the background loop of this process and wait for it; it bounds its own waits.

    From any thread but the loop's own. When the wait is interrupted the coroutine is cancelled.

    Raises:
        SourceUnavailableError: If the interpreter is ending: the loop is stopped, and a wait for it would not end.
    """
    loop = _running()
    if loop is None:
        coroutine.close()
        raise SourceUnavailableError("no request can be made while the interpreter ends", retryable=False)
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    finally:
        future.cancel()  # changes nothing unless the wait was interrupted


def adopt(owner: object, session: aiohttp.ClientSession) -> None:
    """Close the session, made on the loop by `run`, when its owner is no more or the process ends."""
    _sessions.add(session)
    weakref.finalize(owner, _close_later, session, asyncio.get_running_loop(), os.getpid()).atexit = False


def _running() -> asyncio.AbstractEventLoop | None:
    global _loop
    with _lock:
        if _ended:
            return None
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="forebay-http", daemon=True).start()
        return _loop


def _close_later(session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop, pid: int) -> None:
    # Whatever thread collects garbage comes here, the loop's own included: nothing may wait.
    if pid == os.getpid() and not loop.is_closed():
        asyncio.run_coroutine_threadsafe(session.close(), loop)


@atexit.register
def _stop() -> None:
    global _ended
    with _lock:
        _ended = True
    if _loop is not None:
        with suppress(TimeoutError):  # the kernel closes what is left
            asyncio.run_coroutine_threadsafe(_close_all(), _loop).result(_STOP_SECONDS)
        _loop.call_soon_threadsafe(_loop.stop)


async def _close_all() -> None:
    for session in list(_sessions):
        await session.close()


def _after_fork() -> None:
    """Start anew in a forked child, and never touch what the parent's thread owns.

    Its sockets are registered in an epoll that the child shares: closing them here, as their finalizers do, would
    deafen the parent. So what was inherited must not be collected either.
    """
    global _lock, _loop, _ended
    for inherited in (*_sessions, _loop):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
    _sessions.clear()
    _lock, _loop, _ended = threading.Lock(), None, False


os.register_at_fork(after_in_child=_after_fork)
