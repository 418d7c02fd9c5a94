"""Garbage collection in two phases, safe beside writers and beside itself, resumable at any request."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from sources import SourceNotFoundError, SwapLostError
from sources.stores import DropUnfinished
from versioning.errors import CollectingError, StoreClockError
from versioning.maintenance.condemned import CondemnedList
from versioning.maintenance.condemning import judge, live_keys
from versioning.maintenance.leases import delete_lapsed, read_leases
from versioning.maintenance.listing import list_keys, store_time
from versioning.maintenance.operations import record_operation
from versioning.maintenance.policies import GcPolicy, GcReport, Tally
from versioning.maintenance.roots import read_roots
from versioning.maintenance.state import SWEEP_SECONDS, Phase, StateObject, list_key
from versioning.maintenance.sweeping import Sweep, SweepClaim, needed_again

if TYPE_CHECKING:
    from collections.abc import Iterator

    from versioning.maintenance.leases import Lease
    from versioning.maintenance.marking import Progress
    from versioning.repository import Repository

_SECOND = 1_000_000_000


def _quiet(what: str, count: int) -> None:
    """Show no progress."""


def collect_garbage(
    repository: Repository,
    policy: GcPolicy = GcPolicy(),  # noqa: B008 - frozen
    *,
    dry_run: bool = False,
    on_progress: Progress = _quiet,
) -> GcReport:
    """Delete what was condemned a grace period ago, then condemn what nothing needs now.

    Run it now and then, from one machine or several. It may be broken off at any moment: the next run goes on. It
    never touches the sources of imported files.

    Args:
        repository: Where.
        policy: How.
        dry_run: Write and delete nothing.
        on_progress: Called with what is being done and how often it was done.

    Raises:
        CollectingError: If another run deletes just now.
        CorruptRepositoryError: If a ref's history is not whole; nothing was condemned.
        StoreClockError: If the store does not tell when objects were written; nothing can be collected there.
    """
    return Collection(repository, policy, on_progress).run(dry_run=dry_run)


def list_live(
    repository: Repository,
    policy: GcPolicy = GcPolicy(),  # noqa: B008 - frozen
    *,
    on_progress: Progress = _quiet,
) -> Iterator[str]:
    """Yield the keys of all objects that refs and recent branch logs need, below the repository's prefix."""
    now = _local_time(repository)
    roots = read_roots(repository.store, repository.prefix, since_ns=now - int(policy.grace_seconds * _SECOND))
    return live_keys(repository, roots, on_progress=on_progress)


