"""What mounts were made from a home: a file, a log and a socket of each. Loads nothing else of ours."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ds.mounting.plans import MountPlan

_LOG_BYTES = 16 << 20


@dataclass(frozen=True)
class Record:
    """A mount that a supervisor keeps.

    Attributes:
        plan: What it shows.
        supervisor: Its process id.
        server: That of the process that serves it; 0 while there is none.
        since: When it was mounted first, seconds since 1970.
        restarts: How often its server died and was started again.
        device: Of its mount, as `mountinfo.Mounted` has it: finds it where its mount point was moved to.
        number: Likewise.
    """

    plan: MountPlan
    supervisor: int
    server: int
    since: float
    restarts: int = 0
    device: str = ""
    number: int = 0


class Records:
    """The mounts of a home. Each record has one writer, its supervisor; a file is whole or not there."""

    def __init__(self, home: Path) -> None:
        self.directory = home / "mounts"

    def file(self, mount_point: str, suffix: str) -> Path:
        """Return a file of a mount: `.json`, `.log` or `.sock`."""
        return self.directory / (hashlib.blake2b(os.fsencode(mount_point), digest_size=8).hexdigest() + suffix)

    def write(self, record: Record) -> None:
        """Keep a record in the place of an earlier one."""
        self.prepare()
        path = self.file(record.plan.mount_point, ".json")
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(record), indent=2))
        temporary.rename(path)

    def prepare(self) -> None:
        """Make the directory, for this user only."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def get(self, mount_point: str) -> Record | None:
        """Return a mount's record; None if there is none, or it is damaged."""
        return _read(self.file(mount_point, ".json"))

    def all(self) -> list[Record]:
        """Return all records, by mount point."""
        found = [record for path in self.directory.glob("*.json") if (record := _read(path)) is not None]
        return sorted(found, key=lambda record: record.plan.mount_point)

    def remove(self, mount_point: str) -> None:
        """Forget a mount; its log stays."""
        for suffix in (".json", ".sock"):
            with suppress(FileNotFoundError):
                self.file(mount_point, suffix).unlink()

    def log(self, mount_point: str) -> int:
        """Open a mount's log to append to; a long one is begun anew, and the old one kept beside it."""
        self.prepare()
        path = self.file(mount_point, ".log")
        with suppress(FileNotFoundError):
            if path.stat().st_size > _LOG_BYTES:
                path.rename(path.with_suffix(".log.1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _read(path: Path) -> Record | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return Record(**{**found, "plan": MountPlan.decode(json.dumps(found["plan"]))})
    except (OSError, ValueError, TypeError, KeyError):
        return None  # half a file cannot be; what an older version wrote is as good as none


def is_running(process: int) -> bool:
    """Say whether there is a process of this id that is not dead yet."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"
