"""The first phase of garbage collection: which objects nothing needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from versioning.commits import CommitId
from versioning.maintenance.condemned import CondemnedList
from versioning.maintenance.keys import ObjectKind
from versioning.maintenance.listing import Listed, list_objects
from versioning.maintenance.marking import Marker
from versioning.maintenance.policies import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from versioning.maintenance.marking import Progress
    from versioning.maintenance.roots import Roots
    from versioning.repository import Repository


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is to be condemned.

    Attributes:
        condemned: The objects, sealed.
        tally: The same, counted.
        live: How many objects are needed.
    """

    condemned: CondemnedList
    tally: Tally
    live: int


def judge(repository: Repository, roots: Roots, *, cutoff_ns: int, on_progress: Progress) -> Verdict:
    """Find the objects that no root reaches, directly or through something young, and that are old themselves.

    What is younger than the cutoff may be somebody's who is about to commit: all that it names is kept with it. So an
    object that is not condemned reaches none that is, which is what `Rewalk` and the writers' rule rest on.

    Args:
        repository: Where; read only.
        roots: What to start from.
        cutoff_ns: What was written since then is young; by the store's clock.
        on_progress: Called as objects are read and listed.

    Raises:
        CorruptRepositoryError: If a ref's history is not whole. Nothing can be collected then: run fsck.
    """
    with Marker(repository, on_progress=on_progress) as marker, CondemnedList() as candidates:
        marker.mark_commits(roots.refs.values())
        marker.mark_commits(roots.recent, tolerant=True)
        for found in _unneeded(repository, marker, on_progress):
            young = found.times >= cutoff_ns
            _mark_young(marker, found.where(young))
            if not young.all():
                candidates.append(found.where(~young))
        candidates.seal()
        return _still_unneeded(candidates, marker)


def live_keys(repository: Repository, roots: Roots, *, on_progress: Progress) -> Iterator[str]:
    """Yield the keys of the objects that refs, and what branches were lately, reach; below the repository's prefix."""
    with Marker(repository, on_progress=on_progress) as marker:
        marker.mark_commits(roots.refs.values())
        marker.mark_commits(roots.recent, tolerant=True)
        for kind in ObjectKind:
            for found in list_objects(repository.store, repository.prefix, kind):
                for row in found.ids[marker.live[kind].contains(found.ids)]:
                    yield kind.key(row.tobytes())


def _unneeded(repository: Repository, marker: Marker, on_progress: Progress) -> Iterator[Listed]:
    count = 0
    for kind in ObjectKind:
        for found in list_objects(repository.store, repository.prefix, kind):
            count += len(found)
            on_progress("listed", count)
            unneeded = ~marker.live[kind].contains(found.ids)
            if unneeded.any():
                yield found.where(unneeded)


def _mark_young(marker: Marker, young: Listed) -> None:
    """Keep what young commits and nodes name; parts of it may be missing, when their writer was broken off."""
    if young.kind is ObjectKind.COMMIT:
        marker.mark_commits((CommitId(row.tobytes().hex()) for row in young.ids), tolerant=True)
    elif young.kind is ObjectKind.NODE:
        marker.mark_nodes(young.ids, tolerant=True)


def _still_unneeded(candidates: CondemnedList, marker: Marker) -> Verdict:
    condemned, tally = CondemnedList(), Tally()
    try:
        for batch in candidates.batches():
            found = batch.where(~marker.live[batch.kind].contains(batch.ids))
            if len(found):
                condemned.append(found)
                tally = tally.plus(found.kind, len(found), int(np.sum(found.sizes)))
        condemned.seal()
    except BaseException:
        condemned.close()
        raise
    return Verdict(condemned, tally, sum(len(ids) for ids in marker.live.values()))
