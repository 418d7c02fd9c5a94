"""How much a load may bring: more of it would evict what it brought before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_runtime.errors import CacheOffError
from cache_runtime.loading.idset import IdSet
from cache_runtime.loading.pieces import cost_bytes, piece_bytes

if TYPE_CHECKING:
    from cache_runtime.client import Client
    from cache_runtime.loading.pieces import Piece
    from cache_runtime.store.nodestore import NodeStore
    from cache_runtime.store.shares import Share

_PER_ADD = 1024


def store_of(client: Client) -> NodeStore:
    """Return a client's store.

    Raises:
        CacheOffError: If it has none.
    """
    if client.store is None:
        raise CacheOffError("(none)", "the client was made without a store")
    return client.store


def room_for(store: NodeStore, share: Share | None) -> int:
    """Return how many bytes a share may have in a store, if nothing else is cached."""
    room = store.budget_bytes()
    return room if share is None or share.quota_bytes is None else min(room, share.quota_bytes)


def used_bytes(store: NodeStore) -> int:
    """Return what a store uses now; 0 of one that cannot be read, which is not filled either."""
    try:
        return store.status().used_bytes
    except CacheOffError:
        return 0


class Room:
    """Admits pieces while there is room for them beside what is there, and remembers which were left out.

    Args:
        total_bytes: Room for all; None: without end.
        used_bytes: What is there already.

    Attributes:
        left_out_bytes: Bytes of the pieces that were not admitted.
    """

    def __init__(self, total_bytes: int | None, used_bytes: int) -> None:
        self._total = total_bytes
        self._used = used_bytes
        self._left_out = IdSet()
        self._latest: set[bytes] = set()
        self.left_out_bytes = 0

    def __contains__(self, object_id: bytes) -> bool:
        """Say whether a piece of an object was left out."""
        return object_id in self._latest or object_id in self._left_out

    def __len__(self) -> int:
        return len(self._left_out) + len(self._latest)

    def admit(self, piece: Piece) -> bool:
        """Take a piece in, or leave it out."""
        if self._total is None:
            return True
        self._used += cost_bytes(piece)
        if self._used <= self._total:
            return True
        self.left_out_bytes += piece_bytes(piece)
        if piece[0].id not in self:
            self._latest.add(piece[0].id)
            if len(self._latest) >= _PER_ADD:
                self._left_out.add(list(self._latest))
                self._latest.clear()
        return False
