from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from cache_runtime.store.layout import Unit
from cache_runtime.store.shares import Fill, Grade, Share, ShareRow, cycle_window_bytes
from cache_runtime.store.sieve import EvictionClass, EvictionPlan, UnitState, eviction_classes, plan_eviction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHARES = st.builds(
    Share,
    priority=st.integers(-1, 1),
    quota_bytes=st.none() | st.integers(0, 300),
    cycle_bytes=st.sampled_from([0, 0, 500]),
)
TERMS = st.lists(SHARES, min_size=1, max_size=4)


@st.composite
def caches(draw: st.DrawFn) -> tuple[list[Share], list[UnitState]]:
    shares = draw(TERMS)
    grades = st.sampled_from([Grade.NORMAL, Grade.NORMAL, Grade.GUEST, Grade.PINNED])
    numbers = st.integers(0, len(shares) - 1)
    rows = draw(st.lists(st.tuples(st.integers(1, 100), st.booleans(), numbers, grades), max_size=30))
    return shares, [UnitState(Unit(n + 1), *row) for n, row in enumerate(rows)]


def rows_of(shares: Sequence[Share], states: Sequence[UnitState]) -> dict[int, ShareRow]:
    rows = {number: ShareRow(share) for number, share in enumerate(shares)}
    for state in states:
        rows[state.share] = rows[state.share].charged(state.grade, state.charged)
    return rows


def plan(
    rows: Mapping[int, ShareRow],
    states: Sequence[UnitState],
    fill: Fill | None,
    need: int,
    *,
    within_share: bool = False,
) -> EvictionPlan:
    def lap_of(found: EvictionClass) -> list[UnitState]:
        return [state for state in states if found.takes(state.share, state.grade)]

    return plan_eviction(eviction_classes(rows, fill, within_share=within_share), lap_of, need_bytes=need)


@given(caches(), st.data(), st.integers(1, 1500), st.booleans())
def test_a_plan_takes_only_what_may_go_in_its_order_and_enough_if_there_is_enough(
    cache: tuple[list[Share], list[UnitState]], data: st.DataObject, need: int, within_share: bool
) -> None:
    shares, states = cache
    number = data.draw(st.integers(0, len(shares) - 1))
    fill = Fill(number, shares[number], data.draw(st.sampled_from(Grade)))
    rows = rows_of(shares, states)
    found = plan(rows, states, fill, need, within_share=within_share)
    by_unit = {state.unit: state for state in states}
    evicted = [by_unit[unit] for unit in found.evict]

    assert len(set(found.evict)) == len(found.evict)
    assert found.freed_bytes == sum(state.charged for state in evicted)
    assert found.freed_bytes - need < max((state.charged for state in evicted[-1:]), default=1)
    assert all(state.grade != Grade.PINNED for state in evicted)
    assert not (evicted and fill.grade == Grade.GUEST)
    if within_share:
        assert all(state.share == number for state in evicted)
    over = over_quota(rows, evicted) if not within_share else set()
    for state in evicted:
        if state.grade == Grade.NORMAL and state.unit not in over:
            assert shares[state.share].priority <= fill.share.priority
            is_peer = shares[state.share].priority == fill.share.priority
            assert not (fill.keeps and is_peer and shares[state.share].cycle_bytes and state.visited)
    if any(state.grade == Grade.NORMAL for state in evicted):  # guests went first
        guests = {
            state.unit for state in states if state.grade == Grade.GUEST and (state.share == number or not within_share)
        }
        assert guests <= set(found.evict)
    normal = [
        shares[state.share].priority for state in evicted if state.grade == Grade.NORMAL and state.unit not in over
    ]
    assert normal == sorted(normal)
    if found.freed_bytes < need:
        left = [state for state in states if state.unit not in set(found.evict)]
        assert not [state for state in left if may_go(state, fill, shares, within_share=within_share)]


def over_quota(rows: Mapping[int, ShareRow], evicted: Sequence[UnitState]) -> set[Unit]:
    """The first ones of each share that the excess over its quota accounts for."""
    excess = {number: row.over_bytes for number, row in rows.items()}
    units = set()
    for state in evicted:
        if state.grade == Grade.NORMAL and excess[state.share] > 0:
            excess[state.share] -= state.charged
            units.add(state.unit)
    return units


def may_go(state: UnitState, fill: Fill, shares: Sequence[Share], *, within_share: bool) -> bool:
    if fill.grade == Grade.GUEST or state.grade == Grade.PINNED or (within_share and state.share != fill.number):
        return False
    share = shares[state.share]
    if state.grade == Grade.GUEST or share.priority < fill.share.priority:
        return True
    return share.priority == fill.share.priority and not (fill.keeps and share.cycle_bytes and state.visited)


@given(caches(), st.integers(1, 3000))
def test_whoever_asks_for_free_space_gets_all_that_is_not_pinned(
    cache: tuple[list[Share], list[UnitState]], need: int
) -> None:
    shares, states = cache
    found = plan(rows_of(shares, states), states, None, need)
    loose = sum(state.charged for state in states if state.grade != Grade.PINNED)
    assert found.freed_bytes >= min(need, loose)


@given(st.lists(st.tuples(st.integers(1, 100), st.booleans())), st.integers(1, 1000))
def test_inside_of_a_class_the_hand_passes_over_what_was_read_and_comes_again(
    rows: list[tuple[int, bool]], need: int
) -> None:
    states = [UnitState(Unit(n + 1), *row) for n, row in enumerate(rows)]
    found = plan(rows_of([Share()], states), states, Fill(0, Share(), Grade.NORMAL), need)
    passed = [state.unit for state in states if state.visited and state.unit < found.hands.get(b"0", 0)]
    assert set(found.spare) <= {state.unit for state in states if state.visited}
    assert not set(found.evict) & set(found.spare)
    unvisited = [state.unit for state in states if not state.visited]
    assert list(found.evict)[: len(unvisited)] == unvisited[: len(found.evict)]
    if len(found.evict) <= len(unvisited):
        assert list(found.spare) == passed


def test_the_hand_stops_where_enough_is_freed() -> None:
    states = [UnitState(Unit(1), 5, True), UnitState(Unit(2), 5, False), UnitState(Unit(3), 5, False)]
    found = plan(rows_of([Share()], states), states, Fill(0, Share(), Grade.NORMAL), 5)
    assert (found.evict, found.spare, found.hands) == ((2,), (1,), {b"0": 3})


def test_a_share_over_its_quota_is_cut_back_to_it_and_no_further() -> None:
    shares = [Share(), Share("b", priority=5, quota_bytes=10)]
    states = [UnitState(Unit(n), 5, False, n % 2) for n in range(1, 9)]
    found = plan(rows_of(shares, states), states, Fill(0, shares[0], Grade.NORMAL), 30)
    taken: dict[int, int] = defaultdict(int)
    for unit in found.evict:
        taken[unit % 2] += 5
    assert taken == {1: 10, 0: 20}
    assert found.evict[:2] == (1, 3)


@given(st.lists(st.tuples(SHARES, st.integers(0, 1000), st.integers(0, 30))), st.integers(0, 30))
def test_the_window_covers_two_rounds_of_what_is_refused(found: list[tuple[Share, int, int]], ticks: int) -> None:
    rows = [ShareRow(share, normal=normal, refused_tick=refused) for share, normal, refused in found]
    held = [row for row in rows if row.is_cycling(ticks)]
    window = cycle_window_bytes(rows, ticks=ticks)
    assert window >= sum(2 * (row.share.cycle_bytes - row.normal) for row in held if row.normal < row.share.cycle_bytes)
    assert (window > 0) == bool(held)
