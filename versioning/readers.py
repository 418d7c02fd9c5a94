"""Processes that read and hash files for this one: the interpreter lets only one thread at a time do that.

What they read lies in memory that both have, so packs are written and named here, in the order of the files: the bytes
of a pack do not depend on who read them. A reader that is killed, or whose parent is, leaves nothing behind.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import select
import subprocess
import sys
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from versioning.errors import ReaderDiedError, UnreadableFileError
from versioning.filereading import TakenFiles
from versioning.gathering import gathered_of
from versioning.readerprocess import MESSAGE, PARTS, READY, part_bytes, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Protocol

    from versioning.filereading import File
    from versioning.gathering import Gathered

    class Batches(Protocol):
        """Deals out the files."""

        def __iter__(self) -> Iterator[list[File]]:
            """Give the next ones."""
            ...

        def learn(self, found: Gathered) -> None:
            """Hear what became of some."""
            ...


_START_SECONDS = 30  # it takes 0.03; a program that is no Python and does not say so must not be waited for
_READ_SECONDS = 24 * 3600  # a network file system may hang for long; this only ends a wait that nothing else would
_ERROR_FIELDS = ("file", "reason")
_log = logging.getLogger(__name__)
_PROGRAM = "import sys; sys.path[:] = {path!r}; from versioning.readerprocess import serve; serve({arguments})"


class CannotStartReadersError(Exception):
    """Processes cannot be started here; the caller does their work."""


class _Place(NamedTuple):
    """A part of a reader's memory."""

    reader: _Reader
    part: int


def usual_readers() -> int:
    """Return how many processes may read; 0 where this process alone is as fast, or they cannot be had."""
    if not sys.executable or getattr(sys, "frozen", False) or not hasattr(os, "memfd_create"):
        return 0
    processors = len(os.sched_getaffinity(0))
    return processors if processors > 1 else 0


class Readers:
    """Some processes, which end with the `with` block. More come if they wait for a disk or a server.

    Args:
        count: How many there are at first.
        limit: As in `take_files`.
        follow: As in `take_files`.

    Raises:
        CannotStartReadersError: If they cannot be had.
    """

    def __init__(self, count: int, *, limit: int, follow: bool) -> None:
        self._limit = limit
        self._follow = follow
        self._free: deque[_Place] = deque()
        self._pending: deque[tuple[_Place, list[File]]] = deque()
        with ExitStack() as self._all:
            self._start(count)
            self._all = self._all.pop_all()

    def __enter__(self) -> Readers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.close()

    def run(self, batches: Batches, *, most: int) -> Iterator[Gathered]:
        """Yield what became of each batch, in their order; good until the next is asked for.

        Args:
            batches: Told what became of those before.
            most: How many processes there may be.

        Raises:
            UnreadableFileError, ReaderDiedError: As they say.
        """
        rest = iter(batches)
        while True:
            while self._free and (batch := next(rest, None)):
                place = self._free.popleft()
                place.reader.ask(place.part, batch)
                self._pending.append((place, batch))
            if not self._pending:
                return
            place, batch = self._pending.popleft()
            found = gathered_of(batch, *place.reader.answer(place.part))
            batches.learn(found)
            yield found
            if found.rest:  # had no room; it comes before the others
                place.reader.ask(place.part, found.rest)
                self._pending.appendleft((place, found.rest))
            else:
                self._free.append(place)
            if found.waited > len(batch) // 3 and self._count < most:
                most = self._grown(most)

    @property
    def _count(self) -> int:
        return (len(self._free) + len(self._pending)) // PARTS

    def _grown(self, most: int) -> int:
        """Start another; return how many there may be now."""
        try:
            self._start(1)
        except CannotStartReadersError as error:
            _log.warning("no more processes read files count=%d reason=%s", self._count, error)
            return self._count
        return most

    def _start(self, count: int) -> None:
        readers = [self._all.enter_context(_Reader(self._limit, self._follow)) for _ in range(count)]
        for reader in readers:
            reader.wait_until_ready()
        self._free += [_Place(reader, part) for part in range(PARTS) for reader in readers]


class _Reader:
    """One process, and the memory that it shares with this one."""

    def __init__(self, limit: int, follow: bool) -> None:
        try:
            self._process = self._begin(limit, follow)
        except OSError as error:
            raise CannotStartReadersError(f"no process can be started ({error})") from error
        self._lengths: dict[int, int] = {}  # of the tables that it has written

    def _begin(self, limit: int, follow: bool) -> subprocess.Popen[bytes]:
        shared = os.memfd_create("forebay-add", os.MFD_CLOEXEC)
        try:
            os.ftruncate(shared, PARTS * part_bytes(limit))
            self._parts = parts_of(mmap.mmap(shared, 0), limit)
            program = _PROGRAM.format(path=[str(each) for each in sys.path], arguments=f"{shared}, {limit}, {follow}")
            # Isolated and without `site`: half of the time. Ctrl-C is for this process, which then ends the other.
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=(shared,),
                process_group=0,
            )
        finally:
            os.close(shared)
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout
        return process

    def __enter__(self) -> _Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # it has nothing that could be lost
        self._process.__exit__(kind, error, trace)

    def wait_until_ready(self) -> None:
        if self._message(_START_SECONDS) != READY:
            raise CannotStartReadersError(f"{sys.executable} cannot be started as a Python")

    def ask(self, part: int, files: list[File]) -> None:
        """Let it read files into a part of the memory."""
        try:
            length = self._parts[part].put(files)
        except ValueError:  # some of them are no plain text
            files = [(str(path), str(file)) for path, file in files]
            length = self._parts[part].put(files)
        if length < 0:
            longest = max((str(file) for _, file in files), key=len)
            raise UnreadableFileError(longest, reason=os.strerror(errno.ENAMETOOLONG))
        try:
            self._input.write(MESSAGE.pack(part, length))
        except BrokenPipeError:
            raise self._death() from None

    def answer(self, part: int) -> tuple[TakenFiles, memoryview]:
        """Wait until the files that were asked for are in a part of the memory."""
        while part not in self._lengths:
            message = self._message(_READ_SECONDS)
            if len(message) != MESSAGE.size:
                raise self._death()
            number, length = MESSAGE.unpack(message)
            self._lengths[number] = length
        found: Any = self._parts[part].get(self._lengths.pop(part))
        if len(found) == len(_ERROR_FIELDS):
            raise UnreadableFileError(**dict(zip(_ERROR_FIELDS, found, strict=True)))
        return TakenFiles(*found), self._parts[part].tar

    def _message(self, seconds: float) -> bytes:
        """Wait for what it says next; nothing if it is gone, or silent for too long."""
        waiting = select.poll()
        waiting.register(self._output, select.POLLIN)
        return self._output.read(MESSAGE.size) if waiting.poll(seconds * 1000) else b""

    def _death(self) -> ReaderDiedError:
        self._process.kill()  # for one that is silent
        return ReaderDiedError(status=self._process.wait(_START_SECONDS))
