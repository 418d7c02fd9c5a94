"""Calls of Sun RPC through libnfs, which brings sockets, framing and XDR; the waiting is ours, so that it ends.

Bound by ctypes to `libnfs.so.13`, which is libnfs 4.0 on every system: another ABI has another number.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import time
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LIBRARY = "libnfs.so.13"
_SUCCESS = 0
_AT_ONCE = 8  # calls on their way over one connection
_ADDRESS = ctypes.c_void_p
_Callback = ctypes.CFUNCTYPE(None, _ADDRESS, ctypes.c_int, _ADDRESS, ctypes.py_object)
_NFS = (
    *("lookup", "getattr", "read", "readdirplus", "fsinfo", "create", "write", "commit"),
    *("mkdir", "rmdir", "remove", "rename"),
)


class Library:
    """libnfs's functions, with their types. Those that neither wait nor copy much are called with the GIL held."""

    def __init__(self) -> None:
        waiting, brief = ctypes.CDLL(_LIBRARY), ctypes.PyDLL(_LIBRARY)
        text, number, pointer = ctypes.c_char_p, ctypes.c_int, _ADDRESS
        after = (_Callback, ctypes.py_object)
        self.create = _bound(brief, "rpc_init_context", pointer)
        self.destroy = _bound(waiting, "rpc_destroy_context", None, pointer)
        self.error = _bound(brief, "rpc_get_error", text, pointer)
        self.descriptor = _bound(brief, "rpc_get_fd", number, pointer)
        self.events = _bound(brief, "rpc_which_events", number, pointer)
        self.serve = _bound(waiting, "rpc_service", number, pointer, number)
        self.serve_briefly = _bound(brief, "rpc_service", number, pointer, number)
        self.set_reconnect = _bound(brief, "rpc_set_autoreconnect", None, pointer, number)
        self.set_auth = _bound(brief, "rpc_set_auth", None, pointer, pointer)
        self.create_auth = _bound(
            brief, "libnfs_authunix_create", pointer, text, *[ctypes.c_uint32] * 3, ctypes.POINTER(ctypes.c_uint32)
        )
        self.connect = _bound(waiting, "rpc_connect_program_async", number, pointer, text, number, number, *after)
        self.connect_port = _bound(
            waiting, "rpc_connect_port_async", number, pointer, text, number, number, number, *after
        )
        self.mount = _bound(brief, "rpc_mount3_mnt_async", number, pointer, _Callback, text, ctypes.py_object)
        self.export = _bound(brief, "rpc_mount3_export_async", number, pointer, *after)
        self.nfs = {
            name: _bound(brief, f"rpc_nfs3_{name}_async", number, pointer, _Callback, pointer, ctypes.py_object)
            for name in _NFS
        }


def _bound(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function: Any = library[name]
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]


@cache
def library() -> Library:
    """Load libnfs.

    Raises:
        OSError: If it is not installed.
    """
    return Library()


class Call:
    """A call and its answer.

    Args:
        send: Hands it to libnfs; is given the context, and what libnfs is to call with what.
        decode: Is given the address of libnfs's result, which is gone when it returns.
    """

    __slots__ = ("answer", "decode", "done", "error", "send")

    def __init__(self, send: Callable[[int, Any, Call], int], decode: Callable[[int], Any]) -> None:
        self.send, self.decode = send, decode
        self.done = False
        self.answer: Any = None
        self.error: BaseException | None = None

    def receive(self, status: int, address: int | None) -> None:
        """Take what libnfs has received."""
        self.done = True
        if status == _SUCCESS:
            self.answer = self.decode(address or 0)
        else:
            text = ctypes.string_at(address) if status == 1 and address else b"the call was given up"
            self.error = ConnectionError(text.decode(errors="replace"))


@_Callback  # type: ignore[untyped-decorator]  # typeshed has no types for it
def _receive(_: int, status: int, address: int | None, call: Call) -> None:
    try:
        call.receive(status, address)
    except BaseException as error:  # noqa: BLE001 - from here it would go nowhere; `run` raises it
        call.error = error


