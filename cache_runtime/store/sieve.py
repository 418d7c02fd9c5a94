"""What to evict, decided without a clock or a disk: classes of units in order, SIEVE inside of each.

What readers announced changes that: what they passed goes first, for it is needed last, and what comes goes when there
is nothing else, the farthest first, and for a fill that is needed before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.store.shares import Grade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cache_runtime.store.layout import Unit
    from cache_runtime.store.shares import Fill, ShareRow


class UnitState(NamedTuple):
    """What the planner has to know of a unit.

    Attributes:
        visited: Whether it was read since the hand last came by; for a share that is read in rounds, whether it was
            read lately, which the hand does not change.
        distance: Bytes that are read before it is, if somebody announced it; None if nobody did.
        passed: Whether it was announced, and read then, and not again.
    """

    unit: Unit
    charged: int
    visited: bool
    share: int = 0
    grade: int = Grade.NORMAL
    distance: int | None = None
    passed: bool = False


@dataclass(frozen=True, slots=True)
class EvictionClass:
    """Units that go before those of the next class.

    Attributes:
        name: Under which its hand is remembered.
        grade: Of its units.
        shares: Numbers of the shares whose units these are, and most bytes to take of each (None: all).
        spared: Those of the shares whose visited units are not taken at all.
    """

    name: bytes
    grade: Grade
    shares: Mapping[int, int | None]
    spared: frozenset[int] = frozenset()

    def takes(self, share: int, grade: int) -> bool:
        """Say whether units of this share and grade belong to the class."""
        return grade == self.grade and share in self.shares


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """What the hand does on its way.

    Attributes:
        evict: Units to evict, in this order.
        spare: Units to clear the visited mark of.
        hands: The unit at which the next plan of a class starts, by its name.
        freed_bytes: What the evicted units hold.
    """

    evict: tuple[Unit, ...]
    spare: tuple[Unit, ...]
    hands: Mapping[bytes, int]
    freed_bytes: int


def eviction_classes(
    rows: Mapping[int, ShareRow], fill: Fill | None, *, within_share: bool = False
) -> list[EvictionClass]:
    """Return what may be evicted for a fill, first things first: guests, what is over its quota, low priorities.

    A fill evicts nothing of a higher priority, and a guest evicts nothing at all. A share with `keep` admission evicts
    nothing that was read lately in its own and in other such shares of its priority.

    Args:
        rows: All shares, by number.
        fill: Whom it is for; None: the capacity was lowered, or someone asked for free space, so all may go.
        within_share: Whether the room is wanted for the share's quota.
    """
    if fill is not None and fill.grade == Grade.GUEST:
        return []
    own = {fill.number: rows[fill.number]} if fill is not None and within_share else dict(rows)
    classes = [EvictionClass(b"guests", Grade.GUEST, {number: None for number, row in own.items() if row.guest})]
    if not within_share:
        over = {number: row.over_bytes for number, row in rows.items() if row.over_bytes}
        classes.append(EvictionClass(b"over", Grade.NORMAL, over))
    priorities = sorted({row.share.priority for row in own.values()})
    allowed = [priority for priority in priorities if fill is None or within_share or priority <= fill.share.priority]
    classes += [_class_of(priority, own, fill) for priority in allowed]
    return [found for found in classes if found.shares]


def _class_of(priority: int, rows: Mapping[int, ShareRow], fill: Fill | None) -> EvictionClass:
    shares = {number: row.share for number, row in rows.items() if row.share.priority == priority and row.normal}
    keeps = fill is not None and fill.keeps and priority >= fill.share.priority
    spared = frozenset(number for number, share in shares.items() if share.cycle_bytes) if keeps else frozenset()
    return EvictionClass(b"%d" % priority, Grade.NORMAL, dict.fromkeys(shares), spared)


def plan_eviction(
    classes: Sequence[EvictionClass],
    lap_of: Callable[[EvictionClass], Iterable[UnitState]],
    *,
    need_bytes: int,
    passed: Callable[[], Iterable[UnitState]] = tuple,
    passed_first: bool = True,
    comes_after: int | None = None,
) -> EvictionPlan:
    """Choose what to evict, as SIEVE does: the hand passes over what was read since it last came by, and clears it.

    Pure, and reads no further than it must. If one lap of a class frees too little, a second one begins, on which
    nothing that the first one passed is marked any more; then comes the next class.

    Args:
        classes: In their order.
        lap_of: Returns one lap: every unit of a class that may be evicted, from its hand on, oldest first and around.
        need_bytes: Bytes to free; overshot by less than one unit, and missed if all that may go holds less.
        passed: Returns the units that were announced and passed, those that go first first.
        passed_first: Whether they go before all else, or after that: else what nobody reads any more would stay.
        comes_after: Of what was announced, only what is farther than this may go; None: nothing of it.
    """
    evict: dict[Unit, int] = {}
    spare: list[UnitState] = []
    hands: dict[bytes, int] = {}
    coming: dict[Unit, UnitState] = {}

    def unannounced(lap: Iterable[UnitState], found: EvictionClass) -> Iterator[UnitState]:
        for state in lap:
            if state.distance is None:
                if not state.passed:
                    yield state
            elif not (state.visited and state.share in found.spared):
                coming[state.unit] = state

    def take_passed() -> None:
        for found in classes:
            need = need_bytes - sum(evict.values())
            if need <= 0:
                return
            sweep = _Sweep(found, need)
            mine = (state for state in passed() if found.takes(state.share, state.grade))
            sweep.take_all(state for state in mine if state.unit not in evict)
            evict.update(sweep.evict)

    if passed_first:
        take_passed()
    for found in classes:
        if sum(evict.values()) >= need_bytes:
            break
        sweep = _Sweep(found, need_bytes - sum(evict.values()))
        sweep.run(state for state in unannounced(lap_of(found), found) if state.unit not in evict)
        evict |= sweep.evict
        spare += sweep.spare
        if sweep.hand:
            hands[found.name] = sweep.hand
    take_passed()
    if comes_after is not None:
        for state in sorted(coming.values(), key=lambda state: -(state.distance or 0)):
            if sum(evict.values()) < need_bytes and (state.distance or 0) > comes_after:
                evict[state.unit] = state.charged
    cleared = tuple(state.unit for state in spare if state.unit not in evict)
    return EvictionPlan(tuple(evict), cleared, hands, sum(evict.values()))


class _Sweep:
    """The way of the hand through one class."""

    def __init__(self, found: EvictionClass, need_bytes: int) -> None:
        self._left = dict(found.shares)
        self._spared = found.spared
        self._need = need_bytes
        self.evict: dict[Unit, int] = {}
        self.spare: list[UnitState] = []
        self.hand = 0

    def run(self, lap: Iterable[UnitState]) -> None:
        for state in lap:
            if self._need <= 0:
                return
            if not state.visited:
                self._take(state)
            elif state.share not in self._spared:
                self.hand = state.unit + 1
                self.spare.append(state)
        for state in self.spare:
            if self._need <= 0:
                break
            self._take(state)
        self.spare = [state for state in self.spare if state.unit not in self.evict]

    def take_all(self, states: Iterable[UnitState]) -> None:
        """Take units that are not visited, in their order; the hand stays where it is."""
        hand = self.hand
        for state in states:
            if self._need <= 0:
                break
            if not state.visited:
                self._take(state)
        self.hand = hand

    def _take(self, state: UnitState) -> None:
        left = self._left[state.share]
        if left is not None and left <= 0:  # the share is within its quota again
            return
        self._left[state.share] = None if left is None else left - state.charged
        self._need -= state.charged
        self.evict[state.unit] = state.charged
        self.hand = state.unit + 1
