from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache_runtime.peers.health import Health, Hedging, Probing


def test_a_worker_that_fails_is_left_alone_twice_as_long_each_time_up_to_half_a_minute() -> None:
    health = Health()
    now, waits = 100.0, []
    for _ in range(9):
        seconds = health.failed("w", began=now, now=now, jitter=1.0)
        assert not health.may_ask("w", now=now + seconds * 0.99)
        waits.append(seconds)
        now += seconds
        assert health.may_ask("w", now=now)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    health.answered("w")
    assert health.failed("w", began=now, now=now, jitter=1.0) == 0.5


def test_after_a_back_off_one_caller_tries_and_the_others_do_not() -> None:
    health = Health()
    now = 100 + health.failed("w", began=100, now=100, jitter=0.5)
    assert [health.may_ask("w", now=now) for _ in range(3)] == [True, False, False]
    assert health.may_ask("w", now=now + 31)  # it never said what happened
    assert health.may_ask("other", now=now)


def test_requests_that_fail_together_are_one_failure() -> None:
    health = Health()
    first = health.failed("w", began=100.0, now=103.0, jitter=1.0)
    assert first == 0.5
    assert [health.failed("w", began=100.1, now=103.1, jitter=1.0) for _ in range(20)] == [0.0] * 20
    assert health.failed("w", began=103.6, now=104.0, jitter=1.0) == 1.0


@given(st.floats(0, 0.999), st.floats(0, 1e6), st.one_of(st.none(), st.floats(0, 1e6)))
def test_a_back_off_is_never_longer_than_some_half_a_minute(jitter: float, now: float, retry: float | None) -> None:
    health = Health()
    for _ in range(8):
        seconds = health.failed("w", began=now, now=now, jitter=jitter, retry_seconds=retry)
        assert 0 <= seconds <= 37.5


def test_an_owner_stops_asking_for_what_nobody_has_and_begins_again_when_somebody_does() -> None:
    probing = Probing()
    probing.told("cold", hits=0, misses=63)
    assert all(probing.wants("cold") for _ in range(100))
    probing.told("cold", hits=0, misses=1)
    assert sum(probing.wants("cold") for _ in range(160)) == 10
    assert probing.wants("warm")
    probing.told("cold", hits=1, misses=5)
    assert all(probing.wants("cold") for _ in range(100))


def test_a_hedge_waits_for_what_99_of_100_answers_took() -> None:
    hedging = Hedging()
    assert hedging.delay_seconds == 0.02
    for number in range(256):
        hedging.answered(0.5 if number % 50 == 0 else 0.1)
    assert hedging.delay_seconds == 0.5
    for _ in range(256):
        hedging.answered(0.001)
    assert hedging.delay_seconds == 0.02


def test_one_request_in_twenty_may_be_hedged_and_a_few_at_once() -> None:
    hedging = Hedging()
    assert [hedging.take() for _ in range(6)] == [True] * 4 + [False] * 2
    for _ in range(200):
        hedging.answered(0.1)
    assert sum(hedging.take() for _ in range(20)) == 4
    granted = 0
    for _ in range(1000):
        hedging.answered(0.1)
        granted += hedging.take()
    assert 45 <= granted <= 55
