"""How garbage collection is to run, and what it says that it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from versioning.maintenance.keys import ObjectKind

if TYPE_CHECKING:
    from collections.abc import Mapping

DAY_SECONDS = 86400.0
GRACE_SECONDS = 7 * DAY_SECONDS


@dataclass(frozen=True, slots=True)
class GcPolicy:
    """How to collect."""

    grace_seconds: float = GRACE_SECONDS
    """Nothing younger is condemned, and nothing is deleted before it was condemned for so long. Longer than any commit
    takes, from its first upload; 0 only where nobody else writes."""
    check_seconds: float = DAY_SECONDS
    """As long as no ref changed, everything is marked anew only after so long, or a seventh of the grace period."""
    by: str = ""
    """Who collects, for the record."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Objects and their bytes, by kind."""

    objects: Mapping[ObjectKind, int] = field(default_factory=dict)
    bytes: Mapping[ObjectKind, int] = field(default_factory=dict)

    def plus(self, kind: ObjectKind, objects: int, size: int) -> Tally:
        """Return the tally with some more."""
        return Tally(
            {**self.objects, kind: self.objects.get(kind, 0) + objects},
            {**self.bytes, kind: self.bytes.get(kind, 0) + size},
        )

    @property
    def total_objects(self) -> int:
        """Objects of all kinds."""
        return sum(self.objects.values())

    @property
    def total_bytes(self) -> int:
        """Bytes of all kinds."""
        return sum(self.bytes.values())

    def as_json(self) -> dict[str, dict[str, int]]:
        """Return the counts by folder."""
        return {
            kind.folder.rstrip("/"): {"objects": self.objects.get(kind, 0), "bytes": self.bytes.get(kind, 0)}
            for kind in ObjectKind
        }


@dataclass(frozen=True, slots=True)
class GcReport:
    """What a run of garbage collection did; with a dry run, what it would do.

    Attributes:
        deleted: What was deleted.
        kept: Condemned objects that were not deleted: needed again, or written again.
        condemned: What was found to be unneeded now, and may be deleted by a later run.
        live_objects: How many objects are needed; None if nothing was marked.
        waits_seconds: How long the condemned objects have to wait before they may be deleted; 0 if they need not.
        held_by: Owner of the lease that keeps the sweep from starting; "" if none does.
        unchanged: Nothing was looked at: the refs are as they were when all was marked a short while ago.
        dry_run: Nothing was written or deleted.
    """

    deleted: Tally = Tally()
    kept: int = 0
    condemned: Tally = Tally()
    live_objects: int | None = None
    waits_seconds: float = 0.0
    held_by: str = ""
    unchanged: bool = False
    dry_run: bool = False
