"""What a pack says of itself: before, meanwhile, at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from versioning import CommitId


@dataclass(frozen=True, slots=True)
class PackPlan:
    """What a pack would do.

    Attributes:
        commit: What is packed.
        samples: Groups of files; a file that is no member of a sample counts as one.
        files: Files that go into shards.
        bytes: Of those files.
        shards: How many there will be.
        tar_bytes: Of the shards, with headers and padding; with a transform as if it changed no size.
        large_files: Files over 16 MiB, which stay where they are.
        stored_shards: How many of the shards an interrupted run has stored.
    """

    commit: CommitId
    samples: int
    files: int
    bytes: int
    shards: int
    tar_bytes: int
    large_files: int
    stored_shards: int = 0


@dataclass(frozen=True, slots=True)
class PackProgress:
    """How far a pack is.

    Attributes:
        done_bytes: Bytes of files that are in shards, those of an earlier run too.
        total_bytes: Bytes of all files.
        shards: Shards that are stored.
        total_shards: All shards.
        skipped: Inputs that were skipped.
        bytes_per_second: Of this run, so far.
    """

    done_bytes: int
    total_bytes: int
    shards: int
    total_shards: int = 0
    skipped: int = 0
    bytes_per_second: float = 0.0

    @property
    def eta_seconds(self) -> float | None:
        """How long the rest takes at this rate; None before there is one."""
        if not self.bytes_per_second:
            return None
        return (self.total_bytes - self.done_bytes) / self.bytes_per_second


@dataclass(frozen=True, slots=True)
class Skipped:
    """An input that could not be packed.

    Attributes:
        path: The file's; of a sample that a transform failed with, its first file's.
        reason: What was wrong.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class PackReport:
    """What a pack did.

    Attributes:
        commit: The new commit, or the branch's head where it has this layout already.
        is_new: Whether a commit was made.
        samples: In the shards.
        dropped: Samples that the transform returned None for.
        files: In the shards.
        shards: All shards of the result that hold something.
        resumed_shards: Those of them that an earlier run had stored.
        bytes: Of the files in the shards.
        seconds: Of this run.
        skipped: Inputs that could not be packed, by path. Without a transform they stay where they were; with one, the
            samples that they belong to are not in the new commit.
    """

    commit: CommitId
    is_new: bool
    samples: int
    dropped: int
    files: int
    shards: int
    resumed_shards: int
    bytes: int
    seconds: float
    skipped: tuple[Skipped, ...] = ()
