from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sources import SourceUnavailableError
from sources.reading.retry import RetryPolicy

POLICY = RetryPolicy()


def delay(error: SourceUnavailableError, **changes: object) -> float | None:
    state = {"retries": 0, "waited": 0.0, "answered": True, "random": 0.5}
    return POLICY.delay(error, **(state | changes))  # type: ignore[arg-type]


@given(st.integers(0, 1000), st.floats(0, 0.999))
def test_a_delay_is_never_longer_than_its_cap(retries: int, random: float) -> None:
    found = delay(SourceUnavailableError("x"), retries=retries, random=random)
    assert found is not None
    assert 0 <= found <= POLICY.cap_seconds


def test_the_longest_delay_doubles_up_to_the_cap() -> None:
    found = [delay(SourceUnavailableError("x"), retries=retries, random=0.999999) for retries in range(8)]
    assert [round(seconds or 0, 2) for seconds in found] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_what_cannot_help_is_not_tried_again() -> None:
    assert delay(SourceUnavailableError("shorter", retryable=False)) is None


def test_a_store_that_never_answered_is_given_up_sooner() -> None:
    error = SourceUnavailableError("refused")
    assert delay(error, waited=4.0, answered=True) is not None
    assert delay(error, waited=4.0, answered=False) is None
    assert delay(error, waited=60.0, answered=True) is None


def test_a_store_that_throttles_has_answered() -> None:
    assert delay(SourceUnavailableError("busy", throttled=True), waited=4.0, answered=False) is not None


def test_the_store_is_obeyed_when_it_says_how_long() -> None:
    assert delay(SourceUnavailableError("busy", throttled=True, retry_after=7.0)) == 7.0
    assert delay(SourceUnavailableError("busy", throttled=True, retry_after=100.0)) is None
