"""The conversation with the kernel: requests are read and answered."""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from cache_runtime.mount import interrupts
from cache_runtime.mount.dispatch import IN_LANE, READ_LATER, SILENT
from cache_runtime.mount.lane import Job, Lane
from cache_runtime.mount.negotiation import Agreement, Wishes, agree
from cache_runtime.mount.notices import Notices
from cache_runtime.mount.protocol import BUFFER_BYTES, IN_HEADER, INTERRUPT_IN, OPEN_OUT, OUT_HEADER, Opcode
from cache_runtime.mount.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from cache_runtime.mount.dispatch import Handler
    from cache_runtime.mount.names import Names
    from cache_runtime.mount.operations import FileOperations

logger = logging.getLogger(__name__)

THREADS = 2
"""The second one goes on reading files while the first one waits for a part of the version."""
DIED = 70
"""Exit status of a process whose thread died; EX_SOFTWARE of sysexits.h."""

_GONE = (errno.ENODEV, errno.ECONNABORTED)
_AGAIN = (errno.ENOENT, errno.EINTR, errno.EAGAIN)
_NOBODY = -1
_ERRNO_END = 512
_READ = int(Opcode.READ)


class Session:
    """Serves one mount, by threads of its own; the `Kernel` of those who answer later.

    A thread that fails ends the process: the kernel closes the device then, and who waits gets ENOTCONN, where a server
    that lost a thread would let them wait for ever. The process must not touch its own mount.

    Args:
        device: The open /dev/fuse.
        wants_passthrough: Whether to ask for it.
        skips_opens: Whether the kernel may open files without asking, where it does not read backing files.
        follows: See `Dispatch`.
        when_ended: Called by the last thread, after `ended` was set.

    Attributes:
        device: As given.
        agreement: What INIT brought; None before it, and with a kernel that is too old.
        greeted: Set when INIT was answered.
        ended: Set when the kernel said that the mount is gone, or that it is too old.
        lane: Where the versions are asked.
        notices: Where the kernel is told of changes.
        tallies: Of each thread.
        has_unopened: Whether the kernel opens files, or will open them, without asking.
        errors: How many requests were answered with an error, without ENODATA and the like that programs probe for.
    """

    def __init__(
        self,
        device: int,
        *,
        wants_passthrough: bool = True,
        skips_opens: bool = False,
        follows: bool = False,
        when_ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.device = device
        self.agreement: Agreement | None = None
        self.greeted = threading.Event()
        self.ended = threading.Event()
        self.lane = Lane()
        self.notices = Notices(device)
        self.tallies: list[Tally] = []
        self.errors = 0
        self.has_unopened = False
        self._wishes = Wishes(not follows, skips_opens and not follows, wants_passthrough)
        self._when_ended = when_ended
        self._pending: dict[int, int] = {}  # unique of a request without an answer -> thread that waits for it
        self._table: dict[int, Handler] = {}
        self._files: FileOperations
        self._names: Names
        self._left = 0
        self._leaving = threading.Lock()

    @property
    def passthrough(self) -> bool:
        """Whether the kernel reads backing files by itself."""
        return self.agreement is not None and self.agreement.passthrough

    @property
    def waiting(self) -> int:
        """How many requests have no answer yet."""
        return len(self._pending)

    def prepare(self, table: dict[int, Handler], names: Names, files: FileOperations) -> None:
        """Take who answers."""
        self._table = table
        self._names = names
        self._files = files

    def start(self, *, threads: int = THREADS) -> None:
        """Begin to answer."""
        self._left = threads
        _start("forebay-mount-notices", self.notices.run)
        for number in range(threads):
            _start(f"forebay-mount-{number}", self._converse_to_the_end)

    def _converse_to_the_end(self) -> None:
        self.converse()
        with self._leaving:
            self._left -= 1
            if self._left:
                return
        self.notices.stop()
        self.ended.set()
        self._when_ended()

    def converse(self) -> None:
        """Answer until the mount is gone; `start` has threads do it."""
        tally = Tally()
        self.tallies.append(tally)
        buffer = bytearray(BUFFER_BYTES)
        buffers, whole = [buffer], memoryview(buffer)
        unpack, head, readv, clock = IN_HEADER.unpack_from, IN_HEADER.size, os.readv, time.perf_counter_ns
        while True:
            try:
                count = readv(self.device, buffers)
            except OSError as error:
                if error.errno in _AGAIN:
                    continue
                if error.errno in _GONE:
                    return
                raise
            if count < head:  # 0: the other end of a socket is closed; the kernel sends whole requests
                return
            began = clock()
            length, opcode, unique, node, _, _, pid, extensions, _ = unpack(buffer)
            self._take(opcode, node, whole[head : length - 8 * extensions], unique, pid)
            tally.add(opcode, clock() - began)

    def _take(self, opcode: int, node: int, body: memoryview, unique: int, pid: int) -> None:
        if opcode in IN_LANE or (opcode == _READ and self.has_unopened and not self._files.knows(node)):
            self._pending[unique] = pid
            if self.lane.enter(unique):
                try:
                    self._answer(opcode, node, body, unique, pid)
                finally:
                    self.lane.leave()
            elif opcode == _READ:  # it need not wait for a name
                self._answer(READ_LATER, node, body, unique, pid)
            else:  # the buffer is for the next request
                kept = memoryview(bytes(body))
                self.lane.submit(Job(unique, partial(self._answer, opcode, node, kept, unique, pid)))
        elif opcode == Opcode.INTERRUPT:
            self._interrupt(body, unique)
        elif opcode == Opcode.INIT:
            self._pending[unique] = pid
            self._greet(body, unique)
        elif opcode not in SILENT:
            self._pending[unique] = pid
            self._answer(opcode, node, body, unique, pid)

    def _answer(self, opcode: int, node: int, body: memoryview, unique: int, pid: int) -> None:
        handler = self._table.get(opcode)
        if handler is None:
            self.fail(unique, errno.ENOSYS)
            return
        try:
            answer = handler(node, body, unique, pid)
        except OSError as error:
            self.fail(unique, error.errno or errno.EIO)
        except struct.error:
            logger.exception("request %d of the kernel is too short, %d bytes", opcode, len(body))
            self.fail(unique, errno.EIO)
        else:
            if answer is not None and not self.reply(unique, answer) and opcode == Opcode.OPEN:
                self._files.release(OPEN_OUT.unpack(answer)[0])  # the kernel will not

    def reply(self, unique: int, *parts: Buffer) -> bool:
        """Answer a request; False if nobody waits for it any more: who opened something closes it."""
        if self._pending.pop(unique, _NOBODY) == _NOBODY:
            return False
        length = OUT_HEADER.size + sum(memoryview(part).nbytes for part in parts)
        try:
            os.writev(self.device, (OUT_HEADER.pack(length, 0, unique), *parts))
        except OSError as error:
            if error.errno in _GONE or error.errno == errno.ENOENT:  # the mount is gone
                return False
            logger.exception("the kernel refused an answer of %d bytes", length)
            self._write_error(unique, errno.EIO)
            return False
        return True

    def fail(self, unique: int, number: int) -> None:
        """Answer a request with an errno."""
        if self._pending.pop(unique, _NOBODY) != _NOBODY:
            if number not in _PROBES:
                self.errors += 1
            self._write_error(unique, number)

    def _write_error(self, unique: int, number: int) -> None:
        if not 0 < number < _ERRNO_END:  # the kernel would refuse it, and who asked would wait for ever
            number = errno.EIO
        try:
            os.write(self.device, OUT_HEADER.pack(OUT_HEADER.size, -number, unique))
        except OSError as error:
            if error.errno not in _GONE and error.errno != errno.ENOENT:
                raise

    def _greet(self, body: memoryview, unique: int) -> None:
        answer = agree(body, self._wishes)
        if isinstance(answer, bytes):
            self.reply(unique, answer)
            return
        self.agreement = answer
        if answer is None:
            self.fail(unique, errno.EPROTO)
        else:
            if answer.zero_message_open:
                self.skip_opens()
            self.reply(unique, answer.answer())
        self.greeted.set()

    def skip_opens(self) -> None:
        """Answer ENOSYS to the next OPEN: then the kernel sends neither OPEN nor RELEASE any more."""
        self.has_unopened = True
        self._table.pop(Opcode.OPEN, None)

    def _interrupt(self, body: memoryview, unique: int) -> None:
        """End a request whose program wants to end; look again later if it had another signal."""
        asked = INTERRUPT_IN.unpack_from(body)[0]
        pid = self._pending.get(asked, _NOBODY)
        if pid == _NOBODY:
            return
        if not interrupts.wants_to_end(pid):
            self.notices.post(partial(self._ask_again, asked, unique), delay_seconds=interrupts.RETRY_SECONDS)
        elif self.lane.withdraw(asked):
            self.fail(asked, errno.EINTR)
        else:
            self._files.interrupt(asked)

    def _ask_again(self, asked: int, unique: int) -> None:
        """Have the kernel send an INTERRUPT again, which it does for EAGAIN."""
        if asked in self._pending:
            self._write_error(unique, errno.EAGAIN)

    def is_unwanted(self, unique: int) -> bool:
        """Say whether who asked wants to end; see `Kernel`."""
        pid = self._pending.get(unique, _NOBODY)
        return pid > 0 and interrupts.wants_to_end(pid)

    def upgrade(self, ino: int) -> None:
        """Have the kernel look a file up again; see `Kernel`."""

        def find() -> None:
            self._names.forget_pages()
            try:
                entry = self._names.entry_of(ino)
            except OSError:  # logged; its old handles and new ones go on as they are
                return
            if entry is not None:
                self.notices.post(partial(self.notices.drop_entry, *entry))

        self.notices.post(lambda: self.lane.submit(Job(0, find)))

    def drop_pages(self, node: int) -> None:
        """Have the kernel forget the pages of an id; see `Kernel`."""
        self.notices.post(partial(self.notices.drop_pages, node))


_PROBES = (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINTR, errno.ENAMETOOLONG)


def _start(name: str, run: Callable[[], None]) -> None:
    threading.Thread(target=_run_or_die, args=(run,), name=name, daemon=True).start()


def _run_or_die(run: Callable[[], None]) -> None:
    try:
        run()
    except BaseException:
        logger.critical("the mount's server ends: its thread %s failed", threading.current_thread().name, exc_info=True)
        logging.shutdown()  # os._exit flushes nothing
        os._exit(DIED)
