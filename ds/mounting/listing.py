"""The mounts of this machine, and how they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache_runtime.mount.device import KIND
from cache_runtime.mount.mountinfo import mount_of, mounts
from ds.mounting.points import PointState, state_of
from ds.mounting.records import Record, Records, is_running
from ds.mounting.status_socket import ask_status

if TYPE_CHECKING:
    from cache_runtime.mount.mountinfo import Mounted


@dataclass(frozen=True)
class MountState:
    """One mount.

    Attributes:
        mount_point: Where.
        source: What it shows.
        state: mounted, stale, silent; starting: its server is about to be started again; gone: it was unmounted by
            force, or the machine was started anew.
        commit: What it shows now; None if it does not say.
        files: How many; None likewise.
        bytes: Of them all.
        passthrough: "yes", or "no: " and why; "" if it does not say.
        supervisor: Process that keeps it up; None if there is none.
        server: Process that serves it.
        restarts: How often that died.
        log: Its log file, with --background.
        status: All that it says of itself.
    """

    mount_point: str
    source: str
    state: str
    commit: str | None = None
    files: int | None = None
    bytes: int | None = None
    passthrough: str = ""
    supervisor: int | None = None
    server: int | None = None
    restarts: int = 0
    log: str | None = None
    status: dict[str, Any] | None = None

    @property
    def is_broken(self) -> bool:
        """Whether somebody has to do something."""
        return self.state in (PointState.STALE, PointState.SILENT)


def mount_states(records: Records) -> list[MountState]:
    """Return the mounts that are there, and those of this home that should be, by mount point."""
    seen = {mount.path: mount for mount in mounts() if mount.kind == KIND}
    known = {point_of(record): record for record in records.all()}
    points = sorted({*seen, *(point for point, record in known.items() if point in seen or _is_kept(record))})
    return [_state(records, point, seen.get(point), known.get(point)) for point in points]


def point_of(record: Record) -> str:
    """Return where a mount is now: the directories above its mount point may have been renamed."""
    seen = mount_of(record.number, record.device)
    return record.plan.mount_point if seen is None else seen.path


def record_at(records: Records, point: str) -> Record | None:
    """Return the record of the mount that is on a directory now, or was made there."""
    moved = (record for record in records.all() if point_of(record) == point)
    return next(moved, None) or records.get(point)


def _is_kept(record: Record) -> bool:
    return is_running(record.supervisor)


def _state(records: Records, point: str, mount: Mounted | None, record: Record | None) -> MountState:
    source = record.plan.source if record is not None else mount.source if mount is not None else ""
    state = str(state_of(point)) if mount is not None else "starting"
    if record is None:
        return MountState(point, source, state)
    if state == PointState.STALE and _is_kept(record):
        state = "starting"
    made_at = record.plan.mount_point
    status = ask_status(records.file(made_at, ".sock")) or {}
    passes = "yes" if status.get("passthrough") else f"no: {status.get('why_no_passthrough', '')}"
    log = records.file(made_at, ".log")
    return MountState(
        point,
        source,
        state,
        commit=status.get("commit"),
        files=status.get("files"),
        bytes=status.get("bytes"),
        passthrough=passes if status else "",
        supervisor=record.supervisor if _is_kept(record) else None,
        server=record.server if is_running(record.server) else None,
        restarts=record.restarts,
        log=os.fspath(log) if log.exists() else None,
        status=status or None,
    )
