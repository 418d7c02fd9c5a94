"""What a check of a repository finds wrong, and what to do about it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum

MAX_FINDINGS = 10_000
"""More are only counted."""


class FindingKind(StrEnum):
    """What is wrong with an object."""

    MISSING = "missing"
    """It is needed, and not there."""
    DAMAGED = "damaged"
    """Its bytes do not match its id."""
    WRONG_SIZE = "wrong-size"
    """It has another length than what needs it says."""
    INCONSISTENT = "inconsistent"
    """It is what was written, but cannot be right: a wrong child, range, key or generation."""
    DRIFTED = "drifted"
    """A source's object is not the one that was imported any more, or is gone."""
    UNREACHABLE_SOURCE = "unreachable-source"
    """A source cannot be asked."""


_NEXT_STEPS = {
    FindingKind.MISSING: "restore it from a copy of the repository, or add the files again and commit",
    FindingKind.DAMAGED: "restore it from a copy of the repository, or add the files again and commit",
    FindingKind.WRONG_SIZE: "restore it from a copy of the repository, or add the files again and commit",
    FindingKind.INCONSISTENT: "revert what made it (see ds log); report a bug of the program that wrote it",
    FindingKind.DRIFTED: "run: ds import, then ds commit; ds pack keeps bytes for ever",
    FindingKind.UNREACHABLE_SOURCE: "make the source readable and check again",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: What.
        object: Key below the repository's prefix; of an external object `store/key`.
        detail: What was found.
        ref: A ref that needs it, such as `refs/heads/main`; "" if that is not known.
        commit: A commit that needs it; "" if none does.
        path: The first path in the dataset that needs it; "" if none does.
    """

    kind: FindingKind
    object: str
    detail: str
    ref: str = ""
    commit: str = ""
    path: str = ""

    @property
    def next_step(self) -> str:
        """What to do."""
        if self.object.startswith(("refs/", "logs/", "shallow", "gc/", "leases/")):
            return "restore it from a copy of the repository; a branch's log says where it was: ds reflog"
        return _NEXT_STEPS[self.kind]


class Findings:
    """Collects findings, one for each object. Thread-safe."""

    def __init__(self) -> None:
        self.found: list[Finding] = []
        self.count = 0
        self._seen: set[tuple[FindingKind, str]] = set()
        self._lock = threading.Lock()

    def add(self, finding: Finding) -> None:
        """Note one, unless the object has one of this kind."""
        with self._lock:
            if (finding.kind, finding.object) in self._seen:
                return
            self.count += 1
            if len(self.found) < MAX_FINDINGS:
                self._seen.add((finding.kind, finding.object))
                self.found.append(finding)
