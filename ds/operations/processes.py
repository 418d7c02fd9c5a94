"""What a DataProcess asks: files of a revision are brought, programs run over them, what they left is committed."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import versioning
from dataset_controller.agent.loads import ProgressTeller, percent_of
from dataset_controller.operations import DataProcess
from ds.copying import copy_tables
from ds.dataset import Dataset
from ds.errors import OperationError
from ds.local_files import local_files
from ds.operations.choosing import ChosenFiles
from ds.operations.commits import input_uri, publish
from versioning import ChangeSet, ConflictError
from versioning.maintenance import leased

if TYPE_CHECKING:
    import threading

    from dataset_controller.agent.loads import Asked
    from ds.settings import Settings
    from versioning import CommitId

_log = logging.getLogger(__name__)
_TRIES = 5
_BROUGHT = "input.json"


def bring_input(asked: Asked, settings: Settings, work: Path, *, cancel: threading.Event) -> None:
    """Bring the chosen files of the revision to `work`/input, make `work`/output, and note which commit it was.

    Raises:
        OperationError: If it was told to stop.
        RevisionNotFoundError, PathNotFoundError: If it names what is not there.
        SourceError, UnwritableFileError: If a file cannot be read or written.
    """
    assert isinstance(asked.operation, DataProcess)
    spec = asked.operation.spec
    dataset = Dataset(spec.dataset.name, settings=settings)
    commit = dataset.resolve(spec.revision)
    files = ChosenFiles(dataset.repository, commit, spec.include, spec.exclude)
    total = sum(int(size or 0) for table in files.tables() for size in table.column("size").to_pylist())
    for name in ("input", "output"):
        (work / name).mkdir(parents=True, exist_ok=True)
    (work / "output").chmod(0o2775)  # programs may run as somebody else of the pod's group
    with ProgressTeller(asked, {"revision": commit, "bytesTotal": total}) as teller:

        def show(copied: Any) -> None:
            teller.show({"bytesDone": copied.bytes, "percent": percent_of(copied.bytes, total, most=99)})
            if cancel.is_set():
                raise OperationError("told to stop while files were brought; the next run brings them anew")

        client = dataset.opened.client_for(files.version_bytes)
        with dataset.naming_commit(commit):
            copied = copy_tables(dataset, client, files.tables(), work / "input", on_progress=show)
    (work / _BROUGHT).write_text(json.dumps({"commit": commit, "bytes": copied.bytes}), encoding="utf-8")
    asked.tell({"revision": commit, "bytesTotal": total, "bytesDone": copied.bytes, "percent": 99})
    _log.info("input is there dataset=%s commit=%s files=%d", dataset.name, commit, copied.files)


def commit_output(asked: Asked, settings: Settings, work: Path) -> None:
    """Commit what lies in `work`/output: it replaces the output directory of the dataset.

    Raises:
        OperationError: If the programs left nothing, or something that is no file.
        ConflictError: If others keep committing the same paths.
        SourceError, VersioningError: If the repository fails.
    """
    assert isinstance(asked.operation, DataProcess)
    operation, spec = asked.operation, asked.operation.spec
    brought = json.loads((work / _BROUGHT).read_text(encoding="utf-8"))
    dataset = Dataset(spec.dataset.name, settings=settings)
    _refuse_links(work / "output")
    files = sorted(local_files([work / "output"], to=spec.output))
    if not files:
        raise OperationError(
            "the program wrote nothing into the directory FOREBAY_OUTPUT; nothing was committed, and nothing deleted"
        )
    repository = dataset.repository
    with leased(repository.store, repository.prefix, f"DataProcess {operation.metadata.name}"):
        added = versioning.add_files(repository, files)
        made = _committed(dataset, operation, added, brought["commit"])
    sizes = {"bytesTotal": brought["bytes"], "bytesDone": brought["bytes"]}
    asked.tell({"revision": brought["commit"], "commit": made, "percent": 100, **sizes})
    _log.info("output is committed dataset=%s commit=%s files=%d", dataset.name, made, len(files))


def _committed(dataset: Dataset, operation: DataProcess, added: ChangeSet, read: CommitId) -> CommitId:
    """Commit the output on whatever the branch is by now."""
    repository, spec = dataset.repository, operation.spec
    for number in range(_TRIES):
        base = repository.head(spec.branch)
        if base is None:
            base = read  # a new branch begins at what was read
        known = repository.tree_of(base).scan_at(spec.output.rstrip("/"), columns=["path"])
        before = [path for table in _if_there(known) for path in table.column("path").to_pylist()]
        changes = ChangeSet.of_table(added.upserts).merged_with(_gone(before, added))
        message = f"Output of DataProcess {operation.metadata.name} on {dataset.name}@{read[:12]}"
        inputs = [input_uri(dataset, read)]
        try:
            return publish(
                dataset, spec.branch, changes, operation=operation, base=base, inputs=inputs, message=message
            )
        except ConflictError:
            if number == _TRIES - 1:
                raise
    raise AssertionError("the last try returns or raises")


def _if_there(tables: Any) -> list[Any]:
    try:
        return list(tables)
    except versioning.PathNotFoundError:
        return []


def _gone(before: list[str], added: ChangeSet) -> ChangeSet:
    now = set(added.upserts.column("path").to_pylist())
    return ChangeSet.of(deleted=[path for path in before if path not in now])


def _refuse_links(directory: Path) -> None:
    """Refuse links: whoever commits may read what the program may not.

    Raises:
        OperationError: If there is one, or something else that is neither a file nor a directory.
    """
    for top, names, files in os.walk(directory):
        for name in (*names, *files):
            path = Path(top, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise OperationError(
                    f"{path.relative_to(directory)} in FOREBAY_OUTPUT is a link or no file; write files only"
                )
