from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from cache_runtime.errors import CacheTimeoutError
from cache_runtime.flights import Flights, wait_for
from sources.crew import Crew


def test_threads_that_want_the_same_get_one_result() -> None:
    flights: Flights[int] = Flights()
    begun, go, calls = threading.Event(), threading.Event(), []

    def work() -> int:
        calls.append(1)
        begun.set()
        assert go.wait(10)
        return 7

    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(flights.fly, "key", work, seconds=10) for _ in range(8)]
        assert begun.wait(10)
        time.sleep(0.05)
        go.set()
        assert [result.result(10) for result in results] == [7] * 8
    assert len(calls) == 1


def test_who_waits_too_long_is_told() -> None:
    flights: Flights[int] = Flights()
    with flights.claim(["key"]), pytest.raises(CacheTimeoutError, match="another thread"):
        flights.fly("key", lambda: 1, seconds=0.05)
    assert flights.fly("key", lambda: 1, seconds=0.05) == 1


def test_a_time_out_of_the_work_is_its_own_error() -> None:
    flights: Flights[int] = Flights()
    with flights.claim(["key"]) as claim:
        claim.fail("key", TimeoutError("of the work"))
        with pytest.raises(TimeoutError, match="of the work"):
            wait_for(claim.mine["key"], seconds=0)


def test_an_interrupted_owner_leaves_the_work_to_another() -> None:
    flights: Flights[int] = Flights()
    claim = flights.claim(["a", "b"])
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(flights.fly, key, lambda: 2, seconds=10) for key in "ab"]
        time.sleep(0.05)
        claim.land("a", 1)
        claim.__exit__(KeyboardInterrupt)
        assert [future.result(10) for future in waiting] == [1, 2]


def test_what_is_claimed_twice_is_the_first_ones() -> None:
    flights: Flights[int] = Flights()
    with flights.claim("abca") as first:
        second = flights.claim("bd")
        assert (set(first.mine), set(first.others)) == (set("abc"), set())
        assert (set(second.mine), set(second.others)) == ({"d"}, {"b"})
    with pytest.raises(CancelledError), second:
        wait_for(second.others["b"], seconds=1)


def test_a_crew_keeps_the_order_and_its_size() -> None:
    crew = Crew(3, name="test")
    running, most, lock = 0, 0, threading.Lock()

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return number * 2

    assert crew.map(work, range(50)) == [number * 2 for number in range(50)]
    assert 2 <= most <= 3


def test_the_first_error_of_a_crew_stops_what_has_not_begun() -> None:
    crew, done = Crew(2, name="test"), []

    def work(number: int) -> None:
        if number == 1:
            raise ValueError("by the test")
        time.sleep(0.01)
        done.append(number)

    with pytest.raises(ValueError, match="by the test"):
        crew.map(work, range(1000))
    time.sleep(0.1)
    assert len(done) < 100
