"""An operation as its job sees it: what is asked, and telling how far it is."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from dataset_controller.errors import ClusterError, ManifestError
from dataset_controller.fields import API_VERSION
from dataset_controller.model import Dataset
from dataset_controller.operations import OPERATIONS
from dataset_controller.operator.observing import InvalidSpecError, Models
from dataset_controller.operator.planning.actions import Ref

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_runtime import LoadProgress, LoadReport
    from dataset_controller.operations import Operation
    from dataset_controller.operator.api import ClusterApi

_log = logging.getLogger(__name__)
MANAGER = "forebay-load"
_TELL_SECONDS = 1.5
_TRIES = 8
_FIRST_WAIT_SECONDS = 0.5
_MOST_FAILURES = 10
_MOST_CHARACTERS = 300


class Asked(Protocol):
    """An operation that is being done, wherever it was declared; its status is told in parts."""

    @property
    def operation(self) -> Operation:
        """What is asked."""
        ...

    @property
    def status(self) -> dict[str, Any]:
        """As it was told when this run began."""
        ...

    def tell(self, status: dict[str, Any]) -> None:
        """Tell our part of its status, trying for a while. Raises if nobody takes it."""
        ...

    def tell_once(self, status: dict[str, Any]) -> bool:
        """Tell our part of its status if that succeeds at once, and say whether it did."""
        ...


class ClusterOperation:
    """The operation that a job was made for.

    Args:
        api: The cluster, under the field manager of jobs.
        kind: Of the object.
        namespace: Of the object.
        name: Of the object.

    Attributes:
        operation: What is asked.
        status: As it was when the job began.
        uid: Of the object.

    Raises:
        ClusterError: If there is none, or the cluster cannot be asked.
        ManifestError: If it is wrong.
    """

    def __init__(self, api: ClusterApi, kind: str, namespace: str, name: str) -> None:
        self._api = api
        self._ref = Ref(API_VERSION, kind, namespace, name)
        document = self._tried(lambda: api.get(self._ref))
        if document is None:
            raise ClusterError(f"namespace {namespace} has no {kind} {name}: it was deleted, and nothing was done")
        self.operation: Operation = self._model(OPERATIONS[kind], kind, document)
        self.status: dict[str, Any] = document.get("status") or {}
        self.uid: str = document["metadata"]["uid"]

    def dataset(self, name: str) -> Dataset:
        """Return a dataset of the namespace.

        Raises:
            ClusterError: If there is none, or the cluster cannot be asked.
            ManifestError: If it is wrong.
        """
        document = self._tried(lambda: self._api.get(self._ref._replace(kind="Dataset", name=name)))
        if document is None:
            raise ClusterError(f"namespace {self._ref.namespace} has no Dataset {name}: it was deleted")
        found: Dataset = self._model(Dataset, "Dataset", document)
        return found

    @staticmethod
    def _model(model: Any, kind: str, document: dict[str, Any]) -> Any:
        try:
            return Models().get(model, {**document, "apiVersion": API_VERSION, "kind": kind})
        except InvalidSpecError as error:
            raise ManifestError(str(error), source=f"{kind}/{document['metadata']['name']}") from error

    def tell(self, status: dict[str, Any]) -> None:
        """Tell our part of its status, trying for a while.

        Raises:
            ClusterError: If the cluster cannot be told.
        """
        self._tried(lambda: self._api.apply_status(self._ref, status))

    def tell_once(self, status: dict[str, Any]) -> bool:
        """Tell our part of its status if that succeeds at once, and say whether it did."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            self._api.apply_status(self._ref, status)
        except (ApiException, HTTPError, OSError) as error:
            _log.warning("progress not told reason=%s", getattr(error, "reason", None) or error)
            return False
        return True

    def _tried(self, ask: Callable[[], Any]) -> Any:
        """Ask the server, and again while it is away or overloaded."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        for number in range(_TRIES):
            try:
                return ask()
            except (ApiException, HTTPError, OSError) as error:
                status = getattr(error, "status", None)
                if number == _TRIES - 1 or status in (400, 401, 403, 422):
                    reason = getattr(error, "reason", None) or error
                    raise ClusterError(
                        f"the API server did not take {self._ref.kind} {self._ref.name}: {reason}"
                    ) from error
                _log.warning("the API server does not answer; trying again reason=%s", error)
                time.sleep(min(_FIRST_WAIT_SECONDS * 2**number, 10.0))
        raise AssertionError("the last try returns or raises")


class ProgressTeller:
    """Tells every second or two how far an operation is; use it in a `with` block.

    What the server does not take now is told later; the work never waits for it.

    Args:
        asked: Whose status.
        fields: What is told with it, always.
    """

    def __init__(self, asked: Asked, fields: dict[str, Any]) -> None:
        self._asked = asked
        self._fields = fields
        self._progress: dict[str, Any] | None = None
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tell-progress", daemon=True)

    def __enter__(self) -> ProgressTeller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._changed.set()
        self._thread.join(_TELL_SECONDS * 2)

    def show(self, fields: dict[str, Any]) -> None:
        """Note how far it is."""
        self._progress = fields
        self._changed.set()

    def _run(self) -> None:
        told: dict[str, Any] = {}
        while not self._ended.is_set():
            self._changed.wait()
            self._changed.clear()
            now = self._progress
            if now is None or self._ended.is_set():
                continue
            status = {**self._fields, **now}
            if status != told and self._asked.tell_once(status):
                told = status
            self._ended.wait(_TELL_SECONDS)


def progress_fields(now: LoadProgress) -> dict[str, Any]:
    """Return what to tell of a load that runs; it is at 100 % when it was verified, not before."""
    eta = now.eta_seconds
    return {
        "bytesTotal": now.bytes_total,
        "bytesDone": now.bytes_done,
        "percent": percent_of(now.bytes_done, now.bytes_total, most=99),
        "bytesPerSecond": round(now.bytes_per_second),
        "etaSeconds": None if eta is None else round(eta),
        "filesFailed": now.failed_objects,
    }


def report_fields(report: LoadReport, present_bytes: int) -> dict[str, Any]:
    """Return what to tell of a load that ended.

    Args:
        report: What it did.
        present_bytes: What was there before.
    """
    done = report.total_bytes if report.verified else min(report.total_bytes, present_bytes + report.fetched_bytes)
    failures = [f"{each.uri}: {each.reason}"[:_MOST_CHARACTERS] for each in report.failures[:_MOST_FAILURES]]
    if report.left_out_objects:
        failures.append(
            f"{report.left_out_objects:,} files of {report.left_out_bytes:,} bytes have no room: raise "
            "spec.tiers[].capacity or spec.replicas of the CacheRuntime"
        )
    return {
        "bytesTotal": report.total_bytes,
        "bytesDone": done,
        "percent": 100 if report.verified else percent_of(done, report.total_bytes, most=99),
        "bytesPerSecond": round(report.fetched_bytes / report.seconds) if report.seconds > 0 else 0,
        "etaSeconds": 0 if report.verified else None,
        "filesFailed": report.failed_objects + report.left_out_objects,
        "failures": failures,
    }


def percent_of(done: int, total: int, *, most: int = 100) -> int:
    """Return whole percents; `most` of nothing."""
    return min(most, 100 * done // total) if total else most
