"""Scanning the sources of a dataset for what changed since a version."""

from __future__ import annotations

import functools
import logging
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow.compute

from dataset_controller.errors import EmptySourceError
from versioning import ChangeSet, stage_import

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dataset_controller.model import Mount
    from dataset_controller.opening import OpenDataset
    from sources import ObjectStat
    from versioning import Tree

compute: Any = pyarrow.compute
_log = logging.getLogger(__name__)
_REPORT_EVERY = 1000


def scan_sources(opened: OpenDataset, tree: Tree | None, *, on_progress: Callable[[str, int], None]) -> ChangeSet:
    """List every mount and compare with a version: no byte of the files is read.

    A repository that lies below a mount is no part of the dataset.

    Args:
        opened: The dataset.
        tree: The version to compare with; None for an empty one.
        on_progress: Called with a mount's name and how many objects were listed so far.

    Raises:
        SourceError: If a mount cannot be listed.
        EmptySourceError: If a mount lists nothing where the version has files.
    """
    changes = ChangeSet.of()
    for mount in opened.resource.spec.mounts:
        changes = changes.merged_with(_scan_mount(opened, mount, tree, on_progress))
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
        covered = functools.reduce(compute.or_, (compute.starts_with(gone, mount.path) for mount in mounts))
        gone = gone.filter(compute.invert(compute.and_(mirrored, covered)))
    return ChangeSet.of_table(added, gone)


def check_sources(opened: OpenDataset) -> None:
    """Ask every mount for one key. Errors as in `ListObjects.list`."""
    for mount in opened.resource.spec.mounts:
        for _ in islice(opened.stores[mount.name].list(mount.prefix), 1):
            pass


def _scan_mount(
    opened: OpenDataset, mount: Mount, tree: Tree | None, on_progress: Callable[[str, int], None]
) -> ChangeSet:
    store, root = opened.stores[mount.name], opened.repository.root
    own = root.prefix if root.store == store.id and root.prefix.startswith(mount.prefix) else None
    listed = 0

    def counted() -> Iterator[ObjectStat]:
        nonlocal listed
        for stat in store.list(mount.prefix):
            if own is not None and stat.key.startswith(own):
                continue
            listed += 1
            if listed % _REPORT_EVERY == 0:
                on_progress(mount.name, listed)
            yield stat
        on_progress(mount.name, listed)

    changes = stage_import(tree, counted(), store=store.id, source_prefix=mount.prefix, target=mount.path)
    if not listed and len(changes):
        raise EmptySourceError(mount.name, mount.uri, mount.path)
    if not listed:
        _log.warning("mount %s lists nothing at %s; is its URI right?", mount.name, mount.uri)
    return changes
