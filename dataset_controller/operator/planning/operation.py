"""What an operation takes: one job after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset_controller.operations import DataLoad, DataMigrate, DataProcess, dataset_names, input_revision
from dataset_controller.operator.objects.jobs import Run, job_name, run_of
from dataset_controller.operator.objects.work_jobs import operation_job
from dataset_controller.operator.planning.actions import Action, Apply, Delete, PatchStatus, Ref, Tell
from dataset_controller.operator.planning.comparing import tells
from dataset_controller.operator.planning.conditions import Finding, conditions, timestamp
from dataset_controller.operator.planning.cycles import cycle_text
from dataset_controller.operator.planning.owning import deleted, is_leaving, owned
from dataset_controller.operator.planning.refusing import applied_finding
from dataset_controller.operator.planning.runs import ENDED, LastRun, ObservedOperation, digest_of, last_run
from dataset_controller.operator.planning.scheduling import moment, next_slot

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class Decision:
    """What is to become of an operation.

    Attributes:
        phase: To be told.
        reason: One word, of the condition `Complete`.
        message: For people.
        start: The run that begins now.
        stops: Whether the job that runs is deleted.
        next_time: When to look again; of a schedule.
    """

    phase: str
    reason: str
    message: str = ""
    start: Run | None = None
    stops: bool = False
    next_time: datetime | None = None


def plan_operation(observed: ObservedOperation, now: datetime) -> list[Action]:
    """Decide what an operation takes. Applied in full, it plans nothing but what its job's end and its schedule bring.

    Raises:
        ValueError: If its schedule means no time.
    """
    last = last_run(observed)
    decision = decide(observed, last, now)
    actions: list[Action] = []
    if decision.start is not None:
        actions.append(_started(observed, decision.start))
    told = _refused(observed, decision)
    status = _status(observed, last, told, now)
    if not tells(observed.status, status):
        actions += [*_story(observed, told, status), PatchStatus(Ref.of(observed.owner), status)]
    return [*actions, *_deletions(observed, last, decision)]


def decide(observed: ObservedOperation, last: LastRun, now: datetime) -> Decision:
    """Decide what is to become of an operation.

    Raises:
        ValueError: If its schedule means no time.
    """
    spec, wanted = observed.operation.spec, digest_of(observed.operation)
    is_current = last.digest == wanted
    slot = _slot(observed, last, now)
    if last.outcome == "Leaving":
        return Decision("Pending", "Stopping", f"the job of run {last.number} is being stopped", next_time=slot)
    if spec.suspend and not (last.outcome in ENDED and is_current and spec.schedule is None):
        message = "spec.suspend is true; set it to false to go on"
        return Decision("Suspended", "Suspended", message, stops=last.outcome == "Running")
    if last.outcome == "Running":
        if is_current:
            return Decision("Running", "Running", f"run {last.number}", next_time=_later(observed, slot, now))
        return Decision("Pending", "SpecChanged", f"run {last.number} was of another specification", stops=True)
    if last.outcome in ENDED and (is_current if spec.schedule is None else not _is_due(slot, now)):
        return _ended(last, observed, slot)
    if last.outcome == "None" and spec.schedule is not None and not _is_due(slot, now):
        return _awaited(slot)
    if last.outcome in ENDED and is_current and _is_unchanged(observed, last):
        return _ended(last, observed, _later(observed, slot, now))  # nothing new to load: the next time, then
    return _begin(observed, Run(_next_number(last, wanted), wanted, timestamp(slot) if slot else ""), now)


def _begin(observed: ObservedOperation, run: Run, now: datetime) -> Decision:
    """Begin a run unless something keeps it."""
    slot = moment(run.slot)
    kept = _kept_by(observed)
    if kept is not None:
        return Decision("Pending", kept.reason, kept.message, next_time=slot)
    return Decision("Running", "Running", f"run {run.number}", run, next_time=_later(observed, slot, now))


def _refused(observed: ObservedOperation, decision: Decision) -> Decision:
    """Return what to tell: a run whose job the server refused has not begun."""
    if observed.refusal is None or decision.start is None:
        return decision
    return Decision("Pending", "Refused", observed.refusal, next_time=moment(decision.start.slot))


def _kept_by(observed: ObservedOperation) -> Finding | None:
    """Return what keeps a run from beginning."""
    if observed.cycle:
        return Finding("Complete", False, "Cycle", cycle_text(observed.cycle))
    for name in dataset_names(observed.operation):
        if name not in observed.datasets:
            message = f"this namespace has no Dataset {name}: apply it, or name another in {_names_it(observed, name)}"
            return Finding("Complete", False, "NoSuchDataset", message)
    for predecessor, phase in sorted(observed.predecessors.items()):
        if phase is None:
            message = f"spec.runAfter: this namespace has no {predecessor}: apply it, or remove it from the list"
            return Finding("Complete", False, "NoSuchPredecessor", message)
        if phase != "Succeeded":
            return Finding("Complete", False, "WaitsForPredecessor", f"waits for {predecessor}, which is {phase}")
    return _cache_lacks(observed) if isinstance(observed.operation, DataLoad) else None


def _cache_lacks(observed: ObservedOperation) -> Finding | None:
    """Return what a load's cache lacks."""
    (name,) = dataset_names(observed.operation)
    cache = observed.datasets[name].spec.cache
    if cache is None:
        message = f"Dataset {name} has no cache to load into: name a CacheRuntime in its spec.cache.runtimeRef"
        return Finding("Complete", False, "NoCache", message)
    if observed.runtime is None:
        message = f"this namespace has no CacheRuntime {cache.runtime_ref.name}, which Dataset {name} names: apply it"
        return Finding("Complete", False, "NoSuchRuntime", message)
    if observed.ready_workers < 1:
        message = f"no worker of CacheRuntime {cache.runtime_ref.name} is ready yet: kubectl describe cache says why"
        return Finding("Complete", False, "WaitsForWorkers", message)
    return None


