"""Going through the locations of a load: what is missing, in pieces, and how much there is in all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_runtime.loading.idset import IdSet
from cache_runtime.loading.pieces import WHOLE, cost_bytes, piece_bytes
from cache_runtime.peers.placement import GROUP_BLOCKS
from cache_runtime.store.layout import BLOCK_SHIFT, SMALL_BYTES, join_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cache_runtime.loading.pieces import Piece
    from cache_runtime.store.layout import BlockRun
    from sources import Location, ObjectRef

    Wanted = Sequence[tuple[ObjectRef, Sequence[int]]]
    Look = Callable[[Wanted], list[list[int]]]

_SMALL_PER_LOOK = 2048
_LARGE_PER_LOOK = 1024
_ONLY = (0,)


class Survey:
    """One pass over locations; counters grow with it.

    Memory does not grow with the locations, but for 16 bytes per object. An object that is met again is not looked up
    again, unless it is a large one and a thousand others came between; then its blocks count again.

    Args:
        look: Says of some objects and blocks which are not there, as `BlockStore.missing_among`.
        touch: Told the id of each object of which anything is there.

    Attributes:
        objects, bytes: What the locations need: whole small objects, and the blocks of large ones that they touch.
        present_objects: Objects of which nothing is missing.
        present_bytes: Bytes that are there.
        cost_bytes: What all of it takes in a store, about.
    """

    def __init__(self, look: Look, *, touch: Callable[[bytes], None] | None = None) -> None:
        self._look = look
        self._touch = touch
        self._seen = IdSet()
        self._small: list[ObjectRef] = []
        self._large: dict[bytes, tuple[ObjectRef, set[int]]] = {}
        self.objects = self.bytes = self.present_objects = self.present_bytes = self.cost_bytes = 0

    def missing(self, locations: Iterable[Location]) -> Iterator[Piece]:
        """Yield what is missing as the locations are read, about in their order; empty ones need nothing."""
        small, large = self._small, self._large
        last = b""
        for location in locations:
            ref = location.object
            if location.length <= 0:
                continue
            if ref.size > SMALL_BYTES:
                first, end = location.offset >> BLOCK_SHIFT, (location.offset + location.length - 1) >> BLOCK_SHIFT
                large.setdefault(ref.id, (ref, set()))[1].update(range(first, end + 1))
                if len(large) > _LARGE_PER_LOOK:
                    yield from self._look_at_large()
            elif ref.id != last:
                last = ref.id
                small.append(ref)
                if len(small) == _SMALL_PER_LOOK:
                    yield from self._look_at_small()
        yield from self._look_at_small()
        yield from self._look_at_large()

    def _look_at_small(self) -> Iterator[Piece]:
        refs, self._small[:] = list(self._small), ()
        fresh = self._seen.add([ref.id for ref in refs])
        refs = [ref for ref, is_new in zip(refs, fresh, strict=True) if is_new]
        self.objects += len(refs)
        self.bytes += sum(ref.size for ref in refs)
        found = self._look([(ref, _ONLY) for ref in refs])
        for ref, missing in zip(refs, found, strict=True):
            self.cost_bytes += cost_bytes((ref, WHOLE))
            if missing:
                yield ref, WHOLE
            else:
                self.present_objects += 1
                self.present_bytes += ref.size
                self._read(ref)

    def _look_at_large(self) -> Iterator[Piece]:
        wanted = [(ref, sorted(blocks)) for ref, blocks in self._large.values()]
        self._large.clear()
        fresh = self._seen.add([ref.id for ref, _ in wanted])
        for (ref, blocks), missing, is_new in zip(wanted, self._look(wanted), fresh, strict=True):
            runs = [(ref, run) for run in cut_runs(blocks)]
            total = sum(map(piece_bytes, runs))
            self.cost_bytes += sum(map(cost_bytes, runs))
            pieces = [(ref, run) for run in cut_runs(missing)]
            self.objects += is_new
            self.bytes += total
            self.present_objects += is_new and not pieces
            self.present_bytes += total - sum(map(piece_bytes, pieces))
            if len(missing) < len(blocks):
                self._read(ref)
            yield from pieces

    def _read(self, ref: ObjectRef) -> None:
        if self._touch is not None:
            self._touch(ref.id)


def cut_runs(blocks: Sequence[int]) -> Iterator[BlockRun]:
    """Join neighbours among ascending blocks into pieces, none of them across a border of placement."""
    start = 0
    while start < len(blocks):
        end = start + 1
        while end < len(blocks) and blocks[end] // GROUP_BLOCKS == blocks[start] // GROUP_BLOCKS:
            end += 1
        yield from join_blocks(blocks[start:end])
        start = end
