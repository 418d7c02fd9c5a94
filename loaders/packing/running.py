"""Rewriting a commit as tar shards: plan, work the shards off, commit."""

from __future__ import annotations

import time
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loaders.errors import PackError, PackExecutorError
from loaders.packing.committing import changes_of
from loaders.packing.executors import reach_executor
from loaders.packing.journals import journal_name, opened_journal, stored_shards
from loaders.packing.making import ShardMaker
from loaders.packing.planning import Inventory
from loaders.packing.processes import ProcessQueue
from loaders.packing.queues import ExecutorQueue, LocalQueue
from loaders.packing.reports import PackProgress, PackReport
from loaders.packing.transforms import require_importable, transform_ref
from loaders.packing.workplaces import OpenedWorkplace, lent, plain_workplace
from sources import SourceNotFoundError
from versioning import NothingToCommitError
from versioning.errors import ObjectsCollectedError
from versioning.maintenance import leased

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cache_runtime import Client
    from loaders.packing.journals import Journal
    from loaders.packing.queues import ShardQueue
    from loaders.packing.reports import PackPlan, Skipped
    from loaders.packing.tasks import ShardResult, ShardTask, TransformRef, Workplace
    from loaders.sharding import ShardLayout
    from versioning import CommitId, Repository

_LOOKS_AT_ONCE = 16
_ROUNDS = 2  # shards that were collected between two runs are written again once


@dataclass(frozen=True, slots=True)
class PackOptions:
    """How a pack is done. The result does not depend on it, but for the transform.

    Attributes:
        workers: Processes of this machine; 1 is this process itself. Each needs memory for two shards, or 32 MiB
            where the repository lies in a directory.
        executor: Somebody's `concurrent.futures.Executor`, or the URL of a cluster, see `loaders.packing.executors`.
        transform: Called with each sample, a dict of field to bytes and `__key__` to its key; returns such a dict, or
            None to drop the sample. Or `module:function`; with other processes it must be importable there.
        transform_version: The user's words for the version of that code, beside the hash of its file.
        journals: Directory in which to remember what is stored; None: an interrupted pack begins anew.
        resume: Go on with an interrupted pack, rather than begin anew.
        verify: Read every shard back and compare its hash, and hash every file even where its checksum is known.
            Without it the size of each stored shard is compared.
        skip_errors: How many inputs may be unreadable, or fail in the transform, and be left out.
        workplace: How other processes open repository and sources; by default by URI, with the credentials of their
            environment.
        spool: Directory for shards over 512 MiB; the system's own by default.
    """

    workers: int = 1
    executor: Executor | str | None = None
    transform: Callable[[dict[str, Any]], Any] | str | None = None
    transform_version: str = ""
    journals: Path | None = None
    resume: bool = True
    verify: bool = False
    skip_errors: int = 0
    workplace: Workplace | None = None
    spool: Path | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}; expected at least 1")
        if self.skip_errors < 0:
            raise ValueError(f"skip_errors is {self.skip_errors}; expected 0 or more")


_OPTIONS = PackOptions()


def plan_pack(repository: Repository, rev: str, *, layout: ShardLayout, options: PackOptions = _OPTIONS) -> PackPlan:
    """Find out what `pack` would do; no file is read. Errors as in `pack`."""
    commit = repository.resolve(rev)
    transform = _transform_ref(options)
    inventory = Inventory.of(repository, commit, layout, whole_samples=transform is not None)
    return inventory.summary(stored_shards(options.journals, journal_name(commit, layout, transform)))


