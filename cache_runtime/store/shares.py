"""Shares: whose bytes a unit holds, and what that lets them do. The store knows no dataset, it knows shares."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.errors import CacheShareError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_NAME_BYTES = 255
MAX_LABEL_BYTES = 255
_MAX_PRIORITY = 1 << 31
_MAX_BYTES = 1 << 62
_NO_QUOTA = (1 << 64) - 1
_ROW = Struct("<qQQQQQQ")
_ACTIVE_TICKS = 8


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the cache, usually one dataset's; what is filled for it, it is charged for.

    Attributes:
        name: Its identity; what else is here may change, and the last process to open it with other values wins.
        priority: A fill evicts nothing of a share with a higher one.
        quota_bytes: Most bytes on disk, guests included; None: no limit but the capacity.
        cycle_bytes: Bytes of one round (an epoch) of a share that is read in rounds, 0 for one that is not. With it, a
            fill that finds no room is refused instead of evicting what was read lately (`keep` admission), so a cache
            of half of the round hits half of the time, where the least recently used would never hit.
    """

    name: str = ""
    priority: int = 0
    quota_bytes: int | None = None
    cycle_bytes: int = 0

    def __post_init__(self) -> None:
        """Check.

        Raises:
            CacheShareError: If a value is out of its range.
        """
        if len(self.name.encode()) > MAX_NAME_BYTES:
            raise CacheShareError(self.name, f"names are at most {MAX_NAME_BYTES} bytes of UTF-8")
        if not -_MAX_PRIORITY <= self.priority < _MAX_PRIORITY:
            raise CacheShareError(self.name, "the priority is out of the range of 32 bits")
        if self.quota_bytes is not None and not 0 <= self.quota_bytes <= _MAX_BYTES:
            raise CacheShareError(self.name, "the quota must not be negative")
        if not 0 <= self.cycle_bytes <= _MAX_BYTES:
            raise CacheShareError(self.name, "the bytes of a round must not be negative")


NO_SHARE = Share()


class Grade(IntEnum):
    """How firmly a unit stays: a guest is a copy of what another node owns and goes first, a pinned one never goes."""

    GUEST = 0
    NORMAL = 1
    PINNED = 2


class ShareRow(NamedTuple):
    """What the index knows of a share: its terms, the bytes charged to its units by grade, and its last refusal.

    `refused_tick` is the tick of the clock (see `refusals.py`) that followed it.
    """

    share: Share
    guest: int = 0
    normal: int = 0
    pinned: int = 0
    refused_tick: int = 0

    @property
    def used(self) -> int:
        """Bytes charged to all its units."""
        return self.guest + self.normal + self.pinned

    @property
    def over_bytes(self) -> int:
        """Bytes beyond the quota, 0 if within."""
        quota = self.share.quota_bytes
        return 0 if quota is None else max(0, self.used - quota)

    def charged(self, grade: int, add_bytes: int) -> ShareRow:
        """Return the row with bytes added to (or taken from) a grade."""
        counts = [self.guest, self.normal, self.pinned]
        counts[grade] += add_bytes
        return self._replace(guest=counts[0], normal=counts[1], pinned=counts[2])

    def is_cycling(self, ticks: int) -> bool:
        """Say whether it is read in rounds, and holds something or was refused something lately."""
        was_refused = self.refused_tick > 0 and ticks < self.refused_tick + _ACTIVE_TICKS
        return self.share.cycle_bytes > 0 and (self.normal > 0 or was_refused)

    def pack(self) -> bytes:
        """Return the row's bytes."""
        share = self.share
        quota = _NO_QUOTA if share.quota_bytes is None else share.quota_bytes
        return _ROW.pack(share.priority, quota, share.cycle_bytes, *self[1:]) + share.name.encode()

    @staticmethod
    def unpack(row: bytes) -> ShareRow:
        """Read a row."""
        priority, quota, cycle, *rest = _ROW.unpack_from(row)
        name = row[_ROW.size :].decode()
        share = Share(name, priority, quota_bytes=None if quota == _NO_QUOTA else quota, cycle_bytes=cycle)
        return ShareRow(share, *rest)


@dataclass(frozen=True, slots=True)
class ShareStatus:
    """What a share holds.

    Attributes:
        share: Its terms.
        used_bytes: Charged to it, all grades; less than its quota unless that was lowered.
        guest_bytes, pinned_bytes: Of these, copies of what other nodes own, and what is never evicted.
    """

    share: Share
    used_bytes: int
    guest_bytes: int
    pinned_bytes: int


class Fill(NamedTuple):
    """On whose behalf room is wanted.

    Attributes:
        number: The share's number in the index.
        share: Its terms.
        grade: Of what is filled. A pinned fill does not spare what was read lately.
        object_id: Of what is filled, or of the first of some small objects; empty if that is not known.
    """

    number: int
    share: Share
    grade: Grade
    object_id: bytes = b""

    @property
    def keeps(self) -> bool:
        """Whether the fill rather is refused than to evict what was read lately."""
        return self.share.cycle_bytes > 0 and self.grade == Grade.NORMAL


def cycle_window_bytes(rows: Iterable[ShareRow], *, ticks: int) -> int:
    """Return for how many refused bytes the cache remembers that something was read.

    Time is measured in refused traffic, because hits leave no trace but a mark. In one round a share is refused what it
    does not hold, and whatever the order, each byte is read again within two rounds. Shares are added up: one that is
    read fast must not age the others. One that nobody reads any more counts until others took its room.
    """
    return sum(
        max(row.share.cycle_bytes, 2 * (row.share.cycle_bytes - row.normal)) for row in rows if row.is_cycling(ticks)
    )


def status_of(rows: Mapping[int, ShareRow]) -> tuple[ShareStatus, ...]:
    """Return what each share holds, by name."""
    return tuple(
        ShareStatus(row.share, used_bytes=row.used, guest_bytes=row.guest, pinned_bytes=row.pinned)
        for row in sorted(rows.values(), key=lambda row: row.share.name)
    )
