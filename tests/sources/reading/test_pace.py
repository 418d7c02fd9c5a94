from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.reading.pace import Limits, Pace


def begin(pace: Pace, now: float, nbytes: int = 0, *, retry: bool = False) -> float | None:
    return pace.begin(now, nbytes=nbytes, retry=retry)


def requests_within(pace: Pace, seconds: float, *, nbytes: int = 0, retry: bool = False) -> int:
    """As many requests as a store that answers at once gets."""
    now, count = 0.0, 0
    while now < seconds:
        wait = begin(pace, now, nbytes, retry=retry)
        if wait is None:
            pace.fail() if retry else pace.succeed()
            count += 1
        else:
            now += max(wait, 1e-6)
    return count


def test_no_more_are_in_flight_than_the_limit() -> None:
    pace = Pace(Limits(concurrency=3), now=0)
    assert [begin(pace, 0) for _ in range(4)] == [None, None, None, 0.0]
    pace.succeed()
    assert begin(pace, 0) is None


def test_a_request_rate_holds_over_time() -> None:
    assert (
        95 <= requests_within(Pace(Limits(requests_per_second=10), now=0), 9) <= 105
    )  # ten at once, then ten a second


def test_a_byte_rate_holds_for_requests_larger_than_a_second_of_it() -> None:
    count = requests_within(Pace(Limits(bytes_per_second=1000), now=0), 100, nbytes=10_000)
    assert 10 <= count <= 12


def test_retries_have_a_rate_of_their_own() -> None:
    assert 110 <= requests_within(Pace(Limits(), now=0), 10, retry=True) <= 125


def test_a_throttled_origin_is_asked_less_and_then_more_again() -> None:
    pace = Pace(Limits(concurrency=16), now=0)
    for _ in range(16):
        assert begin(pace, 1.0) is None
    for _ in range(16):  # all of one burst are refused: one cut, not sixteen
        pace.throttle(1.1, begun=1.0, retry_after=None)
    assert (pace.window, pace.in_flight) == (8, 0)
    for _ in range(200):
        assert begin(pace, 2.0) is None
        pace.succeed()
    assert pace.window == 16


def test_the_pause_is_what_the_store_asks_for_and_bounded() -> None:
    pace = Pace(Limits(), now=0)
    begin(pace, 1.0)
    pace.throttle(1.0, begun=1.0, retry_after=2.5)
    assert begin(pace, 1.0) == pytest.approx(2.5)
    begin(pace, 4.0)
    pace.throttle(4.0, begun=4.0, retry_after=1e9)
    assert begin(pace, 4.0) == pytest.approx(30.0)


@given(st.lists(st.tuples(st.sampled_from(["begin", "succeed", "fail", "throttle"]), st.floats(0, 2)), max_size=200))
def test_whatever_happens_the_window_stays_between_one_and_the_limit(steps: list[tuple[str, float]]) -> None:
    pace = Pace(Limits(concurrency=8, requests_per_second=5, bytes_per_second=100), now=0)
    now = 0.0
    for step, passed in steps:
        now += passed
        if step == "begin":
            wait = begin(pace, now, 10)
            assert wait is None or wait >= 0
        elif pace.in_flight:
            if step == "throttle":
                pace.throttle(now, begun=now - passed, retry_after=None)
            else:
                pace.succeed() if step == "succeed" else pace.fail()
        assert 1 <= pace.window <= 8
        assert 0 <= pace.in_flight <= 8


def test_of_two_limits_the_tighter_counts() -> None:
    assert Limits(5, None, 8).tighter(Limits(None, 3, 16)) == Limits(5, 3, 8)


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="concurrency is positive"):
        Limits(concurrency=0)
