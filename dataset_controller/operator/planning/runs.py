"""The runs of an operation, as its jobs and its status tell of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

from dataset_controller.operator.naming import SLOT, SPEC_DIGEST
from dataset_controller.operator.objects.jobs import run_of
from dataset_controller.operator.planning.owning import is_leaving

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dataset_controller.model import Dataset
    from dataset_controller.operations import Operation
    from dataset_controller.operator.planning.actions import Ref
    from dataset_controller.runtime_model import CacheRuntime

Outcome = Literal["None", "Running", "Leaving", "Lost", "Succeeded", "Failed"]
"""Of the last run: there was none; its job is there; its job is being deleted; its job is gone before it ended."""
ENDED = ("Succeeded", "Failed")
_DIGITS = 16


@dataclass(frozen=True)
class ObservedOperation:
    """An operation in its cluster, or on one machine.

    Attributes:
        owner: The object as the API server says it.
        operation: Its specification.
        datasets: Those that it names and that are there.
        revisions: The commit at the head of a dataset's synced branch, as far as it is known.
        runtime: The cache of the dataset that it reads, if it is there.
        ready_workers: Of the cache.
        predecessors: Phase of each predecessor, by "Kind/name"; None of one that is not there.
        cycle: The operations that wait for each other, and this one with them; empty if it does not.
        objects: Its jobs.
        image: If the runtime names none.
        refusal: What the API server said to one of the last actions.
        log_hint: Where to read why a run failed; `{}` is its job.
    """

    owner: dict[str, Any]
    operation: Operation
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    revisions: Mapping[str, str] = field(default_factory=dict)
    runtime: CacheRuntime | None = None
    ready_workers: int = 0
    predecessors: Mapping[str, str | None] = field(default_factory=dict)
    cycle: Sequence[str] = ()
    objects: Mapping[Ref, dict[str, Any]] = field(default_factory=dict)
    image: str = "forebay"
    refusal: str | None = None
    log_hint: str = "kubectl logs job/{} says why; "

    @property
    def status(self) -> dict[str, Any]:
        """As it was told last."""
        return self.owner.get("status") or {}

    @property
    def generation(self) -> int:
        """Of its specification."""
        return int(self.owner["metadata"].get("generation") or 1)


@dataclass(frozen=True)
class LastRun:
    """The last run.

    Attributes:
        number: From 1; 0 if there was none.
        outcome: See `Outcome`.
        digest: Of the specification that it was made for.
        slot: The time that it was scheduled for.
        start_time: When its job began.
        end_time: When its job ended.
        message: What its job says of its end.
    """

    number: int
    outcome: Outcome
    digest: str = ""
    slot: str = ""
    start_time: str | None = None
    end_time: str | None = None
    message: str = ""


def last_run(observed: ObservedOperation) -> LastRun:
    """Find the last run: by its job, else by the status."""
    status = observed.status
    jobs = {run_of(job): job for job in observed.objects.values()}
    number = max([int(status.get("run") or 0), *jobs])
    if number in jobs and number:
        return _of_job(number, jobs[number], status)
    if not number:
        return LastRun(0, "None")
    complete: dict[str, Any] = next((each for each in status.get("conditions") or [] if each["type"] == "Complete"), {})
    reason = complete.get("reason")
    outcome: Outcome = reason if reason in ENDED else "Lost"
    return LastRun(
        number,
        outcome,
        status.get("specDigest") or "",
        start_time=status.get("startTime"),
        end_time=status.get("completionTime"),
        message=complete.get("message", "") if outcome == "Failed" else "",
    )


def _of_job(number: int, job: dict[str, Any], told: dict[str, Any]) -> LastRun:
    annotations, status = job["metadata"].get("annotations") or {}, job.get("status") or {}
    ends = {each["type"]: each for each in status.get("conditions") or [] if each.get("status") == "True"}
    end = ends.get("Complete") or ends.get("Failed")
    outcome: Outcome = "Running"
    if end is not None:
        outcome = "Succeeded" if "Complete" in ends else "Failed"
    elif is_leaving(job):
        outcome = "Leaving"
    told_start = told.get("startTime") if told.get("run") == number else None
    return LastRun(
        number,
        outcome,
        annotations.get(SPEC_DIGEST, ""),
        annotations.get(SLOT, ""),
        status.get("startTime") or told_start,
        (status.get("completionTime") or end.get("lastTransitionTime")) if end else None,
        f"{end.get('reason', '')}: {end.get('message', '')}" if end else "",
    )


def digest_of(operation: Operation) -> str:
    """Return the digest of what a run is made for: all of the specification but when it runs."""
    document = operation.spec.model_dump(mode="json", by_alias=True, exclude={"schedule", "suspend", "run_after"})
    return sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:_DIGITS]
