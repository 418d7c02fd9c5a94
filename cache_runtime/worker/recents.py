"""What was read through a worker lately: the names of its blocks, which the store does not keep."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_runtime.protocol import WholeObjects
    from cache_runtime.store.shares import Share
    from sources import ObjectRef

_GROUP_BYTES = 64 << 20  # as many as a batch may have, and as placement puts into one place
_MAX_GROUPS = 1 << 18  # some 100 MB at worst, for up to 16 TiB of large objects


class Recents:
    """Groups of blocks, most recently read last; used by the event loop's thread only."""

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple[bytes, int], tuple[ObjectRef, Share]] = OrderedDict()

    def note(self, ref: ObjectRef, offset: int, length: int, share: Share) -> None:
        """Remember a read of a range."""
        groups = self._groups
        for group in range(offset // _GROUP_BYTES, (offset + length - 1) // _GROUP_BYTES + 1):
            key = (ref.id, group)
            groups[key] = (ref, share)
            groups.move_to_end(key)
        while len(groups) > _MAX_GROUPS:
            groups.popitem(last=False)

    def note_whole(self, wanted: WholeObjects, share: Share) -> None:
        """Remember reads of small objects."""
        groups = self._groups
        for number, object_id in enumerate(wanted.ids):
            key = (object_id, 0)
            known = groups.get(key)
            groups[key] = (wanted.ref(number) if known is None else known[0], share)
            groups.move_to_end(key)
        while len(groups) > _MAX_GROUPS:
            groups.popitem(last=False)

    def newest_first(self) -> Iterator[tuple[ObjectRef, int, Share]]:
        """Iterate over a copy: object, group, share."""
        for (_, group), (ref, share) in reversed(list(self._groups.items())):
            yield ref, group, share
