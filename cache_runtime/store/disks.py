"""Several cache directories, one on each disk, as one store; a failing disk is left out."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cache_runtime.errors import CacheCapacityError, CacheDirectoryError, CacheError
from cache_runtime.store.blockstore import BlockStore
from cache_runtime.store.diskplaces import DiskLocks, DiskPlaces
from cache_runtime.store.pins import PinStatus
from cache_runtime.store.scrubbing import ScrubReport
from cache_runtime.store.shares import NO_SHARE, Share, ShareStatus
from cache_runtime.store.status import StoreStatus

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
    from cache_runtime.store.nodestore import NodeStore
    from cache_runtime.store.shelf import Lent
    from sources import Location, ObjectRef

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Disk:
    """A cache directory and its limits, see `BlockStore.open`."""

    directory: Path
    capacity_bytes: int
    free_floor_bytes: int = 0


def open_store(disks: Sequence[Disk]) -> NodeStore:
    """Open one directory as a `BlockStore`, several as a `DiskSet`.

    Raises:
        CacheDirectoryError: If none of them can be used.
        CacheCapacityError: If a capacity is too small.
    """
    if len(disks) == 1:
        return _open(disks[0])
    return DiskSet(disks)


class DiskSet:
    """The store of a node with several directories.

    Each object has its directory, see `diskplaces.py`. What is in one that fails is fetched anew, into the next one;
    from one that is full or read-only, what is there still is read. Quotas and rounds of shares are divided among the
    directories by capacity. Usable as `BlockStore` is.

    Args:
        disks: The directories; their paths are their identity.

    Raises:
        CacheDirectoryError: If none of them can be used.
        CacheCapacityError: If a capacity is too small.
    """

    def __init__(self, disks: Sequence[Disk]) -> None:
        self._disks = tuple(disks)
        self._lost: list[StoreStatus] = []
        self._stores = [store for disk in disks if (store := self._try_open(disk)) is not None]
        if not self._stores:
            raise CacheDirectoryError(str(disks[0].directory), "neither it nor another one can be used")
        self.stats: ReadStats = self._stores[0].stats
        for store in self._stores:
            store.stats = self.stats
        self.stats.store_failures += len(self._lost)
        self.capacity_bytes = sum(store.capacity_bytes for store in self._stores)
        self.directory = self._stores[0].directory
        self._places = DiskPlaces(self._stores)
        self.locks = DiskLocks(self._places)
        self._portions: dict[tuple[Share, int], Share] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return DiskSet, (self._disks,)

    def _try_open(self, disk: Disk) -> BlockStore | None:
        try:
            return _open(disk)
        except CacheCapacityError:
            raise
        except CacheError as error:
            _log.error("cache directory left out directory=%s reason=%s", disk.directory, error)
            self._lost.append(StoreStatus(str(disk.directory), disk.capacity_bytes, 0, 0, 0, str(error)))
            return None

    @property
    def off_reason(self) -> str | None:
        """Why nothing is filled any more, None while one directory is."""
        reasons = [store.off_reason for store in self._stores]
        return None if None in reasons else reasons[0]

    def find(self, ref: ObjectRef, offset: int, length: int) -> memoryview | None:
        """Do `BlockStore.find`."""
        view = self._places.first(ref.id).find(ref, offset, length)
        if view is None:
            views = (store.find(ref, offset, length) for store in self._places.homes(ref.id)[1:])
            view = next((found for found in views if found is not None), None)
        return view

    def recall(self, location: Location) -> memoryview | None:
        """Do `BlockStore.recall`."""
        return self._places.first(location.object.id).recall(location)

    def find_checked(self, location: Location) -> memoryview | None:
        """Do `BlockStore.find_checked`."""
        return self._places.first(location.object.id).find_checked(location)

    def find_many(self, locations: Sequence[Location]) -> list[memoryview | None]:
        """Do `BlockStore.find_many`."""
        views: list[memoryview | None] = [None] * len(locations)
        homes = [self._places.first(location.object.id) for location in locations]
        for store in self._stores:
            mine = [number for number, home in enumerate(homes) if home is store]
            for number, view in zip(mine, store.find_many([locations[n] for n in mine]), strict=True):
                views[number] = view
        if None in views and any(store.off_reason is not None for store in self._stores):
            for number, view in enumerate(views):
                ref, offset, length = locations[number].object, locations[number].offset, locations[number].length
                if view is None and offset >= 0 and 0 < length <= ref.size - offset:
                    views[number] = self.find(ref, offset, length)
        return views

    def whole(self, ref: ObjectRef) -> memoryview | None:
        """Do `BlockStore.whole`."""
        return self._places.first(ref.id).whole(ref)

    def hold(self, ref: ObjectRef) -> Holding | None:
        """Do `BlockStore.hold`."""
        return self._places.first(ref.id).hold(ref)

    def lend_records(self, object_ids: Sequence[bytes], sizes: Sequence[int]) -> list[memoryview] | None:
        """Do `BlockStore.lend_records`."""
        lent = []
        for object_id, size in zip(object_ids, sizes, strict=True):
            found = self._places.first(object_id).lend_records((object_id,), (size,))
            if found is None:
                return None
            lent += found
        return lent

    def copy_records(self, object_ids: Sequence[bytes], sizes: Sequence[int], into: memoryview) -> int:
        """Do `BlockStore.copy_records`."""
        end = 0
        for object_id, size in zip(object_ids, sizes, strict=True):
            copied = self._places.first(object_id).copy_records((object_id,), (size,), into[end:])
            if not copied:
                return 0
            end += copied
        return end

    def lend(self, ref: ObjectRef, start: int, length: int, *, checked_only: bool = False) -> Lent | None:
        """Do `BlockStore.lend`."""
        lent = (store.lend(ref, start, length, checked_only=checked_only) for store in self._places.homes(ref.id))
        return next((found for found in lent if found is not None), None)

    def checksums(self, ref: ObjectRef, run: BlockRun) -> list[int] | None:
        """Do `BlockStore.checksums`."""
        found = (store.checksums(ref, run) for store in self._places.homes(ref.id))
        return next((crcs for crcs in found if crcs is not None), None)

    def missing_blocks(self, ref: ObjectRef, blocks: Iterable[int]) -> list[int]:
        """Do `BlockStore.missing_blocks`."""
        return self.missing_among([(ref, blocks)])[0]

    def missing_among(self, wanted: Sequence[tuple[ObjectRef, Iterable[int]]]) -> list[list[int]]:
        """Do `BlockStore.missing_among`."""
        missing = [list(blocks) for _, blocks in wanted]
        for store, numbers in self._places.by_home([ref.id for ref, _ in wanted]):
            left = store.missing_among([(wanted[number][0], missing[number]) for number in numbers])
            for number, blocks in zip(numbers, left, strict=True):
                missing[number] = blocks
        return missing

    def missing_ids(self, object_ids: Sequence[bytes]) -> list[bytes]:
        """Do `BlockStore.missing_ids`."""
        missing = set(object_ids)
        for store, numbers in self._places.by_home(object_ids):
            mine = [object_ids[number] for number in numbers]
            missing -= set(mine).difference(store.missing_ids(mine))
        return [object_id for object_id in object_ids if object_id in missing]

    def why_missing(self, ref: ObjectRef) -> MissReason:
        """Do `BlockStore.why_missing`."""
        return self._places.home(ref.id).why_missing(ref)

    def admits(self, ref: ObjectRef, *, share: Share = NO_SHARE, length: int | None = None) -> bool:
        """Do `BlockStore.admits`."""
        store = self._places.home(ref.id)
        return store.admits(ref, share=self._portion(share, store), length=length)

    def admitting(
        self, ref: ObjectRef, run: BlockRun, *, share: Share = NO_SHARE, guest: bool = False
    ) -> AbstractContextManager[int]:
        """Do `BlockStore.admitting`."""
        store = self._places.home(ref.id)
        return store.admitting(ref, run, share=self._portion(share, store), guest=guest)

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
        """Do `BlockStore.put`."""
        store = self._places.home(ref.id)
        return store.put(ref, first, data, share=self._portion(share, store), guest=guest, crcs=crcs)

    def put_many(
        self,
        items: Sequence[tuple[ObjectRef, Buffer]],
        *,
        share: Share = NO_SHARE,
        guest: bool = False,
        crcs: Sequence[int] | None = None,
    ) -> int:
        """Do `BlockStore.put_many`."""
        return sum(
            store.put_many(
                [items[number] for number in numbers],
                share=self._portion(share, store),
                guest=guest,
                crcs=None if crcs is None else [crcs[number] for number in numbers],
            )
            for store, numbers in self._places.by_target([ref.id for ref, _ in items])
        )

    def pin(self, objects: Iterable[ObjectRef | bytes], label: str) -> int:
        """Do `BlockStore.pin`."""
        return sum(store.pin(ids, label) for store, ids in self._places.routed(objects))

    def unpin(self, label: str) -> int:
        """Do `BlockStore.unpin`."""
        return sum(store.unpin(label) for store in self._readable())

    def pins(self) -> tuple[PinStatus, ...]:
        """Do `BlockStore.pins`."""
        total: dict[str, PinStatus] = {}
        for pin in (pin for store in self._readable() for pin in store.pins()):
            so_far = total.get(pin.label, PinStatus(pin.label, 0, 0))
            counts = so_far.objects + pin.objects, so_far.cached_objects + pin.cached_objects
            total[pin.label] = PinStatus(pin.label, *counts)
        return tuple(total[label] for label in sorted(total))

    def evict(self, objects: Iterable[ObjectRef | bytes] = (), *, share: str | None = None, need_bytes: int = 0) -> int:
        """Do `BlockStore.evict`; bytes are taken from the directories by their capacity."""
        freed = sum(store.evict(ids) for store, ids in self._places.routed(objects))
        if share is not None or need_bytes > freed:
            rest = max(0, need_bytes - freed)
            for store in self._readable():
                freed += store.evict(share=share, need_bytes=math.ceil(rest * self._fraction(store)))
        return freed

    def scrub(
        self,
        *,
        bytes_per_second: float | None = None,
        objects: Iterable[ObjectRef | bytes] | None = None,
        stop: threading.Event | None = None,
        on_progress: Callable[[ScrubReport], None] | None = None,
    ) -> ScrubReport:
        """Do `BlockStore.scrub`, one directory after the other."""
        total = ScrubReport()
        routed = [(store, None) for store in self._readable()] if objects is None else self._places.routed(objects)
        for store, ids in routed:
            before = total

            def tell(report: ScrubReport, before: ScrubReport = before) -> None:
                if on_progress is not None:
                    on_progress(before + report)

            total += store.scrub(bytes_per_second=bytes_per_second, objects=ids, stop=stop, on_progress=tell)
        return total

    def expect(self, object_ids: Sequence[bytes], size: int, *, share: Share = NO_SHARE) -> Ending | None:
        """Do `BlockStore.expect`, in each object's directory."""
        ends = []
        for store in self._stores:
            mine = [object_id for object_id in object_ids if self._places.first(object_id) is store]
            end = store.expect(mine, size, share=share) if mine else None
            if end is not None:
                ends.append(end)
        return partial(_end_all, ends) if ends else None

    def touch(self, object_id: bytes) -> None:
        """Do `BlockStore.touch`."""
        self._places.home(object_id).touch(object_id)

    def budget_bytes(self, share: Share = NO_SHARE) -> int:
        """Do `BlockStore.budget_bytes`, of the directories that are filled."""
        return sum(
            store.budget_bytes(self._portion(share, store)) for store in self._stores if store.off_reason is None
        )

    def can_read(self, object_id: bytes) -> bool:
        """Do `BlockStore.can_read`."""
        return self._places.first(object_id).can_read(object_id)

    def status(self) -> StoreStatus:
        """Do `BlockStore.status`; `disks` has each directory's own, also of one that could not be opened.

        Raises:
            CacheOffError: If no index can be read.
        """
        disks = [_status_of(store) for store in self._stores]
        if all(store.unreadable for store in self._stores):
            return self._stores[0].status()
        return StoreStatus(
            directory=self.directory,
            capacity_bytes=self.capacity_bytes,
            used_bytes=sum(disk.used_bytes for disk in disks),
            objects=sum(disk.objects for disk in disks),
            blocks=sum(disk.blocks for disk in disks),
            off_reason=self.off_reason,
            shares=_add_shares([share for disk in disks for share in disk.shares]),
            disks=(*disks, *self._lost),
            commits=sum(disk.commits for disk in disks),
        )

    def fail(self, error: OSError | lmdb.Error) -> None:
        """Take note of a failure that no directory can be blamed for."""
        _log.warning("cache operation failed directories=%d error=%s", len(self._stores), error)

    def fill_again(self) -> bool:
        """Do `BlockStore.fill_again`, of each directory."""
        turned_on = [store.fill_again() for store in self._stores]
        return any(turned_on)

    def close(self) -> None:
        """Do `BlockStore.close`."""
        for store in self._stores:
            store.close()

    def store_of(self, object_id: bytes) -> BlockStore:
        """Return the store that an object is put into now."""
        return self._places.home(object_id)

    def _readable(self) -> list[BlockStore]:
        return [store for store in self._stores if not store.unreadable]

    def _fraction(self, store: BlockStore) -> float:
        return store.capacity_bytes / self.capacity_bytes

    def _portion(self, share: Share, store: BlockStore) -> Share:
        """Return a directory's part of a share: it sees that fraction of its objects."""
        if share.quota_bytes is None and not share.cycle_bytes:
            return share
        key = share, id(store)
        if key not in self._portions:
            fraction = self._fraction(store)
            quota = None if share.quota_bytes is None else int(share.quota_bytes * fraction)
            self._portions[key] = replace(share, quota_bytes=quota, cycle_bytes=int(share.cycle_bytes * fraction))
        return self._portions[key]


