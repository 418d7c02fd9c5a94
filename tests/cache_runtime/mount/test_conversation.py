"""The conversation without a kernel: a socket that keeps messages apart stands for the device."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from cache_runtime.mount import interrupts
from cache_runtime.mount.attributes import NO_ENTRY, Owner
from cache_runtime.mount.dispatch import SILENT, WRITES, Dispatch
from cache_runtime.mount.epochs import Epochs
from cache_runtime.mount.names import Names
from cache_runtime.mount.nodes import node_id
from cache_runtime.mount.operations import Opened
from cache_runtime.mount.protocol import (
    ATTR,
    ATTR_HEAD,
    ENTRY_HEAD,
    IN_HEADER,
    INIT_IN,
    INIT_OUT,
    INTERRUPT_BIT,
    INTERRUPT_IN,
    OPEN_IN,
    OPEN_OUT,
    OUT_HEADER,
    READ_IN,
    RELEASE_IN,
    InitFlag,
    Opcode,
)
from cache_runtime.mount.session import Session
from cache_runtime.mount.view import Found, Place
from tests.cache_runtime.mount.views import MemoryView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache_runtime.mount.operations import Opening, Part

VIEW = MemoryView({"a/b": (10, 5), "a/c": (20, 6), "d": (30, 7)})
SECONDS = 60


class LateFiles:
    """Files of which some are answered by the test itself."""

    def __init__(self) -> None:
        self.upgraded: set[int] = set()
        self.open_handles: set[int] = set()
        self.interrupted: list[int] = []
        self.closed = False
        self.known: set[int] = set()
        self.later: list[int] = []

    def open(self, opening: Opening, unique: int) -> Opened | None:
        self.open_handles.add(unique)
        return Opened(unique, 0)

    def read(self, handle: int, offset: int, size: int, unique: int) -> bytes | None:
        return None if offset else b"now"

    def knows(self, node: int) -> bool:
        return node in self.known

    def read_unopened(self, node: int, find: Callable[[], Opening], part: Part, unique: int) -> bytes | None:
        self.known.add(node)
        return find().file.path.encode()[part.offset :]

    def read_unopened_later(self, find: Callable[[], Opening], part: Part, unique: int) -> None:
        self.later.append(unique)

    def release(self, handle: int) -> None:
        self.open_handles.discard(handle)

    def interrupt(self, unique: int) -> None:
        self.interrupted.append(unique)

    def status(self) -> dict[str, object]:
        return {}

    def close(self) -> None:
        self.closed = True


class Peer:
    """The kernel's side."""

    def __init__(self, view: MemoryView, *, threads: int) -> None:
        self.end, self._device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.settimeout(SECONDS)
        self.files = LateFiles()
        self.session = Session(self._device.fileno())
        epochs = Epochs(view)
        names = Names(epochs, Owner(1, 2), self.files.upgraded)
        self.session.prepare(Dispatch(names, self.files, epochs, follows=False).table(), names, self.files)
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        try:
            self.session.converse()
        except BaseException as error:  # noqa: BLE001 # raised again by `close`
            self.failures.append(error)
            self.end.shutdown(socket.SHUT_RDWR)

    def send(self, opcode: int, body: bytes = b"", *, node: int = 1, unique: int = 2, pid: int = 0) -> None:
        self.end.send(IN_HEADER.pack(IN_HEADER.size + len(body), opcode, unique, node, 0, 0, pid, 0, 0) + body)

    def receive(self) -> tuple[int, int, bytes]:
        answer = self.end.recv(1 << 21)
        assert len(answer) >= OUT_HEADER.size, "the server is gone"
        length, error, unique = OUT_HEADER.unpack_from(answer)
        assert length == len(answer)
        return unique, -error, answer[OUT_HEADER.size :]

    def ask(self, opcode: int, body: bytes = b"", *, node: int = 1, unique: int = 2) -> tuple[int, bytes]:
        self.send(opcode, body, node=node, unique=unique)
        whose, error, answer = self.receive()
        assert whose == unique
        return error, answer

    def close(self) -> None:
        self.end.close()
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        self._device.close()
        for failure in self.failures:
            raise failure


@contextmanager
def talking(view: MemoryView = VIEW, *, threads: int = 1) -> Iterator[Peer]:
    peer = Peer(view, threads=threads)
    try:
        yield peer
    finally:
        peer.close()


