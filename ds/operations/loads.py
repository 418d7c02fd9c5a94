"""What a DataLoad asks: bring the chosen files of a revision into the cache, and tell how far it is."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cache_runtime import loading
from dataset_controller import open_peers
from dataset_controller.agent.loads import ProgressTeller, progress_fields, report_fields
from dataset_controller.operations import DataLoad
from dataset_controller.sharing import plan_share
from ds.dataset import Dataset
from ds.errors import UsageError
from ds.loading import LoadOptions, PlannedLoad, plan_version_load
from ds.operations.choosing import ChosenFiles

if TYPE_CHECKING:
    import threading

    from cache_runtime import LoadReport
    from dataset_controller.agent.loads import Asked
    from ds.settings import Settings

_log = logging.getLogger(__name__)


def run_load(asked: Asked, settings: Settings, *, cancel: threading.Event) -> LoadReport:
    """Do what a DataLoad asks, and tell its status meanwhile; run again, it goes on with what is missing.

    Raises:
        UsageError: If the dataset has no cache, or in a pod one without workers.
        RevisionNotFoundError, PathNotFoundError: If it names what is not there.
        MembershipError: If there are no workers.
    """
    assert isinstance(asked.operation, DataLoad)
    spec = asked.operation.spec
    dataset = Dataset(spec.dataset.name, settings=settings)
    commit = dataset.resolve(spec.revision)  # once: the branch may move while we load
    files = ChosenFiles(dataset.repository, commit, spec.include, spec.exclude)
    fields: dict[str, Any] = {"revision": commit, "filesTotal": files.files}
    _log.info("load begins dataset=%s commit=%s files=%d", dataset.name, commit, files.files)
    options = LoadOptions(replicas=spec.replicas, priority=spec.priority)
    if settings.manifests is not None:
        planned = _plan_in_pod(dataset, files, options, settings)
    else:
        planned = plan_version_load(dataset.opened, files, options)
    with ProgressTeller(asked, fields) as teller:
        report = planned.run(on_progress=lambda now: teller.show(progress_fields(now)), cancel=cancel)
    asked.tell({**fields, **report_fields(report, planned.plan.present_bytes)})
    _log.info(
        "load ends dataset=%s commit=%s verified=%s bytes=%d fetched=%d failed=%d",
        dataset.name, commit, report.verified, report.total_bytes, report.fetched_bytes,
        report.failed_objects + report.left_out_objects,
    )  # fmt: skip
    return report


def _plan_in_pod(dataset: Dataset, files: ChosenFiles, options: LoadOptions, settings: Settings) -> PlannedLoad:
    """Plan a load into the workers of a dataset; nothing of a cache of this pod's own, which has none."""
    opened = dataset.opened
    use, name = opened.resource.spec.cache, dataset.name
    if opened.runtime is None or use is None:
        raise UsageError(f"dataset {name} names no cache: add spec.cache.runtimeRef to it")
    peers = open_peers(opened.runtime, settings.access, directory=str(settings.home), replicas=use.replicas)
    if peers is None:
        raise UsageError(f"CacheRuntime {opened.runtime.metadata.name} has no workers to load into")
    members = len(peers.members())
    # each worker goes by what it promised the dataset itself: only name and priority count here
    share = plan_share(opened.resource, version_bytes=files.version_bytes, room_bytes=1 << 62, workers=members)
    if options.priority is not None:
        share = replace(share, priority=options.priority)
    plan = loading.plan_distributed(peers, files, replicas=options.replicas or peers.replicas, share=share)
    return PlannedLoad(plan, peers, None, share, options)
