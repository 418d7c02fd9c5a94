"""Looks after many datasets: each when it is due, a few at a time; the trouble of one stops no other."""

from __future__ import annotations

import gc
import logging
import random
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from dataset_controller.agent.statuses import Subject, dataset_status
from dataset_controller.agent.syncing import DatasetLook, Report
from dataset_controller.agent.troubles import Trouble
from dataset_controller.operator.queueing import Key, WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from dataset_controller.agent.telling import Teller
    from sources import Location

_log = logging.getLogger(__name__)
_TAKE_SECONDS = 1.0
_HEAD_SECONDS = 20.0
"""How often the branch of a dataset that is not synced is looked at: one small read."""
_CHECK_SECONDS = 120.0
"""How often its sources are."""
_REST = 0.5
"""Of the time that a look took, so much passes at least before the next one."""
_MOST_OPEN = 64
"""Datasets whose stores stay open; each has connections and a cache of tree nodes: about 3 MB."""
_COLLECTED_AFTER = 32
"""Datasets that were closed: Python sees a few hundred objects in cycles, not the megabytes that these hold."""


class WritesEvents(Protocol):
    """Writes what happened to an object; see `Announcer`."""

    def event(self, key: Key, reason: str, message: str, *, is_warning: bool = False) -> None:
        """Write it; it never fails."""


@dataclass(frozen=True)
class _Known:
    """What is known of a dataset.

    Attributes:
        subject: As declared.
        report: What was found last.
        checked_at: When its sources were checked, by the clock of the engine.
    """

    subject: Subject
    report: Report | None = None
    checked_at: float = float("-inf")


class Engine:
    """Any number of threads call `work`.

    Args:
        home: Secrets, and room for what scans and commits need.
        teller: Told statuses.
        events: Told commits and failures.
        clock: Seconds that only grow.
    """

    def __init__(
        self, home: Path, teller: Teller, events: WritesEvents, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._home = home
        self._teller = teller
        self._events = events
        self._clock = clock
        self._queue = WorkQueue(clock)
        self._lock = threading.Lock()
        self._known: dict[Key, _Known] = {}
        self._open: OrderedDict[Key, tuple[int, DatasetLook]] = OrderedDict()
        self._closed = 0
        self.on_version: Callable[[Key], None] = lambda key: None
        """Called when a dataset has another version."""
        self.commits = 0
        self.looks = 0
        self.failures = 0

    def put(self, key: Key, subject: Subject) -> None:
        """Look after a dataset; one that was declared anew is looked at now."""
        with self._lock:
            known = self._known.get(key)
            if known is not None and known.subject.generation == subject.generation:
                return
            self._known[key] = _Known(subject)
        self._queue.add(key)

    def drop(self, key: Key) -> None:
        """Look after a dataset no more."""
        with self._lock:
            self._known.pop(key, None)
            self._open.pop(key, None)

    def version(self, key: Key) -> tuple[str, int, Iterable[Location]] | None:
        """Return the commit, size and locations of a dataset's version; None while there is none."""
        with self._lock:
            known, found = self._known.get(key), self._open.get(key)
        version = known.report.version if known is not None and known.report is not None else None
        if known is None or version is None:
            return None
        look = found[1] if found is not None else DatasetLook(known.subject.dataset, self._home)
        where = look.locations(version.commit)
        return None if where is None else (version.commit, version.size_bytes, where)

    def work(self) -> None:
        """Look at one dataset, if one is due within a second."""
        key = self._queue.take(_TAKE_SECONDS)
        if key is None:
            return
        with self._lock:
            known = self._known.get(key)
        if known is None:
            self._queue.done(key)
            return
        begun = self._clock()
        checks = begun - known.checked_at >= _CHECK_SECONDS
        report = self._look(key, known, checks=checks)
        is_current = self._note(key, known, report, checks=checks)
        if not report.is_good:
            self.failures += 1
            _log.info("trouble dataset=%s again_in=%.1fs", key.name, self._queue.failed(key))
        else:
            self._queue.done(key, again=self._pause(known, begun) if is_current else 0.0)

    def close(self) -> None:
        """Let nobody wait any more."""
        self._queue.close()

    def _pause(self, known: _Known, begun: float) -> float:
        now = self._clock()
        sync = known.subject.dataset.spec.sync
        if sync is None:
            return _HEAD_SECONDS * (0.8 + random.random() / 4)
        return max(begun + sync.interval - now, (now - begun) * _REST)

    def _look(self, key: Key, known: _Known, *, checks: bool) -> Report:
        self.looks += 1
        try:
            return self._opened(key, known).look(checks_sources=checks)
        except Exception as error:  # noqa: BLE001 - whatever one dataset does to us, the others go on
            _log.exception("internal error dataset=%s", key.name)
            with self._lock:
                self._open.pop(key, None)
            message = f"internal error, {type(error).__name__}: see the agent's log, and report it; it is tried again"
            return Report(sync=Trouble("InternalError", message))

    def _opened(self, key: Key, known: _Known) -> DatasetLook:
        generation = known.subject.generation
        with self._lock:
            found = self._open.get(key)
            if found is not None and found[0] == generation:
                self._open.move_to_end(key)
                return found[1]
        look = DatasetLook(known.subject.dataset, self._home)
        with self._lock:
            self._open[key] = (generation, look)
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
                self._closed += 1
            is_time = self._closed >= _COLLECTED_AFTER
            if is_time:
                self._closed = 0
        if is_time:
            gc.collect()
        return look

    def _note(self, key: Key, known: _Known, report: Report, *, checks: bool) -> bool:
        """Keep and tell what was found, unless the dataset is another one by now; say whether it is not."""
        before = known.report
        if known.subject.dataset.spec.sync is None and not checks and before is not None and report.repository is None:
            report = replace(report, sources=before.sources)
        subject = replace(known.subject, status=self._teller.known(key) or known.subject.status)
        with self._lock:
            current = self._known.get(key)
            if current is None or current.subject is not known.subject:
                return False
            checked_at = self._clock() if checks and report.is_good else known.checked_at
            self._known[key] = _Known(known.subject, report, checked_at)
        self._teller.note(key, "version", dataset_status(subject, report, datetime.now(UTC)))
        self._announce(key, before, report)
        if report.version != (before.version if before is not None else None):
            self.on_version(key)
        return True

    def _announce(self, key: Key, before: Report | None, report: Report) -> None:
        if report.commit is not None:
            self.commits += 1
            _log.info("committed dataset=%s commit=%s message=%s", key.name, report.commit.id, report.commit.message)
            self._events.event(key, "Committed", f"{report.commit.id[:8]}: {report.commit.message}")
        for what in ("repository", "sources", "sync"):
            was: Trouble | None = getattr(before, what) if before is not None else None
            now: Trouble | None = getattr(report, what)
            if now is not None and (was is None or was.reason != now.reason) and now.reason != "SourcesUnreachable":
                _log.warning("trouble dataset=%s reason=%s message=%s", key.name, now.reason, now.message)
                self._events.event(key, now.reason, now.message, is_warning=True)
            elif was is not None and now is None and report.is_good:
                self._events.event(key, "Recovered", f"{was.reason} is over")
