"""From what was found to what is told; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset_controller.operator.planning.conditions import Finding, conditions, timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from dataset_controller.agent.syncing import Report
    from dataset_controller.agent.troubles import Trouble
    from dataset_controller.model import Dataset

CONDITIONS = ("SourcesReachable", "RepositoryReady", "Synced", "Ready")
CACHE_FIELDS = ("cachedBytes", "cachedPercent", "cachedOn", "hitPercent")
_VERSION_FIELDS = ("revision", "files", "sizeBytes", "lastSyncTime", "lastCommitTime")


@dataclass(frozen=True)
class Subject:
    """A dataset of the cluster.

    Attributes:
        dataset: Its specification.
        generation: Of that.
        status: As the cluster tells it.
    """

    dataset: Dataset
    generation: int
    status: Mapping[str, Any]


def dataset_status(subject: Subject, report: Report, now: datetime) -> dict[str, Any]:
    """Return what to tell of a dataset, beside what its cache tells.

    What is not known now stays as it was told: a source that is away takes no number with it.
    """
    before = subject.status
    status = {name: before[name] for name in _VERSION_FIELDS if before.get(name) is not None}
    if report.version is not None:
        version = report.version
        status |= {"revision": version.commit, "files": version.files, "sizeBytes": version.size_bytes}
    if report.is_synced:
        status["lastSyncTime"] = timestamp(now)
    if report.commit is not None:
        status["lastCommitTime"] = timestamp(now)
    told = [each for each in before.get("conditions") or [] if each["type"] in CONDITIONS]
    findings = _findings(subject.dataset, report)
    return {**status, "conditions": conditions(told, findings, generation=subject.generation, now=now)}


def _findings(dataset: Dataset, report: Report) -> Sequence[Finding]:
    repository = _finding("RepositoryReady", report.repository, "Open", dataset.spec.repo.uri)
    if report.repository is not None:
        unknown = "the repository comes first: see condition RepositoryReady"
        rest = [Finding(name, None, "RepositoryNotReady", unknown) for name in ("SourcesReachable", "Synced")]
        return [*rest, repository, Finding("Ready", False, report.repository.reason, report.repository.message)]
    sources = _finding("SourcesReachable", report.sources, "Answering", _mounts(dataset))
    return [sources, repository, _synced(dataset, report), _ready(dataset, report)]


def _synced(dataset: Dataset, report: Report) -> Finding:
    if dataset.spec.sync is None:
        return Finding("Synced", None, "NoSync", "spec.sync is not set: ds commit makes versions")
    if report.sync is not None:
        return Finding("Synced", False, report.sync.reason, report.sync.message)
    interval = f"every {dataset.spec.sync.interval:g} s"
    if report.version is None:
        return Finding("Synced", True, "Empty", f"the sources have no files yet; looked at {interval}")
    return Finding("Synced", True, "UpToDate", f"{dataset.spec.sync.branch} is as the sources; looked at {interval}")


def _ready(dataset: Dataset, report: Report) -> Finding:
    trouble = report.sources or report.sync
    if report.version is None and dataset.spec.mounts:
        if trouble is not None:
            return Finding("Ready", False, trouble.reason, trouble.message)
        step = "it waits for the first file" if dataset.spec.sync else "set spec.sync, or commit: ds import, ds commit"
        return Finding("Ready", False, "NoVersion", f"there is no version yet; {step}")
    if report.sources is not None:
        message = f"what is cached can be read; {report.sources.message}"
        return Finding("Ready", False, report.sources.reason, message)
    return Finding("Ready", True, "Readable", "")


def _finding(kind: str, trouble: Trouble | None, word: str, message: str) -> Finding:
    return Finding(kind, True, word, message) if trouble is None else Finding(kind, False, *trouble)


def _mounts(dataset: Dataset) -> str:
    return ", ".join(mount.name for mount in dataset.spec.mounts) or "there are no mounts"


def is_news(before: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Say whether a status differs in more than the time of the last sync."""
    return {**before, "lastSyncTime": None} != {**status, "lastSyncTime": None}