def _open(disk: Disk) -> BlockStore:
    return BlockStore.open(
        Path(disk.directory), capacity_bytes=disk.capacity_bytes, free_floor_bytes=disk.free_floor_bytes
    )


def _status_of(store: BlockStore) -> StoreStatus:
    try:
        return store.status()
    except CacheError as error:
        return StoreStatus(store.directory, store.capacity_bytes, 0, 0, 0, store.off_reason or str(error))


def _add_shares(rows: Iterable[ShareStatus]) -> tuple[ShareStatus, ...]:
    total: dict[str, ShareStatus] = {}
    for row in rows:
        so_far = total.get(row.share.name)
        if so_far is None:
            total[row.share.name] = row
            continue
        quota, more = so_far.share.quota_bytes, row.share.quota_bytes
        share = replace(
            row.share,
            quota_bytes=None if quota is None or more is None else quota + more,
            cycle_bytes=so_far.share.cycle_bytes + row.share.cycle_bytes,
        )
        total[row.share.name] = ShareStatus(
            share,
            used_bytes=so_far.used_bytes + row.used_bytes,
            guest_bytes=so_far.guest_bytes + row.guest_bytes,
            pinned_bytes=so_far.pinned_bytes + row.pinned_bytes,
        )
    return tuple(total[name] for name in sorted(total))


def _end_all(ends: Sequence[Ending], was_read: bool) -> None:
    for end in ends:
        end(was_read)
