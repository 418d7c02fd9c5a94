"""Where the bytes of a shard go while it is filled: into windows of memory, behind which it is hashed and written.

A store that takes an object piece by piece gets it so, past the page cache: two windows of memory do for any shard, and
they are used again. Any other store gets the whole shard at once, from memory.
"""

from __future__ import annotations

from concurrent.futures import wait
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from sources.crew import Crew
from sources.stores import BeginObject
from versioning import StoredObject

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from loaders.packing.workplaces import OpenedWorkplace
    from sources.stores import NewObject

    Lend = Callable[[int], memoryview]

WINDOW_BYTES = 7 << 20
"""Filled, hashed and written at once: much more than it costs to tell the other thread, and kept by the processor."""
_SLOT_BYTES = 8 << 20  # a window, what the one before left over, and the end of a tar
_ALIGNED = 4096
"""What is written past the page cache begins and ends at multiples of this."""
_WAIT_SECONDS = 24 * 3600.0  # a disk gives up by itself long before; this only ends a wait that nothing else would


class ShardSink(Protocol):
    """Takes the bytes of one shard from its beginning."""

    def window(self, size: int) -> memoryview:
        """Return the memory of the next so many bytes; what is in it is what somebody left there."""
        ...

    def advance(self) -> None:
        """Take the bytes of the window that was returned last: they are in place."""
        ...

    def finish(self) -> StoredObject:
        """Return what the shard is called, when all of its bytes were taken."""
        ...

    def publish(self) -> None:
        """Store it under its name, durably. Raises as `WriteObject.put`."""
        ...

    def close(self) -> None:
        """Throw it away if it is not published; its memory is not used any more."""
        ...


def open_sink(workplace: OpenedWorkplace, size: int, lend: Lend) -> ShardSink:
    """Begin a shard.

    Args:
        workplace: Where it goes.
        size: Of the whole tar.
        lend: Lends memory that begins at a page.

    Raises:
        SourceError: If the store takes none.
    """
    store = workplace.store
    if isinstance(store, BeginObject):
        return _Streamed(store.begin(f"{workplace.prefix}packs/", uncached=True), workplace.prefix, lend)
    return _Whole(workplace, lend(size))


class _Hashed:
    """Hashes a shard on a thread of its own, piece after piece."""

    def __init__(self) -> None:
        self._hasher = blake3()
        self._crew = Crew(1, name="forebay-pack-hash")  # one thread: pieces are taken in their order
        self._size = 0

    def _named(self) -> StoredObject:
        oid = self._hasher.digest()
        return StoredObject(f"packs/{oid.hex()[:2]}/{oid.hex()}.tar", oid, self._size)


class _Whole(_Hashed):
    """All of the shard in memory."""

    def __init__(self, workplace: OpenedWorkplace, memory: memoryview) -> None:
        super().__init__()
        self._workplace = workplace
        self._memory = memory
        self._begin = 0
        self._last: Future[object] | None = None

    def window(self, size: int) -> memoryview:
        self._begin, self._size = self._size, self._size + size
        return self._memory[self._begin : self._size]

    def advance(self) -> None:
        part = self._memory[self._begin : self._size]
        self._last = self._crew.submit(lambda: self._hasher.update(part))

    def finish(self) -> StoredObject:
        if self._last is not None:
            self._last.result(_WAIT_SECONDS)
        return self._named()

    def publish(self) -> None:
        workplace = self._workplace
        workplace.store.put(workplace.prefix + self._named().key, self._memory[: self._size])

    def close(self) -> None:
        self._crew.close()
        if self._last is not None:
            wait([self._last], _WAIT_SECONDS)


class _Slot:
    """Memory of one window, and what is still done with it."""

    def __init__(self) -> None:
        self.memory = memoryview(b"")
        self.work: Future[object] | None = None

    def fetch(self, size: int, lend: Lend) -> memoryview:
        """Return at least so many bytes, when nobody uses them any more."""
        if self.work is not None:
            self.work.result(_WAIT_SECONDS)
            self.work = None  # only now: after Ctrl-C, `close` must wait for what still writes to the file
        if len(self.memory) < size:
            self.memory = lend(max(size, _SLOT_BYTES))
        return self.memory


class _Streamed(_Hashed):
    """Two windows in turn: one is filled while the other is hashed and written."""

    def __init__(self, new: NewObject, prefix: str, lend: Lend) -> None:
        super().__init__()
        self._new = new
        self._prefix = prefix
        self._lend = lend
        self._slots = _Slot(), _Slot()
        self._turn = 0
        self._filled = self._carried = 0  # bytes of the present slot, and how many of them the one before left over

    def window(self, size: int) -> memoryview:
        before = self._slots[self._turn]
        end, left = self._filled, self._filled % _ALIGNED
        self._turn = 1 - self._turn
        slot = self._slots[self._turn]
        memory = slot.fetch(left + size, self._lend)
        memory[:left] = before.memory[end - left : end]
        self._carried, self._filled = left, left + size
        return memory[left : left + size]

    def advance(self) -> None:
        slot = self._slots[self._turn]
        carried, filled = self._carried, self._filled
        self._size += filled - carried

        def take() -> None:
            self._hasher.update(slot.memory[carried:filled])
            self._new.write(slot.memory[: filled - filled % _ALIGNED])

        slot.work = self._crew.submit(take)

    def finish(self) -> StoredObject:
        self._wait()
        slot, left = self._slots[self._turn], self._filled % _ALIGNED
        self._new.write(slot.memory[self._filled - left : self._filled])
        return self._named()

    def publish(self) -> None:
        self._new.publish(self._prefix + self._named().key)

    def close(self) -> None:
        self._crew.close()
        wait([slot.work for slot in self._slots if slot.work is not None], _WAIT_SECONDS)
        self._new.close()

    def _wait(self) -> None:
        for slot in (self._slots[1 - self._turn], self._slots[self._turn]):  # in the order in which they were filled
            if slot.work is not None:
                slot.work.result(_WAIT_SECONDS)
                slot.work = None
