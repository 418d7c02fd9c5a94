"""Keeping what this node wrote: an object that was just uploaded need not be fetched back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_runtime.store.layout import BLOCK_BYTES, RUN_BLOCKS, SMALL_BYTES
from cache_runtime.store.shares import NO_SHARE

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from cache_runtime.store.nodestore import NodeStore
    from cache_runtime.store.shares import Share
    from sources import ObjectRef

_RUN_BYTES = RUN_BLOCKS * BLOCK_BYTES


def adopt(store: NodeStore, ref: ObjectRef, data: Buffer, *, share: Share = NO_SHARE) -> bool:
    """Store all bytes of an object, as far as there is room.

    Args:
        store: The cache.
        ref: The object; its bytes are `data`, which is not checked again.
        data: All of its bytes.
        share: Charged for them.

    Returns:
        Whether all of it was stored; an object that was not is read from its origin, as any other.
    """
    view = memoryview(data).cast("B")
    if ref.size <= SMALL_BYTES:
        return bool(view) and store.put(ref, 0, bytes(view), share=share)
    return all(
        store.put(ref, start // BLOCK_BYTES, view[start : start + _RUN_BYTES], share=share)
        for start in range(0, ref.size, _RUN_BYTES)
    )
