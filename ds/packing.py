"""Opening a dataset where a shard of it is packed: in another process, perhaps on another machine.

A task names the dataset; what opens it, credentials too, is that machine's own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ds.errors import UsageError
from ds.settings import current_settings
from loaders.packing import OpenedWorkplace, Workplace

if TYPE_CHECKING:
    from ds.dataset import Dataset


def workplace_of(dataset: Dataset, *, version_bytes: int, is_here: bool) -> Workplace:
    """Say how workers open a dataset.

    Args:
        dataset: It.
        version_bytes: Of the version that is packed: decides what the cache keeps of it.
        is_here: The workers are processes of this machine, and use its catalog or working copy. Others must have the
            dataset applied, in their own `FOREBAY_HOME`.
    """
    root = getattr(dataset, "root", None)  # of a working copy
    arguments = {
        "name": dataset.name,
        "repository": dataset.repository.spec.id,
        "version_bytes": version_bytes,
        "home": str(dataset.settings.home) if is_here else None,
        "root": str(root) if is_here and root is not None else None,
    }
    return Workplace("ds.packing:open_for_packing", arguments)


def open_for_packing(
    *, name: str, repository: str, version_bytes: int, home: str | None, root: str | None
) -> OpenedWorkplace:
    """Open a dataset in a worker.

    Raises:
        UsageError: If the dataset of this name here is another one.
    """
    from ds.dataset import Dataset
    from ds.worktree import WorkingDataset

    settings = current_settings()
    if home is not None:
        settings = replace(settings, home=Path(home))
    opened = Dataset(name, settings=settings) if root is None else WorkingDataset(Path(root), settings=settings)
    found = opened.opened.repository
    if found.spec.id != repository:
        raise UsageError(
            f"dataset {name!r} of this machine has its repository at {found.uri}, and that is not the one that is"
            " packed; apply the same manifest here: ds apply -f dataset.yaml"
        )
    return OpenedWorkplace(found.store, found.prefix, opened.opened.client_for(version_bytes))
