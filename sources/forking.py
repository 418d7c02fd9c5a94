"""What client libraries with threads of their own leave in a forked child."""

from __future__ import annotations

import os
import threading
import weakref

_lock = threading.Lock()
_owners: weakref.WeakSet[object] = weakref.WeakSet()
_at_fork: list[list[object]] = []


def keep_in_children(owner: object) -> None:
    """Never free an object, and the native client that it owns, in a process forked from this one.

    Freeing such a client waits for the library's threads, or for a lock that one of them held, and a child has none of
    them. What the garbage collector would have found is kept as well: references are taken before the fork.

    Args:
        owner: Can be referred to weakly.
    """
    with _lock:
        _owners.add(owner)


def _before() -> None:
    _lock.acquire()
    _at_fork.append(list(_owners))


def _after_in_parent() -> None:
    _at_fork.pop()
    _lock.release()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_lock.release)
