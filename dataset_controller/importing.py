"""Scanning the sources of a dataset for what changed since a version."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.compute
from blake3 import blake3

from dataset_controller.errors import EmptySourceError
from dataset_controller.excluding import Exclusion, literal_pattern
from sources import (
    SourceConfigError,
    SourceError,
    SteadyStore,
    find_inventory,
    inventory_batches,
    open_store,
    scan,
    split_uri,
)
from sources.dvc.objects import DVC_OBJECTS
from versioning import ChangeSet, PathClashError, stage_import
from versioning.clashes import find_clashes
from versioning.columns import single

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dataset_controller.model import Inventory as DeclaredInventory
    from dataset_controller.model import Mount
    from dataset_controller.opening import OpenDataset
    from versioning import Tree

    Progress: TypeAlias = Callable[[str, int], None]

compute: Any = pyarrow.compute
_log = logging.getLogger(__name__)
_CREDENTIAL = re.compile("key|secret|token|pass|credential|auth|sas", re.IGNORECASE)


def scan_sources(
    opened: OpenDataset,
    tree: Tree | None,
    *,
    on_progress: Progress,
    on_excluded: Progress = lambda mount, count: None,
    journals: Path | None = None,
) -> ChangeSet:
    """List every mount and compare with a version: no byte of the files is read.

    A repository that lies below a mount is no part of the dataset, and what `ds dvc import` brought stays.

    Args:
        opened: The dataset.
        tree: The version to compare with; None for an empty one.
        on_progress: Called with a mount's name and how many objects were listed so far.
        on_excluded: Called with the name of a mount that has `exclude`, and how many objects that left out.
        journals: A directory that records the listings: a scan that was interrupted goes on there. Delete it when the
            result is safe.

    Raises:
        SourceError: If a mount cannot be listed; the first note says which.
        EmptySourceError: If a mount lists nothing where the version has files.
        PathClashError: If a mount lists an object whose path is the directory of another one.
    """
    changes = ChangeSet.of()
    if journals is not None:
        journals.mkdir(parents=True, exist_ok=True)
    for mount in opened.resource.spec.mounts:
        if mount.store == DVC_OBJECTS:
            continue  # its objects have no paths: `ds dvc import` gives them some
        journal = journals / _journal_name(mount) if journals is not None else None
        try:
            found = _scan_mount(opened, mount, tree, _Listing(journal, on_progress, on_excluded))
        except SourceError as error:
            error.add_note(f"mount {mount.name!r} ({mount.uri})")
            raise
        changes = changes.merged_with(found)
    return changes


def staged_by_hand(staged: ChangeSet, tree: Tree | None, mounts: Sequence[Mount]) -> ChangeSet:
    """Return what no import staged: a new import takes the place of the rest.

    By hand are added files (they have no source), and deletions of those or of paths that no mount covers.

    Args:
        staged: What is staged.
        tree: The version that it was staged on.
        mounts: The dataset's mounts.
    """
    added = staged.upserts.filter(compute.is_null(staged.upserts.column("source")))
    gone = staged.deleted
    if tree is not None and len(gone):
        known = tree.get_many(gone)
        imported_paths = known.filter(compute.is_valid(known.column("source"))).column("path")
        mirrored = compute.is_in(gone, value_set=imported_paths.combine_chunks())
        below = (compute.starts_with(gone, mount.path) for mount in mounts)
        covered = functools.reduce(compute.or_, below, pa.repeat(False, len(gone)))
        gone = gone.filter(compute.invert(compute.and_(mirrored, covered)))
    return ChangeSet.of_table(added, gone)


def check_sources(opened: OpenDataset) -> None:
    """Ask every mount for one key. Errors as in `ListObjects.list`."""
    for mount in opened.resource.spec.mounts:
        for _ in islice(opened.stores[mount.name].list(mount.prefix), 1):
            pass


def _journal_name(mount: Mount) -> str:
    """Name a mount and what it lists: it may be given another URI, server or kind of version meanwhile."""
    place = json.dumps([mount.uri, _without_credentials(mount.options)], sort_keys=True, default=str)
    return f"{mount.name}-{blake3(place.encode()).hexdigest(8)}.journal"


def _without_credentials(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what may be renewed while an import is interrupted, and has no place in a name."""
    return {
        name: _without_credentials(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if not _CREDENTIAL.search(name)
    }


@dataclass(frozen=True)
class _Listing:
    journal: Path | None
    on_progress: Progress
    on_excluded: Progress


def _scan_mount(opened: OpenDataset, mount: Mount, tree: Tree | None, listing: _Listing) -> ChangeSet:
    store, root = opened.stores[mount.name], opened.repository.root
    own = root.prefix if root.store == store.id and root.prefix.startswith(mount.prefix) else None
    exclusion = Exclusion(mount.exclude) if mount.exclude else None
    listed = excluded = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal listed, excluded
        for batch in _batches(opened, mount, listing):
            if own is not None:
                batch = batch.filter(compute.invert(compute.starts_with(batch.column("key"), own)))
            before = batch.num_rows
            listed += before
            if exclusion is not None:  # after the journal: an import that goes on may have other patterns
                batch = _without(batch, exclusion, mount.prefix)
            excluded += before - batch.num_rows
            yield batch

    changes = stage_import(tree, counted(), store=store.id, source_prefix=mount.prefix, target=mount.path)
    if not listed and len(changes):
        raise EmptySourceError(mount.name, mount.uri, mount.path)
    if not listed:
        _log.warning("mount %s lists nothing at %s; is its URI right?", mount.name, mount.uri)
    if exclusion is not None:
        listing.on_excluded(mount.name, excluded)
    _check_no_clash(mount, tree, changes)
    return changes


def _without(batch: pa.RecordBatch, exclusion: Exclusion, prefix: str) -> pa.RecordBatch:
    paths = compute.utf8_slice_codeunits(batch.column("key"), len(prefix))
    return batch.filter(compute.invert(exclusion.leaves_out(paths)))


def _check_no_clash(mount: Mount, tree: Tree | None, changes: ChangeSet) -> None:
    """Check what is listed anew with itself; how it fits the rest of the branch is seen when it is committed.

    A clash that the tree has already is none of this import's.
    """
    paths = single(changes.upserts.column("path"))
    clashes = find_clashes(paths)
    clashing = paths.take(pa.array(sorted({at for clash in clashes for at in clash.members()}), pa.int64()))
    known = set(tree.get_many(clashing).column("path").to_pylist()) if clashes and tree is not None else set()
    for clash in clashes:
        file, *others = [str(path) for path in paths.take(pa.array(clash.members())).to_pylist()]
        below = next((path for path in others if path not in known), others[0])
        if {file, below} <= known:
            continue
        pattern = literal_pattern(file.removeprefix(mount.path))
        way_out = (
            f"{mount.uri} has both. Nothing was staged. Leave one of them out, in the dataset's YAML, in mount "
            f"{mount.name!r}: exclude: [{_in_yaml(pattern)}, {_in_yaml(f'!{pattern}/')}] (the file) or "
            f"exclude: [{_in_yaml(f'{pattern}/')}] (what is below it); then ds apply and ds import"
        )
        raise PathClashError(file, below, way_out=way_out)


def _in_yaml(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"  # nothing else is special between these


def _batches(opened: OpenDataset, mount: Mount, listing: _Listing) -> Iterator[pa.RecordBatch]:
    if mount.inventory is None:
        store = opened.stores[mount.name]
        yield from scan(
            store,
            mount.prefix,
            journal=listing.journal if isinstance(store, SteadyStore) else None,  # a local disk is listed in seconds
            on_progress=lambda now: listing.on_progress(mount.name, now.keys),
        )
        return
    keys = 0
    for batch in _inventory_batches(opened, mount, mount.inventory):
        keys += batch.num_rows
        listing.on_progress(mount.name, keys)
        yield batch


def _inventory_batches(opened: OpenDataset, mount: Mount, declared: DeclaredInventory) -> Iterator[pa.RecordBatch]:
    options = opened.options_of(mount) if declared.options is None else declared.options
    key = split_uri(declared.uri).key
    store = open_store(declared.uri, options, limits=mount.store_limits)
    inventory = find_inventory(store, key if key.endswith(".json") else f"{key.rstrip('/')}/")
    if mount.store != f"s3://{inventory.source_bucket}":
        raise SourceConfigError(
            f"{declared.uri} is an inventory of the bucket {inventory.source_bucket}, not of {mount.store}; "
            f"correct the inventory of mount {mount.name!r}"
        )
    _log.info("mount %s: inventory of %s from %s", mount.name, f"{inventory.created:%F %T}", inventory.manifest)
    yield from inventory_batches(store, inventory, prefix=mount.prefix)
