from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache_runtime.peers import Member
from cache_runtime.peers.routing import Ask, plan_route

A, B, C, D, E = (Member(name, f"http://{name}:1") for name in "abcde")
RANKED = [A, B, C, D]


def test_a_reader_asks_the_owner_then_the_next_one_both_to_fill() -> None:
    route = plan_route(RANKED, own="d", serves=False, replicas=1, probes=True, turn=0)
    assert route == ((Ask(A, True), Ask(B, True)), True, A)


def test_who_is_no_member_keeps_what_it_reads_as_its_own() -> None:
    route = plan_route(RANKED, own=None, serves=False, replicas=1, probes=True, turn=0)
    assert route == ((Ask(A, True), Ask(B, True)), False, A)


def test_an_owner_asks_the_next_two_whether_they_have_it_while_members_changed_lately() -> None:
    for serves in (False, True):
        assert plan_route(RANKED, own="a", serves=serves, replicas=1, probes=True, turn=0) == (
            (Ask(B, False), Ask(C, False)),
            False,
            A,
        )
        assert plan_route(RANKED, own="a", serves=serves, replicas=1, probes=False, turn=0).asks == ()


def test_a_worker_that_is_asked_for_anothers_block_looks_for_it_first() -> None:
    route = plan_route(RANKED, own="c", serves=True, replicas=1, probes=False, turn=0)
    assert route == ((Ask(A, False), Ask(B, False)), False, A)


def test_a_replica_fills_from_the_owner_and_keeps_it() -> None:
    route = plan_route(RANKED, own="b", serves=False, replicas=2, probes=False, turn=1)
    assert route == ((Ask(A, True), Ask(C, True)), False, A)


def test_readers_spread_over_replicas_and_only_the_owner_is_to_fill_first() -> None:
    asked = [plan_route(RANKED, own="d", serves=False, replicas=2, probes=False, turn=turn).asks for turn in (0, 1)]
    assert asked == [(Ask(A, True), Ask(B, True)), (Ask(B, False), Ask(A, True), Ask(B, True))]


def test_a_member_that_left_lately_is_asked_for_what_it_has_by_new_owners_only() -> None:
    gone = {"a"}
    owner = plan_route(RANKED, own="b", serves=True, replicas=1, probes=True, turn=0, gone=gone)
    assert owner == ((Ask(A, False), Ask(C, False)), False, B)
    reader = plan_route(RANKED, own="d", serves=False, replicas=1, probes=True, turn=0, gone=gone)
    assert reader == ((Ask(B, True), Ask(C, True)), True, B)


def test_without_members_there_is_nobody_to_ask() -> None:
    assert plan_route([], own=None, serves=False, replicas=2, probes=True, turn=1) == ((), False, None)


@given(
    st.lists(st.sampled_from([A, B, C, D, E]), unique=True),
    st.sampled_from([None, "a", "b", "x"]),
    st.booleans(),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 10),
    st.sets(st.sampled_from("abcde")),
)
def test_nobody_asks_itself_and_workers_never_ask_to_fill(
    ranked: list[Member], own: str | None, serves: bool, replicas: int, probes: bool, turn: int, gone: set[str]
) -> None:
    route = plan_route(ranked, own=own, serves=serves, replicas=replicas, probes=probes, turn=turn, gone=gone)
    assert all(ask.member.name != own for ask in route.asks)
    assert not (serves and any(ask.fill for ask in route.asks))
    assert not any(ask.fill and ask.member.name in gone for ask in route.asks)
    assert len(route.asks) <= 3
    assert not (serves and route.guest)
