"""Objects of a source that are staged one by one, without copying: what a listing of them says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ds.errors import UsageError
from sources import SourceNotFoundError, StoreId, batch_of, split_uri
from versioning import stage_import

if TYPE_CHECKING:
    from dataset_controller import OpenDataset
    from versioning import ChangeSet


def changes_of_objects(opened: OpenDataset, uri: str, *, to: str) -> ChangeSet:
    """Return the change that puts an object, or all below a directory of objects, into a dataset.

    Args:
        opened: The dataset; one of its mounts must cover the URI, for nothing else can be read later.
        uri: An object, or a directory: then with all below it.
        to: Directory of the dataset.

    Raises:
        UsageError: If no mount covers the URI, or nothing is there.
    """
    place = split_uri(uri)
    name = next(
        (mount.name for mount in opened.resource.spec.mounts if _covers(mount.store, mount.prefix, place)), None
    )
    if name is None:
        raise UsageError(
            f"{uri} is not below a mount of dataset {opened.resource.metadata.name}, so that it could not be read "
            "later; declare one that covers it, or add a local copy"
        )
    store, key = opened.stores[name], place.key.rstrip("/")
    target = f"{to.strip('/')}/" if to.strip("/") else ""
    try:
        found, prefix = [store.stat(key)] if key and not place.key.endswith("/") else [], key.rpartition("/")[0]
    except SourceNotFoundError:
        found = []
    if not found:
        prefix = key
        found = list(store.list(f"{key}/" if key else ""))
    if not found:
        raise UsageError(f"nothing is at {uri}")
    source_prefix = f"{prefix}/" if prefix else ""
    return stage_import(None, [batch_of(found)], store=store.id, source_prefix=source_prefix, target=target)


def _covers(store: StoreId, prefix: str, place: tuple[str, StoreId, str]) -> bool:
    return store == place[1] and f"{place[2].rstrip('/')}/".startswith(prefix)