def _names_it(observed: ObservedOperation, name: str) -> str:
    """Return the field that names a dataset."""
    if not isinstance(observed.operation, DataMigrate):
        return "spec.dataset"
    source = observed.operation.spec.source.dataset
    return "spec.source.dataset" if source is not None and source.name == name else "spec.target.dataset"


def _ended(last: LastRun, observed: ObservedOperation, next_time: datetime | None) -> Decision:
    if last.outcome == "Succeeded":
        return Decision("Succeeded", "Succeeded", f"run {last.number}", next_time=next_time)
    message = last.message
    step = "a change of the spec begins it again"
    if step not in message:
        hint = observed.log_hint.format(job_name(observed.operation, last.number))
        message = f"{message.rstrip('.: ')}. {hint}{step}"
    return Decision("Failed", "Failed", message, next_time=next_time)


def _awaited(slot: datetime | None) -> Decision:
    if slot is None:
        return Decision("Suspended", "Suspended", "spec.schedule.suspend is true; set it to false to go on")
    return Decision("Pending", "Scheduled", f"begins at {timestamp(slot)}", next_time=slot)


def _slot(observed: ObservedOperation, last: LastRun, now: datetime) -> datetime | None:
    """Return the next time of the schedule that nothing was done about yet; it may be past."""
    schedule = observed.operation.spec.schedule
    if schedule is None or schedule.suspend:
        return None
    told = moment(observed.status.get("nextTime"))
    if told is None or observed.status.get("observedGeneration") != observed.generation:
        return next_slot(schedule, now)
    if last.slot and last.slot >= timestamp(told):  # it began, and was killed before it could tell
        return next_slot(schedule, max(now, told))
    return told


def _later(observed: ObservedOperation, slot: datetime | None, now: datetime) -> datetime | None:
    """Return a slot that is yet to come: one that was missed is not made up for."""
    schedule = observed.operation.spec.schedule
    if slot is None or schedule is None or slot > now:
        return slot
    return next_slot(schedule, now)


def _is_due(slot: datetime | None, now: datetime) -> bool:
    return slot is not None and slot <= now


def _is_unchanged(observed: ObservedOperation, last: LastRun) -> bool:
    """Say whether a run would read what the last one did: only the head of the synced branch is known here."""
    revision = input_revision(observed.operation)
    if last.outcome != "Succeeded" or revision is None:
        return False
    name = dataset_names(observed.operation)[0]
    dataset, head = observed.datasets.get(name), observed.revisions.get(name)
    if dataset is None or head is None:
        return False
    branch = dataset.spec.sync.branch if dataset.spec.sync is not None else "main"
    known = [observed.status.get("revision")]
    if isinstance(observed.operation, DataProcess):  # what it committed itself is nothing new
        known.append(observed.status.get("commit"))
    return revision == branch and head in known


