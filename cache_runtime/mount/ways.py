"""Which way a large file is read: by the kernel past us, or through us.

The kernel wants all handles of one node id to be read one way, and all that are read past us to name one backing id; a
handle that does not fit fails with EIO. So the first handle of an id decides, and while it is open, others follow. To
change the way under open handles, the name is given another id (`nodes.THROUGH` set or not): who opens it from then on
comes to another node, and old handles go on.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cache_runtime.mount.nodes import THROUGH, ino_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache_runtime.mount.backing import BackingIds
    from cache_runtime.mount.counters import Counters
    from cache_runtime.mount.operations import Kernel
    from cache_runtime.store.shelf import Lent
    from sources import ObjectRef


class Node:
    """A node id with open handles.

    Attributes:
        ref: The object, all of which the file is.
        handles: How many are open.
        backing: Id of the file that the kernel reads for them; 0: they are read through us.
        present: How many blocks, from the first one on, were found to be cached.
        is_left: Whether the name was led to the other id meanwhile.
        is_checking: Whether somebody checks the blocks for the first time.
    """

    __slots__ = ("backing", "handles", "is_checking", "is_left", "present", "ref")

    def __init__(self, ref: ObjectRef, backing: int) -> None:
        self.ref = ref
        self.backing = backing
        self.handles = 0
        self.present = 0
        self.is_left = self.is_checking = False


class Ways:
    """Decides for each handle of a file that might be read past us. For any number of threads.

    Attributes:
        switched: Numbers of the files whose names lead to ids with `THROUGH`.
    """

    def __init__(self, ids: BackingIds, kernel: Kernel, counters: Counters) -> None:
        self._ids = ids
        self._kernel = kernel
        self._counters = counters
        self._lock = threading.Lock()
        self._nodes: dict[int, Node] = {}
        self.switched: set[int] = set()

    def join(self, node: int) -> int | None:
        """Add a handle to those of an id, if there are any; return their backing id, None if there are none."""
        with self._lock:
            found = self._nodes.get(node)
            if found is None:
                return None
            found.handles += 1
            return found.backing

    def begin(self, node: int, ref: ObjectRef, lent: Lent | None) -> int:
        """Add a handle, which decides if it is the first one; return the backing id, 0 if it is read through us.

        Args:
            node: The id.
            ref: The object, all of which the file is.
            lent: Its file, if all of it is cached and checked.
        """
        with self._lock:
            found = self._nodes.get(node)
            if found is None:
                backing = 0 if lent is None else self._ids.open(lent, ref.size)
                found = self._nodes[node] = Node(ref, backing)
            found.handles += 1
            return found.backing

    def leave(self, node: int) -> None:
        """Take a handle away."""
        with self._lock:
            found = self._nodes[node]
            found.handles -= 1
            if found.handles:
                return
            del self._nodes[node]
            if found.backing:
                self._ids.close(found.backing)
            if node ^ THROUGH not in self._nodes:
                self.switched.discard(ino_in(node))  # either id is as good now; the set stays small

    def switch(self, node: int) -> bool:
        """Let the name of a file lead to its other id, once while this one has handles; False if that one has too."""
        ino, other = ino_in(node), node ^ THROUGH
        with self._lock:
            found = self._nodes.get(node)
            if found is None or found.is_left or other in self._nodes:
                return False
            found.is_left = True
            (self.switched.add if other & THROUGH else self.switched.discard)(ino)
            self._counters.switches += 1
        self._kernel.upgrade(ino)
        return True

    def nodes(self) -> list[tuple[int, Node]]:
        """Return the ids that have handles."""
        with self._lock:
            return list(self._nodes.items())

    def close(self) -> None:
        """Take all files back."""
        with self._lock:
            _close_all(self._ids, self._nodes.values())
            self._nodes.clear()


def _close_all(ids: BackingIds, nodes: Iterable[Node]) -> None:
    for node in nodes:
        if node.backing:
            ids.close(node.backing)
