"""What a DataPack asks: a revision in shards, as a commit of a branch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dataset_controller.agent.loads import ProgressTeller, percent_of
from dataset_controller.operations import DataPack
from ds.dataset import Dataset
from ds.errors import OperationError
from ds.operations.commits import changes_of_diff, input_uri, is_made_by, publish
from ds.operations.journals import KeptJournals
from loaders import PackOptions

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from dataset_controller.agent.loads import Asked
    from ds.settings import Settings
    from loaders import PackProgress, ShardLayout
    from versioning import CommitId

_log = logging.getLogger(__name__)


def run_pack(asked: Asked, settings: Settings, *, cancel: threading.Event) -> None:
    """Do what a DataPack asks, and tell its status meanwhile; run again, it writes the shards that are missing.

    The target branch becomes what the revision is, in its new layout: one commit, whose lineage names the revision.

    Raises:
        OperationError: If it was told to stop.
        RevisionNotFoundError: If there is no such revision.
        LoaderError, SourceError, VersioningError: As `Dataset.pack`.
    """
    assert isinstance(asked.operation, DataPack)
    operation, spec = asked.operation, asked.operation.spec
    dataset = Dataset(spec.dataset.name, settings=settings)
    repository, commit = dataset.repository, dataset.resolve(spec.revision)
    inputs = [input_uri(dataset, commit)]
    head = repository.head(spec.branch)
    fields: dict[str, Any] = {"revision": commit}
    if head is not None and is_made_by(repository, head, operation, inputs):
        _log.info("packed already dataset=%s commit=%s", dataset.name, head)
        asked.tell({**_kept(asked), **fields, "commit": head, "percent": 100, "etaSeconds": 0})
        return
    layout = dataset.shard_layout(
        shuffle=spec.shuffle_seed is not None, seed=spec.shuffle_seed or 0, shard_size=spec.shard_size
    )
    journals = KeptJournals(repository, operation, settings.home / "operations")
    journals.fetch()
    last: dict[str, Any] = {}
    with ProgressTeller(asked, fields) as teller:

        def show(now: PackProgress) -> None:
            last.update(pack_fields(now))
            teller.show({**last, "percent": min(last["percent"], 99)})
            journals.save(at_once=cancel.is_set())
            if cancel.is_set():
                raise OperationError("told to stop; what is stored stays, and the next run goes on with it")

        packed = _packed(dataset, operation, commit, layout, journals, show)
    base = head if head is not None else commit  # a new branch begins at what was packed
    changes = changes_of_diff(repository.diff(base, packed))
    message = f"Pack {dataset.name}@{commit[:12]} into shards"
    made = publish(dataset, spec.branch, changes, operation=operation, base=base, inputs=inputs, message=message)
    repository.delete_branch(_work_branch(operation), author=dataset.author)
    journals.forget()
    asked.tell({**fields, **last, "commit": made, "percent": 100, "etaSeconds": 0})
    _log.info("pack ends dataset=%s commit=%s", dataset.name, made)


def _packed(
    dataset: Dataset,
    operation: DataPack,
    commit: CommitId,
    layout: ShardLayout,
    journals: KeptJournals,
    on_progress: Callable[[PackProgress], None],
) -> CommitId:
    """Return the commit of the packed version, on a branch of the operation's own; one that is there is used again."""
    repository, work = dataset.repository, _work_branch(operation)
    head = repository.head(work)
    if head is not None and head != commit:
        found = repository.commit(head)
        if found.parents[:1] == (commit,) and found.meta.get("forebay.pack") == layout.record():
            return head
        repository.delete_branch(work, author=dataset.author)
        head = None
    if head is None:
        repository.create_branch(work, commit, author=dataset.author)
    options = PackOptions(journals=journals.directory)
    return dataset.pack(work, layout=layout, options=options, on_progress=on_progress).commit


def _work_branch(operation: DataPack) -> str:
    return f"forebay-pack-{operation.metadata.name}"


def _kept(asked: Asked) -> dict[str, Any]:
    """Return what was told of the size of the work: the same commit has the same."""
    names = ("bytesTotal", "bytesDone", "shardsDone", "shardsTotal")
    return {name: asked.status[name] for name in names if name in asked.status}


def pack_fields(now: PackProgress) -> dict[str, Any]:
    """Return what to tell of a pack that runs."""
    eta = now.eta_seconds
    return {
        "bytesTotal": now.total_bytes,
        "bytesDone": now.done_bytes,
        "percent": percent_of(now.done_bytes, now.total_bytes),
        "bytesPerSecond": round(now.bytes_per_second),
        "etaSeconds": None if eta is None else round(eta),
        "shardsDone": now.shards,
        "shardsTotal": now.total_shards,
    }
