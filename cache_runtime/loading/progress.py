"""What a load tells while it runs, and at its end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

_RATE_SECONDS = 10.0


class LoadStop(StrEnum):
    """Why a load ended before its end; what it fetched is kept."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load is; what was there from the start counts as done.

    Attributes:
        bytes_done, bytes_total: Bytes of the plan.
        objects_done, objects_total: Objects of the plan.
        failed_objects: Objects given up.
        seconds: Since the start.
        fetched_bytes: Bytes fetched by this run.
        bytes_per_second: Pace of the last ten seconds; 0 before anything was fetched.
    """

    bytes_done: int
    bytes_total: int
    objects_done: int
    objects_total: int
    failed_objects: int
    seconds: float
    fetched_bytes: int
    bytes_per_second: float = 0.0

    @property
    def eta_seconds(self) -> float | None:
        """Time left at the pace of the last ten seconds; None before anything was fetched, or while nothing comes."""
        left = self.bytes_total - self.bytes_done
        if left <= 0:
            return 0.0
        return left / self.bytes_per_second if self.bytes_per_second > 0 else None


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """An object that is not completely cached, and why.

    Attributes:
        uri: The object; "object" and its id where a load that was too large to remember names lost it.
        reason: For people.
        kind: The error's, "lost" where there was none, or a `LoadStop`.
    """

    uri: str
    reason: str
    kind: str = "lost"


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did.

    Attributes:
        total_objects, total_bytes: Of the plan.
        fetched_objects, fetched_bytes: Fetched by this run.
        left_out_objects, left_out_bytes: Not fetched because the plan is larger than the capacity.
        failed_objects: Objects that are not completely cached for another reason.
        failures: Those, at most 10,000.
        seconds: Duration.
        stopped: Why it ended early, None if it did not.
        origin_bytes: How many of the fetched bytes came from origins.
        peer_bytes: How many came from other workers.
    """

    total_objects: int
    total_bytes: int
    fetched_objects: int
    fetched_bytes: int
    left_out_objects: int
    left_out_bytes: int
    failed_objects: int
    failures: tuple[LoadFailure, ...]
    seconds: float
    stopped: LoadStop | None = None
    origin_bytes: int = 0
    peer_bytes: int = 0

    @property
    def verified(self) -> bool:
        """Whether every byte of the plan was found in the store after the last fetch."""
        return self.failed_objects == 0 and self.left_out_objects == 0 and self.stopped is None


class Pace:
    """The rate of the last ten seconds. Pure: the caller tells the time."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def rate(self, now: float, done_bytes: int) -> float:
        """Note that `done_bytes` were done at `now` (seconds that only grow); return bytes per second."""
        marks = self._marks
        marks.append((now, done_bytes))
        while len(marks) > 2 and now - marks[1][0] >= _RATE_SECONDS:
            marks.popleft()
        seconds = now - marks[0][0]
        return (done_bytes - marks[0][1]) / seconds if seconds > 0 else 0.0