class Connection:
    """A TCP connection to one program of a server; for one thread at a time, and useless after a fork.

    Args:
        host: The server.
        program: Number of the program; its version is 3.
        port: Where it answers; None asks the portmapper.
        user: uid and gid to claim.
        seconds: How long to wait for each sign of life.

    Raises:
        OSError: No connection (ConnectionError), not in time (TimeoutError).
    """

    def __init__(self, host: str, program: int, port: int | None, *, user: tuple[int, int], seconds: float) -> None:
        self._library = library()
        self._pid = os.getpid()
        self._milliseconds = max(1, round(seconds * 1000))
        self._context = self._library.create()
        if not self._context:
            raise MemoryError
        self._library.set_auth(self._context, self._library.create_auth(b"forebay", *user, 0, None))
        self._poll = select.poll()
        name = host.strip("[]").encode()
        if port is None:
            connect = Call(lambda context, *then: self._library.connect(context, name, program, 3, *then), int)
        else:
            connect = Call(
                lambda context, *then: self._library.connect_port(context, name, port, program, 3, *then), int
            )
        self._connect(connect, seconds)
        self._library.set_reconnect(self._context, 0)  # a call's fate is for our caller to decide about
        self._poll.register(self._library.descriptor(self._context), select.POLLIN)

    def __del__(self) -> None:
        self.close()

    @property
    def open(self) -> bool:
        """Whether nobody has closed it."""
        return self._context is not None

    @property
    def usable(self) -> bool:
        """Whether an idle one is still connected: there is nothing that a server could say unasked but farewell."""
        return self._context is not None and not self._poll.poll(0)

    def run(self, calls: Iterable[Call], *, large: bool = False) -> None:
        """Make calls, several at a time; their answers are in them.

        Args:
            calls: Are taken when there is room for another one on its way.
            large: Whether answers are so long that other threads should run meanwhile.

        Raises:
            OSError: The connection broke, or said nothing for too long. It is closed then.
        """
        serve = self._library.serve if large else self._library.serve_briefly
        waiting: list[Call] = []
        coming = iter(calls)
        try:
            while True:
                while len(waiting) < _AT_ONCE and (call := next(coming, None)) is not None:
                    waiting.append(call)
                    self._check(call.send(self._context, _receive, call))
                if not waiting:
                    return
                while not waiting[0].done:
                    self._step(serve)
                error = waiting.pop(0).error
                if error is not None:
                    raise error
        except BaseException:
            self.close()  # what is still on its way must find nobody
            raise

    def run_one(self, call: Call, *, large: bool = False) -> None:
        """Do the same with one call, for less."""
        serve = self._library.serve if large else self._library.serve_briefly
        try:
            self._check(call.send(self._context, _receive, call))
            while not call.done:
                self._step(serve)
            if call.error is not None:
                raise call.error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect. In a forked child, leave the parent's connection alone."""
        context, self._context = getattr(self, "_context", None), None
        if context and self._pid == os.getpid():
            self._library.destroy(context)

    def _step(self, serve: Callable[[int, int], int]) -> None:
        """Send what is to be sent, then receive what has come, or wait for it."""
        lib, context = self._library, self._context
        wanted = lib.events(context)
        if wanted & select.POLLOUT:
            self._check(lib.serve_briefly(context, select.POLLOUT))
            wanted = lib.events(context)
        if wanted & select.POLLOUT:  # more than the socket takes
            self._poll.modify(lib.descriptor(context), wanted)
            found = self._poll.poll(self._milliseconds)
            self._poll.modify(lib.descriptor(context), select.POLLIN)
        else:
            found = self._poll.poll(self._milliseconds)
        if not found:
            raise TimeoutError(errno.ETIMEDOUT, "no answer in time")
        self._check(serve(context, found[0][1]))

    def _connect(self, connect: Call, seconds: float) -> None:
        """Its descriptor may change on the way: first the portmapper's, then the program's."""
        deadline = time.monotonic() + seconds
        try:
            self._check(connect.send(self._context, _receive, connect))
            while not connect.done:
                poll = select.poll()
                poll.register(self._library.descriptor(self._context), self._library.events(self._context))
                found = poll.poll(max(0, deadline - time.monotonic()) * 1000)
                if not found:
                    raise TimeoutError(errno.ETIMEDOUT, "no connection in time")
                if self._library.serve(self._context, found[0][1]) < 0 and not connect.done:
                    self._check(-1)
            if connect.error is not None:
                raise connect.error
        except BaseException:
            self.close()
            raise

    def _check(self, returned: int) -> None:
        if returned < 0:
            text = self._library.error(self._context) or b"the connection broke"
            raise ConnectionError(text.decode(errors="replace"))
