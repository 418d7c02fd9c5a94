"""What has to be looked at now and then while files are open."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from cache_runtime.store.layout import BLOCK_BYTES
from sources.crew import Crew

if TYPE_CHECKING:
    from cache_runtime.mount.backing import BackingIds
    from cache_runtime.mount.waiting import Waiting
    from cache_runtime.mount.ways import Node, Ways
    from cache_runtime.store.nodestore import NodeStore

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.5
_LOOK_BLOCKS = 4096  # of one file at a time: some milliseconds


class Keeper:
    """A thread that changes the way of files that became wholly cached, or whose disk failed, and ends long waits.

    Args:
        store: This node's store.
        ways: Of the open files.
        ids: Whether files can be read past us.
        waiting: Requests without an answer.
        retry_seconds: How often to look whether a full disk has room again.
    """

    def __init__(
        self, store: NodeStore | None, ways: Ways, ids: BackingIds, waiting: Waiting, *, retry_seconds: float
    ) -> None:
        self._store = store
        self._retry_seconds = retry_seconds
        self._retried = time.monotonic()
        self._ways = ways
        self._ids = ids
        self._waiting = waiting
        self._checks = Crew(1, name="forebay-mount-check")
        self._ended = threading.Event()
        threading.Thread(target=self._keep, name="forebay-mount-keep", daemon=True).start()

    def status(self) -> dict[str, object]:
        """Count the files that the kernel reads past us, and those of them that only open handles keep on the disk.

        And say whether what is fetched is cached.
        """
        through = [node for _, node in self._ways.nodes() if node.backing]
        evicted = [node for node in through if self._is_evicted(node)]
        reason = None if self._store is None else self._store.off_reason
        return {
            "cache_off_reason": reason,
            "cache_is_filled": self._store is not None and reason is None,
            "passthrough_files": len(through),
            "evicted_while_open_files": len(evicted),
            "evicted_while_open_bytes": sum(node.ref.size for node in evicted),
        }

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._checks.close()

    def _keep(self) -> None:
        while not self._ended.wait(_PAUSE_SECONDS):
            try:
                self._waiting.expire()
                if self._store is not None:
                    self._fill_again(self._store)
                    for number, node in self._ways.nodes():
                        self._look(self._store, number, node)
            except Exception:  # noqa: BLE001 # logged; without this thread no wait would end any more
                _log.exception("open files were not looked at; tried again")

    def _fill_again(self, store: NodeStore) -> None:
        """Turn on a cache that a full disk turned off: a mount lives for longer than disks are full."""
        if time.monotonic() - self._retried >= self._retry_seconds:
            self._retried = time.monotonic()
            store.fill_again()

    def _look(self, store: NodeStore, number: int, node: Node) -> None:
        if node.is_left:
            return
        if node.backing:
            store.touch(node.ref.id)  # reads past us leave no mark, and the evictor takes what has none
            if self._is_bad(store, node):
                _log.warning("no longer read past the mount: its disk failed or it is damaged object=%s", node.ref.uri)
                self._ways.switch(number)
        elif self._ids.is_possible and not node.is_checking and self._is_complete(store, node):
            node.is_checking = True
            self._checks.submit(lambda: self._check(store, number, node))

    def _is_complete(self, store: NodeStore, node: Node) -> bool:
        """Go on to look whether all blocks are cached, from where the last look ended."""
        total = -(-node.ref.size // BLOCK_BYTES)
        some = range(node.present, min(node.present + _LOOK_BLOCKS, total))
        missing = store.missing_blocks(node.ref, some)
        node.present = missing[0] if missing else some.stop
        return node.present == total

    def _check(self, store: NodeStore, number: int, node: Node) -> None:
        """Check a file for the first time, and let who opens it from now on read it past us."""
        if store.lend(node.ref, 0, node.ref.size) is not None:
            if self._ways.switch(number):
                return
        else:
            node.present = 0  # some of it was evicted or damaged
        node.is_checking = False

    def _is_bad(self, store: NodeStore, node: Node) -> bool:
        if not store.can_read(node.ref.id):
            return True
        total = -(-node.ref.size // BLOCK_BYTES)
        some = range(min(total, _LOOK_BLOCKS))
        # one that was evicted misses all, and the kernel has its bytes still
        return 0 < len(store.missing_blocks(node.ref, some)) < len(some)

    def _is_evicted(self, node: Node) -> bool:
        return self._store is not None and bool(self._store.missing_blocks(node.ref, range(1)))
