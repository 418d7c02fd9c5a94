"""How much of a version the workers of a cluster hold: counted, by asking them for its blocks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.loading.cluster import Holdings
from cache_runtime.loading.survey import Survey
from cache_runtime.store.layout import block_span
from sources import Location
from versioning import locations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cache_runtime.loading.pieces import Piece
    from cache_runtime.peers import Peers
    from versioning import CommitId, Repository

_MOST_PLACES = 8


class Count(NamedTuple):
    """What was counted.

    Attributes:
        total_bytes: Of the version's objects, each once.
        present_bytes: Of these, what some worker holds.
        is_whole: Whether all workers answered; what one that did not holds is not in it.
    """

    total_bytes: int
    present_bytes: int
    is_whole: bool = True

    @property
    def percent(self) -> int:
        """Whole percents; 100 only if nothing is missing."""
        return 100 * self.present_bytes // self.total_bytes if self.total_bytes else 100


class VersionLocations:
    """Locations of all files of a version; may be gone through any number of times."""

    def __init__(self, repository: Repository, commit: CommitId) -> None:
        self._repository = repository
        self._tree = repository.tree_of(commit)

    def __iter__(self) -> Iterator[Location]:
        for table in self._tree.scan():
            yield from locations(table, self._repository.root)


def count_cached(peers: Peers, wanted: Iterable[Location]) -> Count:
    """Count what the workers hold, wherever it is.

    Each block is asked of its owner, in requests of some thousand; only what an owner lacks is asked of the next
    candidates, which have it after workers came or left. Memory is 16 bytes for each object.

    Raises:
        MembershipError: If there are no workers.
    """
    holdings = Holdings(peers)
    surveys = [Survey(partial(holdings.look, place=0))]
    missing = surveys[0].missing(wanted)
    for place in range(1, min(len(holdings.members), _MOST_PLACES)):
        surveys.append(Survey(partial(holdings.look, place=place)))
        missing = surveys[-1].missing(_of_pieces(missing))
    for _ in missing:
        pass
    return Count(surveys[0].bytes, sum(survey.present_bytes for survey in surveys), not holdings.has_lost)


def _of_pieces(pieces: Iterable[Piece]) -> Iterator[Location]:
    return (Location(ref, *block_span(run, ref.size)) for ref, run in pieces)