REQUESTS = st.tuples(
    st.one_of(
        st.sampled_from([int(each) for each in Opcode if each != Opcode.INTERRUPT]), st.integers(64, (1 << 32) - 1)
    ),
    st.one_of(st.sampled_from([1, node_id(1, Place(0, 2)), node_id(1, Place(2, 0))]), st.integers(0, (1 << 64) - 1)),
    st.one_of(
        st.binary(max_size=200), st.sampled_from([b"a\0", b"d\0", b"nothing\0", b"\xff\xfe\0", b"x" * 300 + b"\0"])
    ),
)


@settings(max_examples=200)
@given(st.lists(REQUESTS, max_size=30), st.integers(1, 2))
def test_any_request_is_answered_once_or_is_one_without_an_answer(
    requests: list[tuple[int, int, bytes]], threads: int
) -> None:
    with talking(threads=threads) as peer:
        for number, (opcode, node, body) in enumerate(requests):
            unique = 2 * number + 2
            peer.send(opcode, body, node=node, unique=unique)
            if opcode in SILENT:
                continue
            if opcode == Opcode.READ and len(body) >= READ_IN.size and READ_IN.unpack_from(body)[1]:
                while not peer.session.reply(unique, b"late"):  # it was not taken yet
                    time.sleep(0)
            whose, error, _ = peer.receive()
            assert whose == unique
            assert 0 <= error < 200
        assert peer.session.waiting == 0


def test_init_agrees_on_what_both_can_do() -> None:
    with talking() as peer:
        offered = InitFlag.INIT_EXT | InitFlag.ASYNC_READ | InitFlag.DO_READDIRPLUS | InitFlag.PASSTHROUGH
        body = INIT_IN.pack(7, 40, 1 << 17, offered & 0xFFFFFFFF, offered >> 32)
        error, answer = peer.ask(Opcode.INIT, body + bytes(44))
        fields = INIT_OUT.unpack(answer)
        assert (error, fields[:3]) == (0, (7, 40, 1 << 17))
        assert InitFlag(fields[3] | fields[10] << 32) == offered
        assert peer.session.passthrough
        assert peer.session.greeted.wait(SECONDS)


def test_a_newer_major_version_is_asked_to_come_down() -> None:
    with talking() as peer:
        error, answer = peer.ask(Opcode.INIT, INIT_IN.pack(8, 0, 0, 0, 0))
        assert (error, answer[:4]) == (0, b"\7\0\0\0")
        assert not peer.session.greeted.is_set()


def test_an_old_kernel_is_refused() -> None:
    with talking() as peer:
        assert peer.ask(Opcode.INIT, INIT_IN.pack(7, 20, 0, 0, 0)) == (errno.EPROTO, b"")
        assert peer.session.agreement is None
        assert peer.session.greeted.wait(SECONDS)


def test_a_name_is_found_and_a_missing_one_remembered() -> None:
    with talking() as peer:
        _, entry = peer.ask(Opcode.LOOKUP, b"d\0")
        node, generation, *_ = ENTRY_HEAD.unpack_from(entry)
        assert (node, generation) == (node_id(1, Place(2, 0)), 0)
        _, attr = peer.ask(Opcode.GETATTR, bytes(16), node=node)
        assert ATTR.unpack_from(attr, ATTR_HEAD.size) == ATTR.unpack_from(entry, ENTRY_HEAD.size)
        assert peer.ask(Opcode.LOOKUP, b"e\0") == (0, NO_ENTRY)


def test_what_writes_is_refused_and_what_is_unknown_is_not_implemented() -> None:
    with talking() as peer:
        for opcode in WRITES:
            assert peer.ask(opcode, bytes(100)) == (errno.EROFS, b"")
        for other in (Opcode.FLUSH, Opcode.LSEEK, Opcode.IOCTL, Opcode.POLL, 99, 4096):
            assert peer.ask(other, bytes(100)) == (errno.ENOSYS, b"")
        file = node_id(1, Place(2, 0))
        assert peer.ask(Opcode.OPEN, OPEN_IN.pack(os.O_RDWR, 0), node=file)[0] == errno.EROFS
        assert peer.ask(Opcode.OPEN, OPEN_IN.pack(0, 0), node=1)[0] == errno.EISDIR
        assert peer.ask(Opcode.LOOKUP, b"x\0", node=file)[0] == errno.ENOTDIR
        assert peer.ask(Opcode.READLINK, node=file)[0] == errno.EINVAL