def pack(
    repository: Repository,
    rev: str,
    client: Client,
    *,
    layout: ShardLayout,
    branch: str,
    author: str,
    message: str | None = None,
    options: PackOptions = _OPTIONS,
    on_progress: Callable[[PackProgress], None] | None = None,
) -> PackReport:
    """Write the small files of a revision into tar shards and commit the new places: the same paths and content.

    A file larger than `versioning.BLOB_BYTES` (16 MiB) stays where it is: it gains nothing from company. With a
    transform the new commit has other content: its meta says so, and large members of samples go into shards, too.

    The bytes of the shards depend on the content, the layout and the transform only: not on where the files lay
    before, on how many workers there are, or on interruptions. Nothing is on the branch before all shards are stored.
    Run again after an interruption, it writes the shards that are missing. What is stored and never committed is
    collected by `ds gc` a grace period later; while a pack runs, it holds a lease. Where a file's hash is known it is
    compared, where it is not it is learned.

    Args:
        repository: Holds the revision and gets the shards.
        rev: What to pack; the change set is committed as one made against it.
        client: Reads the files, in this process. A revision that is packed already is read in another order than it
            lies in, so its cache should have room for it; loose files of a local disk are read past the cache.
        layout: Order, size and naming.
        branch: Where to commit.
        author: As in `Repository.commit_changes`.
        message: Of the commit; by default it says what was packed.
        options: Workers, transform, what to do about errors.
        on_progress: Called after each shard.

    Raises:
        DuplicateFieldError: If two paths are one field of one sample under the layout's key rule.
        CorruptSampleError: If a file's bytes are not those that were committed; nothing was committed.
        SourceChangedError: If an imported object changed at its source.
        TransformError: If the transform fails.
        PackError: If workers cannot be had, or die.
        VersioningError: As `Repository.commit_changes`.
    """
    commit = repository.resolve(rev)
    run = _Run(repository, commit, layout, options, on_progress)
    owner = f"ds pack of {author}"
    with leased(repository.store, repository.prefix, owner), run.journal() as journal, run.queue(client) as queue:
        for left in reversed(range(_ROUNDS)):
            results = run.work_off(queue, journal)
            try:
                found = run.commit(results, branch=branch, author=author, message=message)
            except ObjectsCollectedError:
                if not left:
                    raise
                continue
            break
        if journal is not None:
            journal.forget()
    return run.report(found, branch, results)


class _Run:
    """One call of `pack`."""

    def __init__(
        self,
        repository: Repository,
        commit: CommitId,
        layout: ShardLayout,
        options: PackOptions,
        on_progress: Callable[[PackProgress], None] | None,
    ) -> None:
        self._began = time.monotonic()
        self._repository = repository
        self._layout = layout
        self._options = options
        self._transform = _transform_ref(options)
        self._inventory = Inventory.of(repository, commit, layout, whole_samples=self._transform is not None)
        self._workplace = options.workplace or plain_workplace(repository)
        self._on_progress = on_progress or (lambda _: None)
        self._resumed = 0
        self._tally = _Tally(self._inventory)

    @contextmanager
    def journal(self) -> Iterator[Journal | None]:
        """Open the journal of this pack, if there is to be one."""
        name = journal_name(self._inventory.commit, self._layout, self._transform)
        directory = self._options.journals
        with opened_journal(directory, name, resume=self._options.resume) if directory else nullcontext() as journal:
            yield journal

    @contextmanager
    def queue(self, client: Client) -> Iterator[ShardQueue]:
        """Start the workers."""
        options = self._options
        function = options.transform if callable(options.transform) else None
        with ExitStack() as held:
            if function is not None and (options.executor is not None or options.workers > 1):
                require_importable(function)
            if isinstance(options.executor, str):
                reached = held.enter_context(reach_executor(options.executor))
                queue: ShardQueue = ExecutorQueue(reached.executor, at_once=2 * reached.slots)
            elif isinstance(options.executor, Executor):
                queue = ExecutorQueue(options.executor, at_once=2 * options.workers)
            elif options.executor is not None:
                raise PackExecutorError(f"{options.executor!r} is no concurrent.futures.Executor, and no URL of one")
            elif options.workers > 1 and len(self._inventory.plan.shards) > 1:
                queue = ProcessQueue(min(options.workers, len(self._inventory.plan.shards)), spool=options.spool)
            else:
                opened = OpenedWorkplace(self._repository.store, self._repository.prefix, client)
                held.enter_context(lent(self._workplace, opened))
                queue = LocalQueue(ShardMaker(function, spool=options.spool))
            yield held.enter_context(queue)

    def work_off(self, queue: ShardQueue, journal: Journal | None) -> list[ShardResult]:
        """Store all shards that are not stored yet; return the results of all."""
        known = {} if journal is None else self._still_stored(journal.results)
        self._resumed = len(known)
        results = list(known.values())
        self._tally = _Tally(self._inventory, results)
        self._on_progress(self._tally.progress())
        for result in queue.results(self._tasks(set(known))):
            results.append(result)
            self._tally.add(result)
            self._tally.check_limit(self._options.skip_errors)
            if journal is not None:
                journal.add(result)
                journal.results[result.number] = result
            self._on_progress(self._tally.progress())
        return results

    def _tasks(self, known: set[int]) -> Iterator[ShardTask]:
        options = self._options
        for number in range(len(self._inventory.plan.shards)):
            if number not in known:
                spare = options.skip_errors - len(self._tally.skipped)
                yield self._inventory.task(
                    number, self._workplace, self._transform, verify=options.verify, skip_errors=spare
                )

    def commit(self, results: list[ShardResult], *, branch: str, author: str, message: str | None) -> CommitId | None:
        """Commit what the shards hold; None: the branch has it already."""
        inventory, transform = self._inventory, self._transform
        changes = changes_of(inventory, results, is_layout=transform is None)
        what = f"{len(inventory.entries)} files of {inventory.commit[:12]} into shards"
        meta = self._layout.record()
        if transform is not None:
            meta |= {"transform": transform.name, "code": transform.code, "version": transform.version}
            what += f" through {transform.name}"
        try:
            return self._repository.commit_changes(
                branch,
                changes,
                message=message or f"Pack {what}",
                author=author,
                base=inventory.commit,
                meta={"forebay.pack": meta},
            )
        except NothingToCommitError:
            return None

    def report(self, commit: CommitId | None, branch: str, results: list[ShardResult]) -> PackReport:
        """Say what was done."""
        return PackReport(
            commit=commit or self._repository.resolve(branch),
            is_new=commit is not None,
            samples=sum(result.samples for result in results),
            dropped=sum(result.dropped for result in results),
            files=sum(len(result.members) for result in results),
            shards=sum(result.pack is not None for result in results),
            resumed_shards=self._resumed,
            bytes=sum(int(result.members["size"].to_numpy().sum()) for result in results),
            seconds=time.monotonic() - self._began,
            skipped=tuple(sorted(self._tally.skipped, key=lambda each: each.path)),
        )

    def _still_stored(self, results: dict[int, ShardResult]) -> dict[int, ShardResult]:
        """Leave out shards that are gone: garbage collection took what was stored long ago and not committed."""
        store, prefix = self._repository.store, self._repository.prefix

        def is_there(result: ShardResult) -> bool:
            if result.pack is None:
                return True
            try:
                return store.stat(prefix + result.pack.key).size == result.pack.size
            except SourceNotFoundError:
                return False

        with ThreadPoolExecutor(_LOOKS_AT_ONCE, "forebay-pack-look") as pool:
            there = list(pool.map(is_there, results.values()))
        return {number: results[number] for number, found in zip(results, there, strict=True) if found}


