"""Taking a mount away, with the processes that keep it up."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ds.errors import NotMountedError
from ds.mounting.listing import point_of, record_at
from ds.mounting.points import our_mount_at, real_point, take_away
from ds.mounting.records import is_running

if TYPE_CHECKING:
    from ds.mounting.records import Records

_END_SECONDS = 20.0


def end_mount(records: Records, directory: str | os.PathLike[str], *, lazily: bool) -> str:
    """Take a mount away, end its server, and return where it was.

    Args:
        records: Of the home that it was made from.
        directory: Where it is mounted.
        lazily: Also if it is in use.

    Raises:
        NotMountedError: If nothing of ours is there, nor about to be.
        MountBusyError: If it is in use, and not to be taken away lazily.
    """
    point = real_point(directory)
    record = record_at(records, point)
    made_at = point
    if record is not None:
        made_at, point = record.plan.mount_point, point_of(record)
    supervisor = record.supervisor if record is not None and is_running(record.supervisor) else None
    if our_mount_at(point) is None and supervisor is None:
        records.remove(made_at)
        raise NotMountedError(point)
    if our_mount_at(point) is not None:
        take_away(point, lazily=lazily)
    if supervisor is not None:
        _await_end(supervisor)
    records.remove(made_at)
    return point


def _await_end(supervisor: int) -> None:
    """Wait until a mount's processes have ended: when nobody is inside any more, or some seconds later."""
    started = time.monotonic()
    told = False
    while is_running(supervisor) and time.monotonic() - started < _END_SECONDS:
        if not told and time.monotonic() - started > _END_SECONDS / 10:
            told = True
            with suppress(ProcessLookupError):  # it waits before it starts a dead server again
                os.kill(supervisor, signal.SIGTERM)
        time.sleep(0.02)
