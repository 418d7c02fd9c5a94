"""Which workers own a block: weighted rendezvous hashing, a pure function of the members and the block's name.

Every member gets a score for a block, from a hash of both, and those with the least ones are its candidates in this
order. So a member that joins takes its share of blocks from all others and moves no other block, and the next candidate
of a block that moved is its old owner. The score is `-ln(1 - hash) / weight`, hash in [0, 1) (Thaler and Ravishankar
1998; the weights: Schindelhauer and Schomaker 2005).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy
from blake3 import blake3

from cache_runtime.errors import MembershipError
from cache_runtime.store.layout import SMALL_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from sources import ObjectId, ObjectRef

GROUP_BLOCKS = 16
"""Neighbouring blocks of a large object that have the same candidates (64 MiB): a reader that goes through a shard asks
one worker for some time, and a fill of several blocks stays one request."""
_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = numpy.uint64(0xFF51AFD7ED558CCD)  # the finalizer of MurmurHash3
_MIX_2 = numpy.uint64(0xC4CEB9FE1A85EC53)
_HALF = numpy.uint64(32)
_LOW_BITS = numpy.uint64(11)
_UNIT = 2.0**-53
_CHUNK_SCORES = 1 << 16  # 512 KiB at a time stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Member:
    """A worker.

    Attributes:
        name: What placement goes by: a worker that keeps its name keeps its blocks, wherever it runs.
        url: Where it listens, `http://host:port` or `https://host:port`.
        weight: Its share of the blocks, relative to the others'; usually its capacity.
    """

    name: str
    url: str
    weight: float = 1.0


class Members:
    """The workers at one moment, immutable, in order of their names.

    Raises:
        MembershipError: If two have one name, or a weight is not a number above 0.
    """

    __slots__ = ("_members", "_names", "_seeds", "_weights")

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self._members = tuple(sorted(members, key=lambda member: member.name))
        self._names = {member.name: member for member in self._members}
        if len(self._names) != len(self._members):
            raise MembershipError("two members have the same name")
        for member in self._members:
            if not 0 < member.weight < float("inf"):
                raise MembershipError(f"member {member.name}: its weight {member.weight} is not a number above 0")
        seeds = [int.from_bytes(blake3(member.name.encode()).digest(8), "little") for member in self._members]
        self._seeds = numpy.array(seeds, numpy.uint64)
        weights = numpy.array([member.weight for member in self._members], numpy.float64)
        # equal weights need no division, and none is what most clusters have
        self._weights = None if len(set(weights.tolist())) < 2 else weights

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members)

    def __getitem__(self, number: int) -> Member:
        return self._members[number]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Members) and self._members == other._members

    def __hash__(self) -> int:
        return hash(self._members)

    def __repr__(self) -> str:
        return f"Members({list(self._members)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return Members, (self._members,)

    def named(self, name: str) -> Member | None:
        """Return the member of a name."""
        return self._names.get(name)

    def rank_keys(self, keys: NDArray[numpy.uint64], count: int) -> NDArray[numpy.int64]:
        """Return the candidates of many blocks: row by row, the numbers of the best `count` members, best first.

        Args:
            keys: From `placement_key`. Few at a time keep their scores in the processor's cache.
            count: Columns of the answer, at most the number of members.
        """
        scores = self._scores(keys)
        if count == 1:
            best: NDArray[numpy.int64] = scores.argmin(axis=1, keepdims=True)
            return best
        if count < len(self._members):
            best = numpy.argpartition(scores, count - 1, axis=1)[:, :count]
            order = numpy.take_along_axis(scores, best, axis=1).argsort(axis=1)
            return numpy.take_along_axis(best, order, axis=1)
        return scores.argsort(axis=1)

    def _scores(self, keys: NDArray[numpy.uint64]) -> NDArray[numpy.float64]:
        mixed = keys[:, None] ^ self._seeds
        mixed *= _MIX_1
        mixed ^= mixed >> _HALF
        mixed *= _MIX_2
        mixed >>= _LOW_BITS
        if self._weights is None:
            return mixed  # type: ignore[return-value] # the order is that of the scores, without their logarithms
        scores: NDArray[numpy.float64] = numpy.log1p(mixed * -_UNIT) / -self._weights
        return scores


def rank(members: Members, object_id: ObjectId, group: int, count: int) -> list[Member]:
    """Return the best `count` members for a group of blocks, the owner first; fewer if there are fewer.

    Pure: the same on every node that has the same members.
    """
    if not members:
        return []
    keys = numpy.array([placement_key(object_id, group)], numpy.uint64)
    return [members[number] for number in members.rank_keys(keys, min(count, len(members)))[0]]


def rank_many(members: Members, places: Sequence[tuple[ObjectId, int]], count: int) -> list[list[Member]]:
    """Do `rank` for many groups of blocks, `(object id, group)` each."""
    if not members:
        return [[] for _ in places]
    found: list[list[Member]] = []
    step = max(1, _CHUNK_SCORES // len(members))
    for start in range(0, len(places), step):
        keys = numpy.array([placement_key(*place) for place in places[start : start + step]], numpy.uint64)
        rows = members.rank_keys(keys, min(count, len(members))).tolist()
        found += [[members[number] for number in row] for row in rows]
    return found


def placement_key(object_id: ObjectId, group: int) -> int:
    """Return the 64 bits by which a group of blocks is placed."""
    key = (int.from_bytes(object_id[:8], "little") + group * _GOLDEN) & _WORD
    # mixed before it meets the members: the ids are hashes, but the groups of one object are an arithmetic series
    key = ((key ^ (key >> 32)) * 0xD6E8FEB86659FD93) & _WORD
    return key ^ (key >> 32)


def group_of(ref: ObjectRef, block: int) -> int:
    """Return the group of a block; a small object has group 0."""
    return 0 if ref.size <= SMALL_BYTES else block // GROUP_BLOCKS