class Collection:
    """One run of garbage collection; see `collect_garbage`."""

    def __init__(self, repository: Repository, policy: GcPolicy, on_progress: Progress) -> None:
        self._repository = repository
        self._store = repository.store
        self._prefix = repository.prefix
        self._policy = policy
        self._on_progress = on_progress
        self._state = StateObject(repository.store, repository.prefix)
        self._grace_ns = int(policy.grace_seconds * _SECOND)
        self._now = 0

    def run(self, *, dry_run: bool) -> GcReport:
        """Do what is due."""
        state = self._state.fetch()
        if dry_run:
            self._now = _local_time(self._repository)
            return self._plan()
        self._now = store_time(self._store, self._prefix)
        if not self._now:
            raise StoreClockError(str(self._store.id))
        report = GcReport()
        if state.phase is not Phase.IDLE:
            if state.phase is Phase.SWEEPING and self._now < self._state.changed_ns() + int(SWEEP_SECONDS * _SECOND):
                raise CollectingError("another run deletes condemned objects")
            if (left := self._left_ns()) > 0:
                return self._waiting(left)
            report = self._sweep()
            if report.held_by:
                return report
        report = self._condemn(report)
        if not self._grace_ns and self._state.current.phase is Phase.CONDEMNED:
            swept = self._sweep()
            report = replace(report, deleted=_sum(report.deleted, swept.deleted), kept=report.kept + swept.kept)
        return report

    def _left_ns(self) -> int:
        return self._state.current.condemned_ns + self._grace_ns - self._now

    def _waiting(self, left_ns: int) -> GcReport:
        return GcReport(waits_seconds=left_ns / _SECOND)

    def _plan(self) -> GcReport:
        leases = self._live_leases()
        roots = read_roots(self._store, self._prefix, since_ns=self._now - self._grace_ns)
        verdict = judge(self._repository, roots, cutoff_ns=self._cutoff(leases), on_progress=self._on_progress)
        verdict.condemned.close()
        waits = max(0, self._left_ns()) if self._state.current.phase is not Phase.IDLE else self._grace_ns
        return GcReport(condemned=verdict.tally, live_objects=verdict.live, waits_seconds=waits / _SECOND, dry_run=True)

    def _live_leases(self) -> list[Lease]:
        return [lease for lease in read_leases(self._store, self._prefix) if lease.lapses_ns >= self._now]

    def _cutoff(self, leases: list[Lease]) -> int:
        return min([self._now - self._grace_ns, *(lease.started_ns for lease in leases)])

    # --- first phase

    def _condemn(self, report: GcReport) -> GcReport:
        """List what nothing needs and publish the list; the roots are read before anything is listed."""
        listed_ns = self._now
        leases = read_leases(self._store, self._prefix)
        live = [lease for lease in leases if lease.lapses_ns >= self._now]
        roots = read_roots(self._store, self._prefix, since_ns=self._now - self._grace_ns)
        if self._is_fresh(roots.digest):
            return replace(report, unchanged=True)
        verdict = judge(self._repository, roots, cutoff_ns=self._cutoff(live), on_progress=self._on_progress)
        with verdict.condemned:
            self._publish(verdict.condemned, listed_ns, roots.digest)
        delete_lapsed(self._store, self._prefix, leases, now_ns=self._now, grace_ns=max(self._grace_ns, _SECOND))
        self._drop_unfinished(live)
        waits = self._grace_ns if verdict.tally.total_objects else 0
        done = replace(report, condemned=verdict.tally, live_objects=verdict.live, waits_seconds=waits / _SECOND)
        if verdict.tally.total_objects:
            self._record("condemn", verdict.tally)
        return done

    def _is_fresh(self, digest: str) -> bool:
        state = self._state.current
        period = min(self._policy.check_seconds * _SECOND, self._grace_ns / 7)
        return state.roots == digest and self._now < state.checked_ns + period

    def _publish(self, condemned: CondemnedList, listed_ns: int, digest: str) -> None:
        state = self._state.current
        changes = {"checked_ns": listed_ns, "roots": digest}
        if condemned.objects:
            name = f"{state.epoch + 1:010d}-{secrets.token_hex(8)}"
            condemned.upload(self._store, list_key(self._prefix, name))
            changes |= {
                "phase": Phase.CONDEMNED,
                "epoch": state.epoch + 1,
                "list": name,
                "listed_ns": listed_ns,
                "condemned_ns": store_time(self._store, self._prefix),
                "grace_ns": self._grace_ns,
                "objects": condemned.objects,
                "bytes": condemned.bytes,
            }
        try:
            self._state.change(**changes)
        except SwapLostError as error:
            raise CollectingError("another run condemned objects at the same time") from error
        self._drop_old_lists()

    def _drop_unfinished(self, live: list[Lease]) -> None:
        """Delete what killed writers have left; who has written nothing for a day, and a grace period, is no more.

        Unless its lease says that it is: a writer may wait for long for what it writes.
        """
        if isinstance(self._store, DropUnfinished):
            before_ns = min(self._cutoff(live), self._now - 86400 * _SECOND)
            self._store.drop_unfinished(self._prefix, before_ns=before_ns)

    def _drop_old_lists(self) -> None:
        """Delete lists that are not in use, a day later: a writer may be reading one."""
        state = self._state.current
        used = {list_key(self._prefix, name) for name in (state.list, state.swept_list)}
        for stat in list_keys(self._store, self._prefix + "gc/"):
            is_list = stat.key.endswith("/condemned.parquet") or "gc/clock-" in stat.key
            if is_list and stat.key not in used and (stat.mtime_ns or self._now) < self._now - 86400 * _SECOND:
                self._store.delete(stat.key)

    # --- second phase

    def _sweep(self) -> GcReport:
        state = self._state.current
        with SweepClaim(self._state) as claim:
            holder = next((lease for lease in self._live_leases() if lease.started_ns < state.condemned_ns), None)
            if holder is not None:
                return GcReport(held_by=holder.owner)
            roots = read_roots(self._store, self._prefix, since_ns=self._now - self._grace_ns)
            try:
                condemned = CondemnedList.download(self._store, list_key(self._prefix, state.list))
            except SourceNotFoundError:  # a run that was broken off here before has ended it
                condemned = CondemnedList()
            with condemned:
                needed = needed_again(self._repository, condemned, roots, listed_ns=state.listed_ns, claim=claim)
                sweep = Sweep(self._repository, claim, needed, self._on_progress)
                sweep.run(condemned)
            claim.finish(store_time(self._store, self._prefix))
        self._record("sweep", sweep.deleted)
        return GcReport(deleted=sweep.deleted, kept=sweep.kept)

    def _record(self, kind: str, tally: Tally) -> None:
        details = {"epoch": self._state.current.epoch, "grace_seconds": self._policy.grace_seconds, **tally.as_json()}
        record_operation(self._repository, kind, self._policy.by, details)


def _local_time(repository: Repository) -> int:
    """Return this machine's time, nanoseconds since 1970: good enough where nothing is deleted."""
    return int(repository.refs.clock().timestamp() * _SECOND)


def _sum(left: Tally, right: Tally) -> Tally:
    for kind, count in right.objects.items():
        left = left.plus(kind, count, right.bytes[kind])
    return left
