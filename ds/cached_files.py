"""From the files that a command names to the objects and the cache that hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ds.errors import UsageError
from ds.runtimes import Runtime, find_runtime
from ds.settings import current_settings

if TYPE_CHECKING:
    from ds.dataset import Dataset
    from ds.targets import Target


def runtime_of(dataset: Dataset) -> Runtime:
    """Return the cache runtime of a dataset.

    Raises:
        UsageError: If it names none.
    """
    found = dataset.opened.runtime
    if found is None:
        raise UsageError(f"dataset {dataset.name} names no cache: add spec.cache.runtimeRef to its manifest")
    return find_runtime(found.metadata.name, current_settings())


def object_ids(dataset: Dataset, where: Target) -> list[bytes]:
    """Return the ids of the objects that hold files, each once; a shard holds others, too. Raises as `VersionFiles`."""
    return list(dict.fromkeys(location.object.id for location in dataset.files(where.revision, path=where.path)))
