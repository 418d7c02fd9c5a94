"""The load jobs of a worker: pieces that somebody wants to be cached here, one job after the other."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from struct import Struct
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from cache_runtime.errors import CacheError, ProtocolError, WorkerBusyError
from cache_runtime.loading import LoadStop, plan_load, run_load
from cache_runtime.loading.demand import DemandWatch
from cache_runtime.loading.pieces import piece_bytes
from cache_runtime.protocol import LOAD_ENDED
from cache_runtime.store.layout import block_span
from sources import Location, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cache_runtime.client import Client
    from cache_runtime.loading import LoadProgress, LoadReport
    from cache_runtime.protocol import Piece
    from cache_runtime.worker.interfaces import LoadRequest

_log = logging.getLogger(__name__)
_MAX_WAITING = 64
_MAX_WAITING_PIECES = 400_000  # some 250 MB
_MAX_REMEMBERED = 256
_MAX_FAILURES = 1000
_MAX_REASON = 500
_RUN = Struct("<QQ")


class LoadTable:
    """Runs jobs in one thread of its own: of the highest priority first, then of the share's, else in their order.

    Each job uses the connections that one load keeps busy; a second one beside it would only take them from it. See
    `LoadJobs` for the methods.

    Args:
        client: The worker's.
        concurrency: Fetches at a time.
        busy: Says whether there are reads that go first; None: whether reads of this process missed just now.
    """

    def __init__(self, client: Client, *, concurrency: int = 16, busy: Callable[[], bool] | None = None) -> None:
        self._client = client
        self._concurrency = concurrency
        self._busy = busy or DemandWatch(client.stats)
        self._changed = threading.Condition()
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def submit(self, request: LoadRequest) -> Mapping[str, Any]:
        """See `LoadJobs.submit`."""
        wanted = _Job(request)
        with self._changed:
            job = self._jobs.get(request.id)
            if job is not None:
                if job.fingerprint != wanted.fingerprint:
                    raise ProtocolError(f"load {request.id} is one of other pieces; give this one an id of its own")
                return job.status(failures=True)
            self._refuse_excess(len(request.pieces))
            job = self._jobs[request.id] = wanted
            while len(self._jobs) > _MAX_REMEMBERED and self._forget_one():
                pass
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="forebay-loads", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return job.status(failures=True)

    def statuses(self) -> Sequence[Mapping[str, Any]]:
        """See `LoadJobs.statuses`."""
        with self._changed:
            return [job.status(failures=False) for job in reversed(self._jobs.values())]

    def find(self, load_id: str) -> Mapping[str, Any] | None:
        """See `LoadJobs.find`."""
        with self._changed:
            job = self._jobs.get(load_id)
            return None if job is None else job.status(failures=True)

    def cancel(self, load_id: str) -> Mapping[str, Any] | None:
        """See `LoadJobs.cancel`."""
        with self._changed:
            job = self._jobs.get(load_id)
            if job is None:
                return None
            job.cancel.set()
            if job.state == "waiting":
                job.drop_pieces()
                job.state = "cancelled"
            return job.status(failures=True)

    def stop(self, *, seconds: float) -> None:
        """See `LoadJobs.stop`."""
        with self._changed:
            self._stopped = True
            for job in self._jobs.values():
                job.cancel.set()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _refuse_excess(self, pieces: int) -> None:
        waiting = [job for job in self._jobs.values() if job.state not in LOAD_ENDED]
        total = sum(len(job.pieces) for job in waiting) + pieces
        if self._stopped:
            raise WorkerBusyError("this worker is leaving; ask the next one", kind="unavailable")
        if len(waiting) >= _MAX_WAITING or (waiting and total > _MAX_WAITING_PIECES):
            raise WorkerBusyError(f"{len(waiting)} loads with {total} pieces wait already", retry_after_seconds=5)

    def _forget_one(self) -> bool:
        for load_id, job in self._jobs.items():
            if job.state in LOAD_ENDED:
                del self._jobs[load_id]
                return True
        return False

    def _work(self) -> None:
        while (job := self._next()) is not None:
            _log.info("load begins id=%s pieces=%d request=%s", job.id, len(job.pieces), job.request_id)
            try:
                job.finish(self._run(job))
            except (CacheError, SourceError) as error:
                job.give_up(error.kind, str(error))
            except Exception as error:  # noqa: BLE001 - the thread goes on with the next job
                job.give_up("internal", f"{type(error).__name__}; see the worker's log")
                _log.exception("load failed id=%s", job.id)
            _log.info("load ends id=%s state=%s", job.id, job.state)

    def _next(self) -> _Job | None:
        with self._changed:
            while not self._stopped:
                waiting = [job for job in self._jobs.values() if job.state == "waiting"]
                if waiting:
                    job = max(waiting, key=lambda one: (one.priority, one.share.priority))  # the first of equals
                    job.state = "running"
                    return job
                self._changed.wait(60.0)
            return None

    def _run(self, job: _Job) -> LoadReport:
        left = None if job.deadline is None else max(0.0, job.deadline - time.monotonic())
        plan = plan_load(self._client, job.locations, share=job.share)
        return run_load(
            self._client,
            plan,
            on_progress=job.note,
            concurrency=self._concurrency,
            share=job.share,
            deadline_seconds=left,
            cancel=job.cancel,
            busy=self._busy,
        )


class _PieceLocations:
    """The pieces of a request as locations, which a load goes through several times."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[Location]:
        return (Location(ref, *block_span(run, ref.size)) for ref, run in self._pieces)