def _next_number(last: LastRun, wanted: str) -> int:
    """Return the number of the run that begins: a run whose job was lost goes on under its own."""
    return last.number if last.outcome == "Lost" and last.digest == wanted else last.number + 1


def _started(observed: ObservedOperation, run: Run) -> Apply:
    return Apply(owned(observed.owner, operation_job(observed, run)))


def _deletions(observed: ObservedOperation, last: LastRun, decision: Decision) -> list[Delete]:
    """Delete the job that is stopped, and those of earlier runs beyond the history that is kept."""
    schedule = observed.operation.spec.schedule
    by_run = sorted(((run_of(job), ref, job) for ref, job in observed.objects.items()), reverse=True)
    staying = [(number, ref, job) for number, ref, job in by_run if not is_leaving(job)]
    earlier = [(ref, job) for number, ref, job in staying if number < last.number or decision.start is not None]
    kept = 0 if schedule is None else max(schedule.history - 1, 0)
    found = [deleted(ref, job) for ref, job in earlier[kept:]]
    latest = [deleted(ref, job) for number, ref, job in staying if number == last.number and decision.start is None]
    is_told = observed.status.get("run") == last.number and observed.status.get("phase") == last.outcome
    forgets = schedule is not None and schedule.history == 0 and last.outcome in ENDED and is_told
    return [*found, *(latest if decision.stops or forgets else [])]


def _status(observed: ObservedOperation, last: LastRun, decision: Decision, now: datetime) -> dict[str, Any]:
    start = decision.start
    if start is not None:
        is_again = start.number == last.number
        run, digest, begun, ended = start.number, start.digest, last.start_time if is_again else None, None
        begun = begun or timestamp(now)
    else:
        run, digest, begun, ended = last.number, last.digest, last.start_time, last.end_time
    is_complete = True if decision.reason == "Succeeded" else None if decision.reason == "Running" else False
    if decision.phase == "Suspended" and last.outcome in ENDED:  # how the last run ended is not forgotten
        told = _ended(last, observed, None)
        complete = Finding("Complete", last.outcome == "Succeeded", told.reason, told.message)
    else:
        complete = Finding("Complete", is_complete, decision.reason, decision.message)
    before = observed.status.get("conditions") or []
    cycle = cycle_text(observed.cycle) if observed.cycle else None
    findings = [complete, applied_finding(cycle or observed.refusal, _without_effect(observed))]
    return {
        "observedGeneration": observed.generation,
        "phase": decision.phase,
        "run": run,
        "specDigest": digest or None,
        "startTime": begun,
        "completionTime": ended,
        "nextTime": timestamp(decision.next_time) if decision.next_time else None,
        "conditions": conditions(before, findings, generation=observed.generation, now=now),
    }


def _without_effect(observed: ObservedOperation) -> str | None:
    if isinstance(observed.operation, DataLoad) and observed.operation.spec.pin:
        return "spec.pin has no effect in a cluster yet: raise spec.cache.priority of the Dataset instead"
    return None


def _story(observed: ObservedOperation, decision: Decision, status: dict[str, Any]) -> list[Tell]:
    """Return the events of what changes in a status."""
    told, ref = observed.status, Ref.of(observed.owner)
    story = []
    if status["run"] and status["run"] != (told.get("run") or 0):
        story.append(Tell(ref, "Started", f"run {status['run']}"))
    if decision.phase in ENDED and (told.get("phase"), told.get("run")) != (decision.phase, status["run"]):
        is_bad = decision.phase == "Failed"
        story.append(Tell(ref, decision.phase, decision.message, is_warning=is_bad))
    elif decision.phase in ("Pending", "Suspended") and decision.reason != _reason(told):
        story.append(Tell(ref, decision.reason, decision.message))
    return story


def _reason(status: dict[str, Any]) -> str | None:
    return next((each["reason"] for each in status.get("conditions") or [] if each["type"] == "Complete"), None)