class _Tally:
    """How far a run is."""

    def __init__(self, inventory: Inventory, results: Sequence[ShardResult] = ()) -> None:
        self.skipped: list[Skipped] = []
        self._inventory = inventory
        self._shards = self._done_bytes = 0
        for result in results:
            self.add(result)
        self._resumed_bytes = self._done_bytes
        self._started = time.monotonic()

    def add(self, result: ShardResult) -> None:
        """Count a shard."""
        self._shards += 1
        self._done_bytes += self._inventory.bytes_of(result.number)
        self.skipped += result.skipped

    def progress(self) -> PackProgress:
        """Return what is to be shown."""
        seconds = time.monotonic() - self._started
        return PackProgress(
            done_bytes=self._done_bytes,
            total_bytes=self._inventory.plan.total_bytes,
            shards=self._shards,
            total_shards=len(self._inventory.plan.shards),
            skipped=len(self.skipped),
            bytes_per_second=(self._done_bytes - self._resumed_bytes) / seconds if seconds > 0 else 0.0,
        )

    def check_limit(self, limit: int) -> None:
        """Refuse more skipped inputs than were allowed: each worker counts its own.

        Raises:
            PackError: If they are more in all.
        """
        if len(self.skipped) > limit:
            first = self.skipped[0]
            raise PackError(
                f"{len(self.skipped)} inputs cannot be packed, at most {limit} may be skipped; the first is"
                f" {first.path}: {first.reason}; mend them, or raise --skip-errors"
            )


def _transform_ref(options: PackOptions) -> TransformRef | None:
    if options.transform is None:
        return None
    return transform_ref(options.transform, options.transform_version)