def test_a_request_is_answered_once() -> None:
    with talking() as peer:
        peer.send(Opcode.READ, READ_IN.pack(1, 7, 100, 0), unique=4)
        assert peer.ask(Opcode.READ, READ_IN.pack(1, 0, 100, 0), unique=6) == (0, b"now")
        assert peer.session.waiting == 1
        assert peer.session.reply(4, b"la", memoryview(b"ter"))
        assert not peer.session.reply(4, b"again")
        peer.session.fail(4, errno.EIO)
        assert peer.receive() == (4, 0, b"later")
        assert peer.session.waiting == 0


def test_interrupting_a_late_read_reaches_who_reads() -> None:
    with talking() as peer:
        peer.send(Opcode.READ, READ_IN.pack(1, 7, 100, 0), unique=4)
        peer.send(Opcode.INTERRUPT, INTERRUPT_IN.pack(4), unique=4 | INTERRUPT_BIT)
        peer.send(Opcode.INTERRUPT, INTERRUPT_IN.pack(44), unique=44 | INTERRUPT_BIT)  # was answered: nothing
        assert peer.ask(Opcode.READ, READ_IN.pack(1, 0, 100, 0), unique=6) == (0, b"now")
        assert peer.files.interrupted == [4]


class SlowView(MemoryView):
    """A version whose parts are far away: it finds nothing before it may."""

    def __init__(self) -> None:
        super().__init__({"d": (30, 7)})
        self.asked, self.go = threading.Event(), threading.Event()

    def find(self, directory: Place, name: bytes) -> Found | None:
        self.asked.set()
        assert self.go.wait(SECONDS)
        return super().find(directory, name)


def test_reads_go_on_while_a_version_is_slow_and_waiters_may_leave() -> None:
    view = SlowView()
    with talking(view, threads=2) as peer:
        peer.send(Opcode.LOOKUP, b"d\0", unique=2)
        assert view.asked.wait(SECONDS)
        assert peer.ask(Opcode.READ, READ_IN.pack(1, 0, 100, 0), unique=4) == (0, b"now")
        peer.send(Opcode.LOOKUP, b"e\0", unique=6)  # left to the thread that waits
        peer.send(Opcode.LOOKUP, b"d\0", unique=8)
        assert peer.ask(Opcode.STATFS, unique=10)[0] == 0
        peer.send(Opcode.INTERRUPT, INTERRUPT_IN.pack(6), unique=7)
        assert peer.receive() == (6, errno.EINTR, b"")
        peer.send(Opcode.INTERRUPT, INTERRUPT_IN.pack(2), unique=3)
        assert peer.receive() == (2, errno.EINTR, b"")
        view.go.set()
        unique, error, entry = peer.receive()
        assert (unique, error, len(entry)) == (8, 0, len(NO_ENTRY))
        assert peer.ask(Opcode.STATFS, unique=12)[0] == 0


def test_an_open_that_nobody_waits_for_is_closed_again() -> None:
    with talking() as peer:
        unique = 4
        peer.files.open_handles.add(unique)
        assert not peer.session.reply(unique, OPEN_OUT.pack(unique, 0, 0))
        assert peer.ask(Opcode.OPEN, OPEN_IN.pack(0, 0), node=node_id(1, Place(2, 0)), unique=6)[0] == 0
        assert peer.files.open_handles == {4, 6}
        assert peer.ask(Opcode.RELEASE, RELEASE_IN.pack(6) + bytes(16)) == (0, b"")
        assert peer.files.open_handles == {4}


class MissingView(MemoryView):
    def find(self, directory: Place, name: bytes) -> Found | None:
        raise FileNotFoundError(errno.ENOENT, "trees/ab/cdef is missing at its origin")


def test_a_part_of_a_version_that_is_missing_is_no_missing_file() -> None:
    with talking(MissingView({"d": (1, 1)})) as peer:
        assert peer.ask(Opcode.LOOKUP, b"d\0") == (errno.EIO, b"")
        assert peer.session.errors == 1


def test_only_signals_that_end_a_program_interrupt_it() -> None:
    assert interrupts.wants_to_end(0)
    assert interrupts.wants_to_end(1 << 22)  # no such thread
    assert not interrupts.wants_to_end(os.getpid())
