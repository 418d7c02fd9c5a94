"""The node-local store: what is cached in one directory, for all processes that use it."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakSet

import lmdb

from cache_runtime.errors import CacheCapacityError, CacheError, CacheOffError
from cache_runtime.store import lookups
from cache_runtime.store.coming import Announcements
from cache_runtime.store.directory import distrust_index, prepare_directory
from cache_runtime.store.diskfailures import Verdict, has_room_again, judge
from cache_runtime.store.filling import Filler
from cache_runtime.store.ghosts import MissReason
from cache_runtime.store.layout import MIN_CAPACITY_BYTES, SMALL_BYTES, slot_of
from cache_runtime.store.lending import StoreLender
from cache_runtime.store.pins import Pins, PinStatus
from cache_runtime.store.quarantine import Quarantine
from cache_runtime.store.scrubbing import Scrubber
from cache_runtime.store.shares import NO_SHARE, Share, status_of
from cache_runtime.store.status import StoreStatus

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from typing_extensions import Buffer

    from cache_runtime.store.coming import Ending, Expectation
    from cache_runtime.store.layout import BlockRun
    from cache_runtime.store.scrubbing import ScrubReport
    from sources import ObjectRef

_log = logging.getLogger(__name__)


class BlockStore(StoreLender):
    """Ranges of immutable objects in one directory, safe for any number of threads and processes, without a daemon.

    Objects of up to 1 MiB are stored whole, larger ones in blocks of 4 MiB. It usually is read through `Client`, which
    fills it. Usable in children of a fork; pickling carries the directory and the limits.

    Whatever happens to the disk, `find` and the fills answer "not there" and "not stored": a failing disk turns the
    store off for this process, with one log event, a count in `stats` and a reason in `status`.

    Attributes:
        stats: What this process did; a `Client` adds its own reads.
    """

    def __init__(self, directory: str, *, capacity_bytes: int, free_floor_bytes: int = 0) -> None:
        if capacity_bytes < MIN_CAPACITY_BYTES:
            raise CacheCapacityError(capacity_bytes, minimum_bytes=MIN_CAPACITY_BYTES)
        index, visited, self.locks = prepare_directory(directory, capacity_bytes=capacity_bytes)
        super().__init__(directory, index, visited)
        self.capacity_bytes = capacity_bytes
        self.free_floor_bytes = free_floor_bytes
        self.off_reason: str | None = index.read_only_reason
        self._filler = Filler(self, index, visited)
        self._announcements = Announcements(directory)
        self._pins = Pins(directory, index, self._filler, self.locks)
        self._quarantine = Quarantine(self, index, visited, self._filler.evictor, shelf=self._shelf)
        _stores.add(self)

    @classmethod
    def open(cls, directory: Path, *, capacity_bytes: int, free_floor_bytes: int = 0) -> BlockStore:
        """Open a cache directory, creating it if it is not there; what was cached before and has room is there again.

        Args:
            directory: On a local file system.
            capacity_bytes: Limit of the bytes on disk, index included; at least 32 MiB.
            free_floor_bytes: Free space of the file system that fills leave alone.

        Raises:
            CacheDirectoryError: If it cannot be created or written, or holds something that is no cache.
            CacheCapacityError: If the capacity is too small.
        """
        path = os.path.realpath(directory)
        store = cls(path, capacity_bytes=capacity_bytes, free_floor_bytes=free_floor_bytes)
        if store.off_reason is None:
            store._filler.evictor.sweep()
            store._filler.rooms.shrink()
        return store

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.directory, self.capacity_bytes, self.free_floor_bytes)

    def checksums(self, ref: ObjectRef, run: BlockRun) -> list[int] | None:
        """Return the checksums that were stored with blocks of a large object; None if one of them is not cached.

        They are `blockfiles.block_checksum` of the bytes; these are not looked at.
        """
        if self._unreadable:
            return None
        file = self._files.get(ref.id)
        known = None if file is None or file.size != ref.size else file.checksums(run)
        if known is not None:
            return known
        try:
            return lookups.stored_checksums(self._index, ref, run)
        except (OSError, lmdb.Error) as error:
            self.fail(error)
            return None

    def missing_blocks(self, ref: ObjectRef, blocks: Iterable[int]) -> list[int]:
        """Return those of some blocks of an object that are not cached; a small object has the one block 0.

        Their bytes are not checked.
        """
        return self.missing_among([(ref, blocks)])[0]

    def missing_among(self, wanted: Sequence[tuple[ObjectRef, Iterable[int]]]) -> list[list[int]]:
        """Do `missing_blocks` for many objects, on one snapshot: not more than some thousand, others wait for it."""
        if not self._unreadable:
            try:
                return lookups.missing_among(self._index, wanted)
            except (OSError, lmdb.Error) as error:
                self.fail(error)
        return [list(blocks) for _, blocks in wanted]

    def admits(self, ref: ObjectRef, *, share: Share = NO_SHARE, length: int | None = None) -> bool:
        """Say whether a fill of this object would be stored, as far as one can tell before.

        Args:
            ref: The object.
            share: For which it would be filled.
            length: Bytes that are read past the cache if not: by them a share that is read in rounds counts its rounds.
                None: all of a small object, nothing of a large one.
        """
        size = (ref.size if ref.size <= SMALL_BYTES else 0) if length is None else length
        return self.off_reason is None and self._filler.admits(ref, share, size)

    def admitting(
        self, ref: ObjectRef, run: BlockRun, *, share: Share = NO_SHARE, guest: bool = False
    ) -> AbstractContextManager[int]:
        """Find room for blocks of a large object before they are fetched, and say for how many, from the first one on.

        It is kept for them meanwhile, so that of many fetches side by side only those begin that `put` will store.
        """
        return self._filler.admitting(ref, run, share=share, guest=guest)

    def put(
        self,
        ref: ObjectRef,
        first: int,
        data: Buffer,
        *,
        share: Share = NO_SHARE,
        guest: bool = False,
        crcs: Sequence[int] | None = None,
    ) -> bool:
        """Store neighbouring whole blocks of an object from block `first` on; a small object has the one block 0.

        Args:
            ref: The object.
            first: Number of the first block.
            data: The bytes of the blocks.
            share: Charged for them, if the object has no bytes here yet.
            guest: Whether it is a copy of what another node owns: it takes free room only, and goes first.
            crcs: Of each block (`block_checksum`), or of a small object (`layout.checksum` of its bytes, seeded with
                its id), from whoever checked the bytes already; None: they are computed.

        Returns:
            False if there is no room and none can be made, or the store is off.
        """
        return self._filler.put(ref, first, data, share=share, guest=guest, crcs=crcs)

    def put_many(
        self,
        items: Sequence[tuple[ObjectRef, Buffer]],
        *,
        share: Share = NO_SHARE,
        guest: bool = False,
        crcs: Sequence[int] | None = None,
    ) -> int:
        """Store small objects (up to 1 MiB) whole: much cheaper than one by one.

        Args:
            items: Objects and all of their bytes.
            share: As in `put`.
            guest: As in `put`.
            crcs: As in `put`, one for each object.

        Returns:
            How many were stored.
        """
        return self._filler.put_many(items, share=share, guest=guest, crcs=crcs)

    def pin(self, objects: Iterable[ObjectRef | bytes], label: str) -> int:
        """Never evict some objects (or ids), cached or yet to be, until `unpin`; they still count for quotas.

        Returns:
            How many of them are cached and pinned now. The rest follows as it is filled; small ones that are cached but
            found no room in a pinned slab stay as they are.

        Raises:
            CacheShareError: If the label is empty or too long.
            CacheOffError: If the index cannot be read or written.
        """
        ids = [found if isinstance(found, bytes) else found.id for found in objects]
        with self._telling():
            return self._pins.pin(ids, label)

    def unpin(self, label: str) -> int:
        """Take the pins of a label off; return how many there were.

        Raises:
            CacheOffError: If the index cannot be read or written.
        """
        with self._telling():
            return self._pins.unpin(label)

    def pins(self) -> tuple[PinStatus, ...]:
        """Return what is pinned, by label.

        Raises:
            CacheOffError: If the index cannot be read.
        """
        with self._telling():
            return self._pins.status()

    def evict(self, objects: Iterable[ObjectRef | bytes] = (), *, share: str | None = None, need_bytes: int = 0) -> int:
        """Evict objects (or ids), a share, or as many bytes as asked for, least wanted first; never what is pinned.

        Returns:
            Bytes freed on disk. A small object is not found any more, but its bytes lie in a slab with others', and are
            freed (and taken off `used_bytes`) with the last of these, or when the slab is evicted. What is written just
            now stays.

        What another process has checked already it may read until the slab or file is gone: objects are immutable, so
        that is the right bytes. To free room, name a share or bytes.

        Raises:
            CacheOffError: If the index cannot be read or written.
            CacheTimeoutError: If another process evicts for half a minute.
        """
        ids = [found if isinstance(found, bytes) else found.id for found in objects]
        with self._telling():
            return self._filler.evict(ids, share=share, need_bytes=need_bytes)

    def why_missing(self, ref: ObjectRef) -> MissReason:
        """Tell why an object (or a block of it) that is not cached is not, as far as it is remembered."""
        return MissReason.STORE_OFF if self.off_reason is not None else self._visited.ghosts.reason(ref.id)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Raise what a failing disk does as an error of this package."""
        try:
            yield
        except (CacheError, lmdb.Error, OSError) as error:
            if isinstance(error, CacheError):
                raise
            self.fail(error)
            raise CacheOffError(self.directory, str(error)) from error

    def scrub(
        self,
        *,
        bytes_per_second: float | None = None,
        objects: Iterable[ObjectRef | bytes] | None = None,
        stop: threading.Event | None = None,
        on_progress: Callable[[ScrubReport], None] | None = None,
    ) -> ScrubReport:
        """Read what is cached from the disk, and forget what fails its check: the next read fetches it anew.

        Args:
            bytes_per_second: Most bytes to read in a second; None: as many as the disk gives.
            objects: Objects (or ids) to check, with their slabs' other records left out; None: all.
            stop: Set it to end the scrub.
            on_progress: Called after each unit with what was found so far.

        Raises:
            CacheOffError: If the index cannot be read or written.
        """
        only = None if objects is None else {found if isinstance(found, bytes) else found.id for found in objects}
        with self._telling():
            return Scrubber(
                self.directory,
                self._index,
                forget=self._quarantine.forget_part,
                drop=self._quarantine.forget_unit,
                bytes_per_second=bytes_per_second,
                stop=stop,
                on_progress=on_progress,
            ).run(only)

    def missing_ids(self, object_ids: Sequence[bytes]) -> list[bytes]:
        """Return those of some objects' ids of which nothing is cached."""
        if not self._unreadable:
            try:
                return list(lookups.missing_ids(self._index, object_ids))
            except (OSError, lmdb.Error) as error:
                self.fail(error)
        return list(object_ids)

    def expect(self, object_ids: Sequence[bytes], size: int, *, share: Share = NO_SHARE) -> Ending | None:
        """Announce objects that are read soon, after all that this process announced before.

        Until what is returned is called, these are evicted last, and never for what is read later or was not announced.

        Args:
            object_ids: The objects, each once.
            size: Bytes that are read of them.
            share: Whose they are.

        Returns:
            Ends that. With True they were read: from then on they go first, unless somebody reads them, or the share
            keeps what it reads in rounds. None if the disk has no room for an announcement.
        """
        if self.off_reason is None:
            try:
                return partial(self._end, self._announcements.add(object_ids, size), share)
            except OSError as error:
                self.fail(error)
        return None

    def touch(self, object_id: bytes) -> None:
        """Mark an object as read, so that the evictor passes over it once."""
        self._slots[slot_of(object_id) & self._mask] = self._visited.now

    @property
    def unreadable(self) -> bool:
        """Whether the disk failed so that nothing is read from it any more; one that merely is full still is read."""
        return self._unreadable

    def can_read(self, object_id: bytes) -> bool:
        """Say whether the disk that an object is on, or would be, did not fail."""
        return not self._unreadable

    def budget_bytes(self, share: Share = NO_SHARE) -> int:
        """Return how many bytes of a share's objects there is room for, if nothing else is cached."""
        quota = share.quota_bytes
        limit = self._filler.rooms.limit_bytes() if quota is None else min(quota, self._filler.rooms.limit_bytes())
        # less what slabs leave unused at their ends, and what is evicted beyond the need
        return limit - self.capacity_bytes // 32

    def status(self) -> StoreStatus:
        """Look at what is cached.

        Raises:
            CacheOffError: If the index cannot be read.
        """
        try:
            with self._index.reading() as tables:
                used = tables.counter(b"used")
                objects, _, parts = tables.totals()
                commits = tables.commits()
                shares = status_of(tables.share_rows())
        except lmdb.Error as error:
            raise CacheOffError(self.directory, str(error)) from error
        return StoreStatus(
            directory=self.directory,
            capacity_bytes=self.capacity_bytes,
            used_bytes=used + self._filler.rooms.overhead_bytes(),
            objects=objects,
            blocks=parts,
            off_reason=self.off_reason,
            shares=shares,
            commits=commits,
        )

    def close(self) -> None:
        """Let go of files; slices that were handed out stay valid, and so does the store: it opens them again.

        The index is flushed, so that a crash of the machine from here on does not cost a rebuild.
        """
        self._records.clear()
        self._shelf.clear()
        self._announcements.close()
        self._filler.release()
        try:
            self._index.settle()
        except (OSError, lmdb.Error) as error:
            self.fail(error)

    def fail(self, error: OSError | lmdb.Error) -> None:
        """Turn the store off for this process, once, for what a failing or full disk raised."""
        if isinstance(error, lmdb.ReadersFullError):
            self._index.free_dead_readers()
            return
        if isinstance(error, CacheError):  # of a stopped process that holds the write lock, for one
            _log.warning("cache index not changed: %s", error)
            return
        verdict, reason = judge(error, directory=self.directory, is_off=self.off_reason is not None)
        if verdict == Verdict.PASSING or self._unreadable:
            return
        if verdict == Verdict.WRITES_FAIL:
            if self.off_reason is not None:
                return
        else:
            self._unreadable = True
            self._records.clear()  # so that nothing is recalled
            self._shelf.let_go()
            distrust_index(self.directory)
        self.off_reason = reason
        self.stats.store_failures += 1
        _log.error(
            "cache turned off for this process directory=%s reason=%s readable=%s",
            self.directory,
            self.off_reason,
            not self._unreadable,
        )

    def fill_again(self) -> bool:
        """Turn on a store that a full disk turned off, if the disk has room again; False if it stays as it is.

        For processes that live for days. Who asks once a minute finds out soon enough.
        """
        if self._unreadable or not has_room_again(self.off_reason, self.directory, floor_bytes=self.free_floor_bytes):
            return False
        self.off_reason = None
        _log.warning("cache turned on again, its disk has room directory=%s", self.directory)
        return True

    def _end(self, expected: Expectation, share: Share, was_read: bool) -> None:
        expected.end(was_read=was_read)
        if was_read and not share.cycle_bytes:  # else what was read is kept, as long as the rounds go on
            for object_id in expected.object_ids:
                self._visited.clear(slot_of(object_id))
            self._filler.refusals.forget()

    def forget_parent(self) -> None:
        """Start anew in the child of a fork with what only one process may use; called by the fork itself."""
        super().forget_parent()
        self.locks.forget_parent()
        self._filler.forget_parent()
        self._announcements.forget_parent()


def _reopen(directory: str, capacity_bytes: int, free_floor_bytes: int) -> BlockStore:
    return BlockStore(directory, capacity_bytes=capacity_bytes, free_floor_bytes=free_floor_bytes)


_stores: WeakSet[BlockStore] = WeakSet()


def _after_fork_in_child() -> None:
    for store in _stores:
        store.forget_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