def _fingerprint(pieces: Sequence[Piece]) -> bytes:
    digest = blake3()
    for ref, run in pieces:
        digest.update(ref.id + _RUN.pack(*run))
    return digest.digest(16)


class _Job:
    """One load; its thread writes whole values, others read them."""

    def __init__(self, request: LoadRequest) -> None:
        self.id = request.id
        self.request_id = request.request_id
        self.share = request.share
        self.priority = request.priority
        self.pieces = request.pieces
        self.locations = _PieceLocations(request.pieces)
        self.deadline = None if request.deadline_seconds is None else time.monotonic() + request.deadline_seconds
        self.fingerprint = _fingerprint(request.pieces)
        self.cancel = threading.Event()
        self.state = "waiting"
        self._counts = {
            "total_bytes": sum(map(piece_bytes, request.pieces)),
            "done_bytes": 0,
            "total_objects": len({ref.id for ref, _ in request.pieces}),
            "done_objects": 0,
            "failed_objects": 0,
            "fetched_bytes": 0,
            "peer_bytes": 0,
        }
        self._failures: list[dict[str, str]] = []

    def status(self, *, failures: bool) -> dict[str, Any]:
        """Return what is told about it."""
        status = {"id": self.id, "state": self.state, "share": self.share.name, "priority": self.priority}
        return {**status, **self._counts, **({"failures": self._failures} if failures else {})}

    def note(self, progress: LoadProgress) -> None:
        """Note how far it is."""
        self._counts = {
            **self._counts,
            "done_bytes": progress.bytes_done,
            "done_objects": progress.objects_done,
            "failed_objects": progress.failed_objects,
            "fetched_bytes": progress.fetched_bytes,
        }

    def finish(self, report: LoadReport) -> None:
        """Note its end."""
        rows = [
            {"uri": one.uri, "kind": one.kind, "reason": one.reason[:_MAX_REASON]}
            for one in report.failures[:_MAX_FAILURES]
        ]
        if report.left_out_objects:
            rows.append({"uri": "", "kind": "cache_full", "reason": f"no room for {report.left_out_objects} objects"})
        self._failures = rows
        failed = report.failed_objects + report.left_out_objects
        self._counts = {**self._counts, "failed_objects": failed, "peer_bytes": report.peer_bytes}
        self.drop_pieces()
        cancelled = report.stopped == LoadStop.CANCELLED
        self.state = "done" if report.verified else "cancelled" if cancelled else "failed"

    def give_up(self, kind: str, reason: str) -> None:
        """Note an end without a report."""
        self._failures = [{"uri": "", "kind": kind, "reason": reason}]
        self._counts = {**self._counts, "failed_objects": self._counts["total_objects"]}
        self.drop_pieces()
        self.state = "failed"

    def drop_pieces(self) -> None:
        """Give the memory back: it is over."""
        self.locations, self.pieces = _PieceLocations(()), ()
