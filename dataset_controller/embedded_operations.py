"""Operations of one machine: planned as in a cluster, by the same planner, their jobs done by this process."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from threading import Event, Timer
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dataset_controller.errors import ControllerError, DatasetNotFoundError, ManifestError
from dataset_controller.fields import API_VERSION
from dataset_controller.model import Dataset
from dataset_controller.opening import OpenDataset
from dataset_controller.operations import OPERATIONS, Operation, dataset_names
from dataset_controller.operator.planning.actions import Action, Apply, Delete, PatchStatus, Ref, Tell
from dataset_controller.operator.planning.conditions import timestamp
from dataset_controller.operator.planning.cycles import cycle_of
from dataset_controller.operator.planning.operation import decide, plan_operation
from dataset_controller.operator.planning.runs import ObservedOperation, last_run
from dataset_controller.operator.planning.scheduling import next_slot
from sources import SourceError
from sources.locking import locked_file
from versioning import VersioningError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dataset_controller.catalog import Catalog

    Document = dict[str, Any]
    Runs = Callable[["LocalOperation", Event], None]

NAMESPACE = "default"
_MOST_EVENTS = 50
_MOST_ROUNDS = 20
_FIRST_WAIT_SECONDS, _MOST_WAIT_SECONDS = 0.5, 10.0
_MOST_MESSAGE = 1000


class LocalOperation:
    """An operation that this process does; see `agent.loads.Asked`.

    Args:
        plane: Keeps its status.
        operation: What is asked.
        status: As it was told when this run began.
    """

    def __init__(self, plane: LocalOperations, operation: Operation, status: Document) -> None:
        self.operation = operation
        self.status = status
        self._plane = plane

    def tell(self, status: Document) -> None:
        """Tell our part of its status."""
        self._plane.tell(self.operation, "job", status)

    def tell_once(self, status: Document) -> bool:
        """Tell our part of its status."""
        self.tell(status)
        return True


class LocalOperations:
    """The operations that were applied on this machine.

    Args:
        catalog: Keeps them.
        runs: Does what an operation asks; an error means: try it again.
        expected: Errors that are told; others are bugs, and end the process.
    """

    def __init__(self, catalog: Catalog, runs: Runs, expected: tuple[type[Exception], ...]) -> None:
        self._catalog = catalog
        self._runs = runs
        self._expected: tuple[type[Exception], ...] = (
            *expected, ControllerError, SourceError, VersioningError, OSError,
        )  # fmt: skip

    def put(self, operation: Operation) -> str:
        """Record an operation, and say what changed, as kubectl does.

        Raises:
            ManifestError: If its schedule means no time.
        """
        _check_schedule(operation)
        changes = []
        spec = operation.spec.model_dump(mode="json", by_alias=True, exclude_none=True)

        def change(before: Document | None) -> Document:
            metadata: Document = before["metadata"] if before else _metadata(operation)
            if before and before["spec"] == spec:
                changes.append("unchanged")
                return before
            changes.append("configured" if before else "created")
            metadata = {**metadata, "generation": metadata["generation"] + 1}
            return {**(before or {}), "metadata": metadata, "spec": spec, "datasets": dataset_names(operation)}

        self._catalog.change_document(_name(operation), change)
        return changes[0]

    def names(self, kind: str | None = None) -> list[str]:
        """List the operations, as "Kind/name"."""
        found = [name for name in self._catalog.names("document") if name.partition("/")[0] in OPERATIONS]
        return [name for name in found if kind is None or name.startswith(f"{kind}/")]

    def document(self, name: str) -> Document:
        """Return an operation as an API server would.

        Raises:
            DatasetNotFoundError: If there is none.
        """
        kind, _, own = name.partition("/")
        found = self._catalog.read_document(name)
        if found is None:
            known = [each.partition("/")[2] for each in self.names(kind)]
            raise DatasetNotFoundError(own, known, what=kind)
        return {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": found["metadata"],
            "spec": found["spec"],
            "status": _joined(found.get("parts", {})),
        }

    def events(self, name: str) -> list[Document]:
        """Return what happened to an operation, the oldest first."""
        return list((self._catalog.read_document(name) or {}).get("events", ()))

    def delete(self, name: str) -> None:
        """Forget an operation; what it made stays.

        Raises:
            DatasetNotFoundError: If there is none.
        """
        self.document(name)
        self._catalog.change_document(name, lambda before: None)

    def tell(self, operation: Operation, part: str, status: Document) -> None:
        """Let a part of an operation's status be this; of one that is gone nothing is told."""

        def change(before: Document | None) -> Document | None:
            if before is None:
                return None
            told = {key: value for key, value in status.items() if value is not None}
            return {**before, "parts": {**before.get("parts", {}), part: told}}

        self._catalog.change_document(_name(operation), change)

    def work_off(self, name: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
        """Do what an operation takes until nothing is left to do now; in how many seconds there is more, if ever.

        What a process that was killed had begun is gone on with. One that another process does is left to that.
        """
        with self._held(name) as is_ours:
            for _ in range(_MOST_ROUNDS if is_ours else 0):
                observed = self.observe(name)
                actions = plan_operation(observed, now())
                for action in actions:
                    self._do(name, action)
                job = self._unfinished(name)
                if job is not None:
                    self._finish(name, job)
                elif not actions:
                    break
        observed = self.observe(name)
        later = decide(observed, last_run(observed), now()).next_time
        return None if later is None else max(0.0, (later - now()).total_seconds())

    def observe(self, name: str) -> ObservedOperation:
        """Observe an operation, as the operator does in a cluster. Raises as `document`."""
        owner = self.document(name)
        operation = _model(owner)
        datasets = {
            each: record.resource
            for each in dataset_names(operation)
            if (record := self._catalog.find("Dataset", each)) is not None and isinstance(record.resource, Dataset)
        }
        revisions = {each: head for each, dataset in datasets.items() if (head := self._head(dataset)) is not None}
        first = datasets.get(next(iter(dataset_names(operation)), ""))
        runtime = None if first is None else self._catalog.runtime_of(first)
        jobs = (self._catalog.read_document(name) or {}).get("jobs", [])
        return ObservedOperation(
            owner,
            operation,
            datasets=datasets,
            revisions=revisions,
            runtime=runtime,
            ready_workers=0 if runtime is None else 1,
            predecessors={each: self._phase(each) for each in self._waits_for(name)},
            cycle=cycle_of(name, self._waits_for),
            objects={Ref.of(job): job for job in jobs},
            log_hint="",
        )

    def _head(self, dataset: Dataset) -> str | None:
        sync = dataset.spec.sync
        try:
            opened = OpenDataset(dataset, None, secrets=self._catalog.secrets)
            return opened.repository.head(sync.branch if sync is not None else "main")
        except (SourceError, VersioningError, OSError):  # the run itself will say so
            return None

    def _phase(self, name: str) -> str | None:
        found = self._catalog.read_document(name)
        return None if found is None else str(_joined(found.get("parts", {})).get("phase") or "Pending")

    def _waits_for(self, name: str) -> list[str]:
        found = self._catalog.read_document(name) or {}
        return [f"{each['kind']}/{each['name']}" for each in found.get("spec", {}).get("runAfter", ())]

    def _do(self, name: str, action: Action) -> None:
        def change(before: Document | None) -> Document | None:
            if before is None:
                return None
            jobs, events = list(before.get("jobs", ())), list(before.get("events", ()))
            if isinstance(action, Apply):
                metadata = {**action.document["metadata"], "uid": uuid4().hex}
                status = {"startTime": timestamp(datetime.now(UTC))}
                jobs = [*jobs, {**action.document, "metadata": metadata, "status": status}]
            elif isinstance(action, Delete):
                jobs = [job for job in jobs if job["metadata"]["uid"] != action.uid]
            elif isinstance(action, Tell):
                kind = "Warning" if action.is_warning else "Normal"
                at = timestamp(datetime.now(UTC))
                events.append({"time": at, "type": kind, "reason": action.reason, "message": action.message})
            return {**before, "jobs": jobs, "events": events[-_MOST_EVENTS:]}

        if isinstance(action, PatchStatus):
            self.tell(_model(self.document(name)), "operator", action.status)
        else:
            self._catalog.change_document(name, change)

    def _unfinished(self, name: str) -> Document | None:
        jobs = (self._catalog.read_document(name) or {}).get("jobs", ())
        return next((job for job in jobs if not job["status"].get("conditions")), None)

    def _finish(self, name: str, job: Document) -> None:
        """Do a job until it ends well, or no try is left."""
        owner = self.document(name)
        asked = LocalOperation(self, _model(owner), owner["status"])
        cancel, seconds = Event(), job["spec"].get("activeDeadlineSeconds")
        timer = Timer(seconds, cancel.set) if seconds else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            end = self._tried(asked, cancel, job["spec"]["backoffLimit"])
        finally:
            if timer is not None:
                timer.cancel()
        done = timestamp(datetime.now(UTC))
        status = {**job["status"], "conditions": [{**end, "status": "True", "lastTransitionTime": done}]}
        if end["type"] == "Complete":
            status["completionTime"] = done

        def change(before: Document | None) -> Document | None:
            if before is None:
                return None
            uid = job["metadata"]["uid"]
            jobs = [{**each, "status": status} if each["metadata"]["uid"] == uid else each for each in before["jobs"]]
            return {**before, "jobs": jobs}

        self._catalog.change_document(name, change)

    def _tried(self, asked: LocalOperation, cancel: Event, retries: int) -> dict[str, str]:
        """Return how a job ended, as the cluster's own controller writes it."""
        reason, wait = "", _FIRST_WAIT_SECONDS
        for number in range(retries + 1):
            try:
                self._runs(asked, cancel)
            except self._expected as error:
                reason = str(error)[:_MOST_MESSAGE]
            else:
                return {"type": "Complete"}
            if cancel.is_set():
                message = f"Job was active longer than specified deadline: {reason}"
                return {"type": "Failed", "reason": "DeadlineExceeded", "message": message}
            if number < retries:
                cancel.wait(wait)
                wait = min(2 * wait, _MOST_WAIT_SECONDS)
        message = f"Job has reached the specified backoff limit: {reason}"
        return {"type": "Failed", "reason": "BackoffLimitExceeded", "message": message}

    @contextmanager
    def _held(self, name: str) -> Iterator[bool]:
        """Let this process alone do an operation, and say whether it does."""
        directory = self._catalog.secrets.parent / "operations"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with ExitStack() as held:
            try:
                held.enter_context(locked_file(directory / f"{name.replace('/', '-')}.lock", seconds=0))
            except TimeoutError:
                yield False
                return
            yield True


def _check_schedule(operation: Operation) -> None:
    if operation.spec.schedule is None:
        return
    source, field = _name(operation), "spec.schedule"
    try:
        next_slot(operation.spec.schedule, datetime.now(UTC))
    except ModuleNotFoundError as error:
        reason = "a schedule needs another package: pip install 'forebay[k8s]'"
        raise ManifestError(reason, source=source, field=field) from error
    except ValueError as error:
        raise ManifestError(str(error), source=source) from error


def _metadata(operation: Operation) -> Document:
    own = operation.metadata
    return {
        "name": own.name,
        "namespace": own.namespace or NAMESPACE,
        "uid": str(uuid4()),
        "generation": 0,
        "creationTimestamp": timestamp(datetime.now(UTC)),
    }


def _name(operation: Operation) -> str:
    return f"{operation.kind}/{operation.metadata.name}"


def _model(owner: Document) -> Operation:
    plain = {**owner, "metadata": {"name": owner["metadata"]["name"]}}
    plain.pop("status", None)
    return OPERATIONS[owner["kind"]].model_validate(plain)


def _joined(parts: dict[str, Document]) -> Document:
    return {name: value for part in ("job", "operator") for name, value in parts.get(part, {}).items()}
