"""What a node's store can do, whether it has one directory (`BlockStore`) or several (`DiskSet`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cache_runtime.store.shares import NO_SHARE

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    import lmdb
    from typing_extensions import Buffer

    from cache_runtime.stats import ReadStats
    from cache_runtime.store.coming import Ending
    from cache_runtime.store.ghosts import MissReason
    from cache_runtime.store.holding import Holding
    from cache_runtime.store.layout import BlockRun
    from cache_runtime.store.pins import PinStatus
    from cache_runtime.store.scrubbing import ScrubReport
    from cache_runtime.store.shares import Share
    from cache_runtime.store.shelf import Lent
    from cache_runtime.store.status import StoreStatus
    from sources import Location, ObjectRef


class FillLocks(Protocol):
    """Locks between those who fill the same blocks, see `locks.RangeLocks`."""

    def fill(self, object_id: bytes, run: BlockRun, *, seconds: float) -> AbstractContextManager[None]:
        """Hold some blocks of an object."""

    def claim(self, fills: Sequence[tuple[bytes, BlockRun]]) -> AbstractContextManager[list[bool]]:
        """Hold those of many fills that are free now."""


class NodeStore(Protocol):
    """The store of this node; each method is described at `BlockStore`."""

    @property
    def directory(self) -> str:
        """The directory, or the first one."""

    @property
    def capacity_bytes(self) -> int:
        """What all directories may use."""

    @property
    def stats(self) -> ReadStats:
        """What this process did."""

    @property
    def off_reason(self) -> str | None:
        """Why this process fills nothing any more, None while it does."""

    @property
    def locks(self) -> FillLocks:
        """Locks between those who fill the same blocks."""

    def find(self, ref: ObjectRef, offset: int, length: int) -> memoryview | None:
        """Return a range if it is cached."""

    def recall(self, location: Location) -> memoryview | None:
        """Return a range if it is cached and was checked before; None says nothing."""

    def find_checked(self, location: Location) -> memoryview | None:
        """Return a range if it is cached and no block has to be checked for it."""

    def find_many(self, locations: Sequence[Location]) -> list[memoryview | None]:
        """Do `find` for many ranges."""

    def whole(self, ref: ObjectRef) -> memoryview | None:
        """Return all of a large object if it is cached and was checked before; None says nothing."""

    def hold(self, ref: ObjectRef) -> Holding | None:
        """Do `whole` for single ranges, until something is evicted; None says nothing."""

    def lend_records(self, object_ids: Sequence[bytes], sizes: Sequence[int]) -> list[memoryview] | None:
        """Return the records of whole small objects in mappings, or None."""

    def copy_records(self, object_ids: Sequence[bytes], sizes: Sequence[int], into: memoryview) -> int:
        """Copy the records of whole small objects if that takes microseconds; 0 if not."""

    def lend(self, ref: ObjectRef, start: int, length: int, *, checked_only: bool = False) -> Lent | None:
        """Return where a cached range lies on disk."""

    def checksums(self, ref: ObjectRef, run: BlockRun) -> list[int] | None:
        """Return the checksums of cached blocks."""

    def missing_blocks(self, ref: ObjectRef, blocks: Iterable[int]) -> list[int]:
        """Return those of some blocks that are not cached."""

    def missing_among(self, wanted: Sequence[tuple[ObjectRef, Iterable[int]]]) -> list[list[int]]:
        """Do `missing_blocks` for many objects."""

    def missing_ids(self, object_ids: Sequence[bytes]) -> list[bytes]:
        """Return those of some ids of which nothing is cached."""

    def why_missing(self, ref: ObjectRef) -> MissReason:
        """Tell why an object is not cached."""

    def admits(self, ref: ObjectRef, *, share: Share = NO_SHARE, length: int | None = None) -> bool:
        """Say whether a fill would be stored."""

    def admitting(
        self, ref: ObjectRef, run: BlockRun, *, share: Share = NO_SHARE, guest: bool = False
    ) -> AbstractContextManager[int]:
        """Keep room for blocks that are being fetched, and say for how many of them there is."""

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
        """Store neighbouring blocks."""

    def put_many(
        self,
        items: Sequence[tuple[ObjectRef, Buffer]],
        *,
        share: Share = NO_SHARE,
        guest: bool = False,
        crcs: Sequence[int] | None = None,
    ) -> int:
        """Store small objects."""

    def pin(self, objects: Iterable[ObjectRef | bytes], label: str) -> int:
        """Never evict some objects."""

    def unpin(self, label: str) -> int:
        """Take the pins of a label off."""

    def pins(self) -> tuple[PinStatus, ...]:
        """Return what is pinned."""

    def evict(self, objects: Iterable[ObjectRef | bytes] = (), *, share: str | None = None, need_bytes: int = 0) -> int:
        """Evict objects, a share, or some bytes."""

    def scrub(
        self,
        *,
        bytes_per_second: float | None = None,
        objects: Iterable[ObjectRef | bytes] | None = None,
        stop: threading.Event | None = None,
        on_progress: Callable[[ScrubReport], None] | None = None,
    ) -> ScrubReport:
        """Check what is cached against the disk."""

    def expect(self, object_ids: Sequence[bytes], size: int, *, share: Share = NO_SHARE) -> Ending | None:
        """Announce objects that are read soon; call what is returned once they were (True) or will not be."""

    def touch(self, object_id: bytes) -> None:
        """Mark an object as read."""

    def can_read(self, object_id: bytes) -> bool:
        """Say whether the disk of an object did not fail."""

    def budget_bytes(self, share: Share = NO_SHARE) -> int:
        """Return how many bytes of objects there is room for."""

    def status(self) -> StoreStatus:
        """Look at what is cached."""

    def fail(self, error: OSError | lmdb.Error) -> None:
        """Take note of what a failing disk raised."""

    def fill_again(self) -> bool:
        """Turn on what a full disk turned off, if it has room again."""

    def close(self) -> None:
        """Let go of files."""
