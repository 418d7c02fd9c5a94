"""What a mount shows, where and how: all that its processes tell each other. Loads nothing else of ours."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class MountPlan:
    """What a mount shows, where and how.

    Attributes:
        mount_point: Absolute, without symbolic links.
        dataset: Its name.
        revision: As it was written; None is the branch that the dataset was on.
        commit: What it meant.
        path: What of it is shown; "" is all.
        home: The catalog of this machine, and where the mount's record, socket and log lie.
        working_copy: Its directory, if the dataset is that of one.
        branch: The branch to follow; None: the mount stays on the commit.
        follow_seconds: How often it is looked at.
        uid: Whose the files are; None: of who mounts.
        gid: Their group; None likewise.
        allow_other: Whether other users may look into it.
        passthrough: Whether the kernel may read cached files by itself.
        small_files: Whether it opens files by itself instead; None: if none of them is large.
        ahead_bytes: How far ahead of a stream is fetched; None: as far as is usual. 0: not at all.
        prefetch_bytes: How much of small files is fetched before they are opened; None and 0 likewise.
        read_seconds: When a read without an answer fails; None likewise.
        log_json: Whether logs are for machines.
    """

    mount_point: str
    dataset: str
    revision: str | None
    commit: str
    path: str
    home: str
    working_copy: str | None = None
    branch: str | None = None
    follow_seconds: float = 5.0
    uid: int | None = None
    gid: int | None = None
    allow_other: bool = False
    passthrough: bool = True
    small_files: bool | None = None
    ahead_bytes: int | None = None
    prefetch_bytes: int | None = None
    read_seconds: float | None = None
    log_json: bool = False

    @property
    def source(self) -> str:
        """What is mounted, as people write it and /proc/mounts shows it."""
        revision = self.branch or self.revision or self.commit[:12]
        return f"{self.dataset}@{revision.replace('/', '%2F')}{'/' if self.path else ''}{self.path}"

    def encode(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> MountPlan:
        """Read what `encode` wrote; fields of later versions are left out."""
        found = json.loads(text)
        return cls(**{field.name: found[field.name] for field in fields(cls) if field.name in found})


@dataclass(frozen=True)
class Mounted:
    """What a server says when its mount is there.

    Attributes:
        commit: What it shows.
        files: How many.
        bytes: Of them all.
        passthrough: Whether the kernel reads cached files by itself.
        reason: Why not; "" if it does.
    """

    commit: str
    files: int
    bytes: int
    passthrough: bool
    reason: str
