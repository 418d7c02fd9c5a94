"""What the commands of maintenance need: which sources may be asked, what to keep, and how progress is shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from ds.durations import parse_duration
from ds.errors import UsageError
from ds.progress import count_bar
from sources import ObjectRef, ObjectStat, SourceConfigError, Store, StoreId, Version
from versioning.maintenance import ExpirePolicy, GcPolicy

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta
    from types import TracebackType

    from dataset_controller import OpenDataset
    from ds.dataset import Dataset

_LINE_SECONDS = 10.0
SHORTEST_GRACE_SECONDS = 3600.0
"""A commit may take so long from its first upload to its ref; collecting with less is for `--now`."""


def external_stat(opened: OpenDataset) -> Callable[[str, str], ObjectStat]:
    """Return what looks an imported object up: only in the sources of the manifest, whatever a commit names."""
    origins = opened.origins

    def stat(store: str, key: str) -> ObjectStat:
        found = origins.store_for(ObjectRef(StoreId(store), key, Version(""), 0))
        if not hasattr(found, "stat"):
            raise SourceConfigError(f"{store} cannot be asked about single objects")
        return cast("Store", found).stat(key)

    return stat


def gc_policy(grace: str | None, *, now: bool, by: str) -> GcPolicy:
    """Return how to collect.

    Raises:
        UsageError: If the grace period is shorter than a commit may take.
    """
    if now:
        if grace is not None:
            raise UsageError("--now is no grace period at all; leave --grace out")
        return GcPolicy(grace_seconds=0, by=by)
    if grace is None:
        return GcPolicy(by=by)
    seconds = parse_duration(grace, what="--grace")
    if seconds < SHORTEST_GRACE_SECONDS:
        raise UsageError(f"--grace {grace}: less than 1h could delete what somebody is committing; if nobody is: --now")
    return GcPolicy(grace_seconds=seconds, by=by)


def check_nothing_is_staged(dataset: Dataset) -> None:
    """Refuse to collect at once what is about to be committed here; what others have staged nobody knows.

    Raises:
        UsageError: If something is staged.
    """
    if dataset.stage().read().changes:
        raise UsageError(
            "--now deletes what was added and not committed, and something is staged here: ds commit or ds reset first"
        )


def expire_policy(keep: str | None, *, keep_tagged: bool, by: str, now: datetime, day: timedelta) -> ExpirePolicy:
    """Return what to keep: `30d` is an age, `20` a number of commits.

    Raises:
        UsageError: If nothing is said, or neither is meant.
    """
    if keep is None:
        raise UsageError("say what to keep: --keep 30d for an age, or --keep 20 for a number of commits")
    if keep.isdecimal():
        if not int(keep):
            raise UsageError("--keep 0: a branch keeps its last commit at least: --keep 1")
        return ExpirePolicy(newest=int(keep), tagged_history=keep_tagged, by=by)
    since = now - day * (parse_duration(keep, what="--keep") / day.total_seconds())
    return ExpirePolicy(since=since, tagged_history=keep_tagged, by=by)


class StageProgress:
    """Shows counters on stderr, one for each thing that is counted: live on a terminal, else a line now and then."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar = count_bar()
        self._tasks: dict[str, Any] = {}
        self._next_line = time.monotonic() + _LINE_SECONDS

    def __enter__(self) -> StageProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, name: str, count: int) -> None:
        """Show how many of something there are now."""
        if not self._bar.disable:
            if name not in self._tasks:
                self._tasks[name] = self._bar.add_task(f"{self._what}: {name}", total=None, rate="")
            self._bar.update(self._tasks[name], completed=count)
        elif time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + _LINE_SECONDS
            self._bar.console.print(f"{self._what}: {count:,} {name}", markup=False)
