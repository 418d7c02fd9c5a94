"""What hdfs-native leaves in a forked child."""

from __future__ import annotations

import os
import time

_KEPT_SECONDS = 3.0  # DATANODE_CACHE_EXPIRY of hdfs-native
_MARGIN_SECONDS = 0.2

_reads_before = False  # this process, or one that it was forked from, has used hdfs-native
_forked_at: float | None = None


def wait_for_inherited_connections() -> None:
    """Wait, in a forked child, until hdfs-native throws away the idle DataNode connections of its parent.

    It keeps them for three seconds in a global of the library, and in a child a read that is given one waits for
    threads that only the parent has. So the first call in a child may take three seconds; call this before.
    """
    global _reads_before, _forked_at
    if _reads_before and _forked_at is not None:
        time.sleep(max(0.0, _forked_at + _KEPT_SECONDS + _MARGIN_SECONDS - time.monotonic()))
        _forked_at = None
    _reads_before = True


def _note_fork() -> None:
    global _forked_at
    _forked_at = time.monotonic()


os.register_at_fork(after_in_child=_note_fork)
