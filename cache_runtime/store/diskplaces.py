"""Which of a node's cache directories an object is in."""

from __future__ import annotations

import math
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

from cache_runtime.errors import CacheTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cache_runtime.store.blockstore import BlockStore
    from cache_runtime.store.layout import BlockRun
    from sources import ObjectRef

_GROUPS = 4096


def rank_disks(weights: Mapping[str, float], group: int) -> tuple[str, ...]:
    """Order directories for one group of objects by weighted rendezvous: a lost one moves only what it held."""

    def score(name: str) -> float:
        digest = blake2b(f"{group}:{name}".encode(), digest_size=8).digest()
        return -weights[name] / math.log((int.from_bytes(digest, "little") + 1) / (2**64 + 2))

    return tuple(sorted(weights, key=score, reverse=True))


class DiskPlaces:
    """The order of directories of each object, by weighted rendezvous of 4096 groups of objects.

    An object is put into the first one that is filled, and may be in those before, which are full or failed since.

    Args:
        stores: The stores of the directories; weighted by their capacities.
    """

    def __init__(self, stores: Sequence[BlockStore]) -> None:
        self._stores = stores
        numbers = {store.directory: number for number, store in enumerate(stores)}
        weights = {store.directory: float(store.capacity_bytes) for store in stores}
        self._orders = [tuple(numbers[name] for name in rank_disks(weights, group)) for group in range(_GROUPS)]
        self._firsts = [stores[order[0]] for order in self._orders]

    def first(self, object_id: bytes) -> BlockStore:
        """Return the first store of an object, whatever its state."""
        return self._firsts[_group(object_id)]

    def home(self, object_id: bytes) -> BlockStore:
        """Return the store that an object is put into; the last one of its order if none is filled."""
        return self.homes(object_id)[-1]

    def homes(self, object_id: bytes) -> list[BlockStore]:
        """Return the stores that may have an object, in its order."""
        homes = []
        for number in self._orders[_group(object_id)]:
            homes.append(self._stores[number])
            if homes[-1].off_reason is None:
                break
        return homes

    def by_home(self, object_ids: Sequence[bytes]) -> Iterator[tuple[BlockStore, list[int]]]:
        """Yield each store with the numbers, in the list, of the objects that it may have."""
        homes = [self.homes(object_id) for object_id in object_ids]
        for store in self._stores:
            mine = [number for number, found in enumerate(homes) if store in found]
            if mine:
                yield store, mine

    def by_target(self, object_ids: Sequence[bytes]) -> Iterator[tuple[BlockStore, list[int]]]:
        """Yield each store with the numbers, in the list, of the objects that are put into it."""
        targets = [self.home(object_id) for object_id in object_ids]
        for store in self._stores:
            mine = [number for number, found in enumerate(targets) if found is store]
            if mine:
                yield store, mine

    def routed(self, objects: Iterable[ObjectRef | bytes]) -> list[tuple[BlockStore, list[bytes]]]:
        """Return each readable store with the ids of the objects that it may have."""
        ids = [found if isinstance(found, bytes) else found.id for found in objects]
        return [(store, [ids[n] for n in numbers]) for store, numbers in self.by_home(ids) if not store.unreadable]


class DiskLocks:
    """The fill locks of a `DiskSet`: those of each object's directory; where they fail, one fetches without."""

    def __init__(self, places: DiskPlaces) -> None:
        self._places = places

    @contextmanager
    def fill(self, object_id: bytes, run: BlockRun, *, seconds: float) -> Iterator[None]:
        """Do `RangeLocks.fill`."""
        store = self._places.home(object_id)
        with ExitStack() as stack:
            try:
                stack.enter_context(store.locks.fill(object_id, run, seconds=seconds))
            except CacheTimeoutError:
                raise
            except OSError as error:  # one fetches without
                store.fail(error)
            yield

    @contextmanager
    def claim(self, fills: Sequence[tuple[bytes, BlockRun]]) -> Iterator[list[bool]]:
        """Do `RangeLocks.claim`."""
        held = [True] * len(fills)
        with ExitStack() as stack:
            for store, numbers in self._places.by_target([object_id for object_id, _ in fills]):
                try:
                    got = stack.enter_context(store.locks.claim([fills[number] for number in numbers]))
                except OSError as error:
                    store.fail(error)
                    continue
                for number, one in zip(numbers, got, strict=True):
                    held[number] = one
            yield held


def _group(object_id: bytes) -> int:
    return (object_id[8] | object_id[9] << 8) & (_GROUPS - 1)
