"""What the job of a DataLoad does: bring the chosen files of a revision into the workers, and tell how far it is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from cache_runtime import loading
from dataset_controller import open_peers
from dataset_controller.agent.loads import ProgressTeller, report_fields
from dataset_controller.sharing import plan_share
from ds.dataset import Dataset
from ds.errors import UsageError
from ds.globbing import is_pattern, pattern_regex
from sources.lazy import LazyModule
from versioning import PathNotFoundError, locations

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from cache_runtime import LoadReport
    from cache_runtime.peers import Peers
    from cache_runtime.store.shares import Share
    from dataset_controller.agent.loads import ClusterLoad
    from ds.settings import Settings
    from sources import Location
    from versioning import CommitId, Repository

_compute: Any = LazyModule("pyarrow.compute")
_log = logging.getLogger(__name__)


class ChosenFiles:
    """Locations of the files of a version that patterns choose; may be gone through any number of times.

    Args:
        repository: Holds the version.
        commit: The version.
        include: Files, directories or patterns, as `ds load` takes them; all files if there are none.
        exclude: The same; goes before `include`.

    Attributes:
        files: How many there are.
        version_bytes: Size of the whole version.

    Raises:
        PathNotFoundError: If patterns choose nothing.
        TargetError: If one of them cannot be.
    """

    def __init__(
        self, repository: Repository, commit: CommitId, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> None:
        self._repository = repository
        self._tree = repository.tree_of(commit)
        self._include = [_regex(each) for each in include]
        self._exclude = [_regex(each) for each in exclude]
        self.version_bytes = self._tree.size
        self.files = self._tree.rows
        if include or exclude:
            self.files = sum(table.num_rows for table in self._tables())
            if not self.files:
                chosen = ", ".join(include) or f"anything but {', '.join(exclude)}"
                raise PathNotFoundError(chosen, where=commit[:8])

    def __iter__(self) -> Iterator[Location]:
        for table in self._tables():
            yield from locations(table, self._repository.root)

    def _tables(self) -> Iterator[pa.Table]:
        for table in self._tree.scan():
            paths = table.column("path")
            kept = _matches(paths, self._include) if self._include else None
            if self._exclude:
                others = _compute.invert(_matches(paths, self._exclude))
                kept = others if kept is None else _compute.and_(kept, others)
            yield table if kept is None else table.filter(kept)


def _matches(paths: Any, patterns: Sequence[str]) -> Any:
    found = _compute.match_substring_regex(paths, pattern=patterns[0])
    for pattern in patterns[1:]:
        found = _compute.or_(found, _compute.match_substring_regex(paths, pattern=pattern))
    return found


def _regex(pattern: str) -> str:
    """Return the regular expression of a file, a directory or a pattern; what has no special letters has none."""
    pattern = pattern.strip("/")
    if is_pattern(pattern):
        return pattern_regex(pattern)
    import re

    return f"^{re.escape(pattern)}(?:/|$)"


class _Workers(NamedTuple):
    """Where a load goes to."""

    peers: Peers
    share: Share


def run_cluster_load(asked: ClusterLoad, settings: Settings, *, cancel: threading.Event) -> LoadReport:
    """Do what a DataLoad asks, and tell its status meanwhile; run again, it goes on with what is missing.

    Raises:
        UsageError: If the dataset has no cache with workers.
        RevisionNotFoundError, PathNotFoundError: If it names what is not there.
        MembershipError: If there are no workers.
    """
    spec = asked.load.spec
    dataset = Dataset(spec.dataset.name, settings=settings)
    commit = dataset.resolve(spec.revision)  # once: the branch may move while we load
    files = ChosenFiles(dataset.repository, commit, spec.include, spec.exclude)
    workers = _workers(dataset, files, settings)
    fields: dict[str, Any] = {"revision": commit, "filesTotal": files.files}
    _log.info("load begins dataset=%s commit=%s files=%d", dataset.name, commit, files.files)
    plan = loading.plan_distributed(workers.peers, files, replicas=workers.peers.replicas, share=workers.share)
    with ProgressTeller(asked, fields) as teller:
        report = loading.run_distributed(
            workers.peers, plan, on_progress=teller.show, share=workers.share, cancel=cancel
        )
    asked.tell({**fields, **report_fields(report, plan.present_bytes)})
    _log.info(
        "load ends dataset=%s commit=%s verified=%s bytes=%d fetched=%d failed=%d",
        dataset.name, commit, report.verified, report.total_bytes, report.fetched_bytes,
        report.failed_objects + report.left_out_objects,
    )  # fmt: skip
    return report


def _workers(dataset: Dataset, files: ChosenFiles, settings: Settings) -> _Workers:
    """Return the workers of a dataset; nothing of a cache of this pod's own, which has none."""
    opened = dataset.opened
    use, name = opened.resource.spec.cache, dataset.name
    if opened.runtime is None or use is None:
        raise UsageError(f"dataset {name} names no cache: add spec.cache.runtimeRef to it")
    peers = open_peers(opened.runtime, settings.access, directory=str(settings.home), replicas=use.replicas)
    if peers is None:
        raise UsageError(f"CacheRuntime {opened.runtime.metadata.name} has no workers to load into")
    members = len(peers.members())
    # each worker goes by what it promised the dataset itself: only the name counts here
    share = plan_share(opened.resource, version_bytes=files.version_bytes, room_bytes=1 << 62, workers=members)
    return _Workers(peers, share)
