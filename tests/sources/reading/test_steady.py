"""A real directory behind a wrapper that fails as networks do."""

from __future__ import annotations

import os
import pickle
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from sources import FileStore, SourceChangedError, SourceUnavailableError, StoreId, Version
from sources.reading import Budget, Limits, Range, RetryPolicy, SteadyStore, SteadySwapStore
from sources.reading.steady import steady

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


QUICK = RetryPolicy(base_seconds=0.001, cap_seconds=0.002, patience_seconds=2, first_contact_seconds=0.2)


class Faulty(FileStore):
    """A directory that fails as `fault` decides, once before and once in the middle of an answer.

    Attributes:
        asked: `(start, length)` of each read.
        fault: From the number of a read to how many bytes arrive before it breaks off; None: all.
    """

    def __init__(self, root: Path | str, fault: Callable[[int], int | None] = lambda _number: None) -> None:
        super().__init__(root)
        self.id = StoreId(f"faulty://{root}")
        self.asked: list[tuple[int, int]] = []
        self.fault = fault
        self.in_flight = Counter[str]()
        self.lock = threading.Lock()

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> bytes:
        buffer = memoryview(bytearray(length))
        self.read_into(key, start=start, buffer=buffer, version=version)
        return bytes(buffer)

    def read_into(self, key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        with self.lock:
            number = len(self.asked)
            self.asked.append((start, len(buffer)))
            self.in_flight["now"] += 1
            self.in_flight["most"] = max(self.in_flight.values())
        try:
            arrives = self.fault(number)
            if arrives is None:
                super().read_into(key, start=start, buffer=buffer, version=version)
                return
            arrives = min(arrives, len(buffer))
            super().read_into(key, start=start, buffer=buffer[:arrives], version=version)
            raise SourceUnavailableError("broke off", received=arrives)
        finally:
            with self.lock:
                self.in_flight["now"] -= 1


def written(tmp_path: Path, size: int) -> tuple[str, bytes]:
    data = random.Random(size).randbytes(size)
    (tmp_path / "data").write_bytes(data)
    return str(tmp_path / "data")[1:], data


def wrapped(store: FileStore, **limits: int) -> SteadyStore:
    return SteadyStore(store, Limits(**limits), policy=QUICK)


def test_a_broken_body_is_resumed_at_the_byte(tmp_path: Path) -> None:
    key, data = written(tmp_path, 3 << 20)
    native = Faulty(tmp_path, lambda number: {0: 1_000_000, 1: 0, 2: 7}.get(number))
    store = wrapped(native)
    version = native.stat(key).version
    assert bytes(store.read(key, start=0, length=len(data), version=version)) == data
    assert [start for start, _ in native.asked] == [0, 1_000_000, 1_000_000, 1_000_007]


def test_a_broken_body_of_no_version_is_read_from_its_start(tmp_path: Path) -> None:
    key, data = written(tmp_path, 3 << 20)
    native = Faulty(tmp_path, lambda number: 1_000_000 if number == 0 else None)
    assert bytes(wrapped(native).read(key, start=0, length=len(data), version=None)) == data
    assert native.asked == [(0, len(data))] * 2


def test_a_long_read_is_made_of_parallel_parts(tmp_path: Path) -> None:
    key, data = written(tmp_path, (40 << 20) + 3)
    barrier = threading.Barrier(6, timeout=10)
    native = Faulty(tmp_path, lambda _number: barrier.wait() * 0 or None)
    version = native.stat(key).version
    assert bytes(wrapped(native).read(key, start=0, length=len(data), version=version)) == data
    assert len(native.asked) == 6


def test_reads_at_the_same_time_share_the_connections(tmp_path: Path) -> None:
    key, data = written(tmp_path, 40 << 20)
    begun = threading.Barrier(17, timeout=10)
    native = Faulty(tmp_path)
    store = wrapped(native)
    version = native.stat(key).version

    def read() -> bytes:
        with store._splitting(64 << 20):
            begun.wait()
            begun.wait()
        return b""

    with ThreadPoolExecutor(16) as pool:
        others = [pool.submit(read) for _ in range(16)]
        begun.wait()
        assert bytes(store.read(key, start=0, length=len(data), version=version)) == data
        begun.wait()
        assert [other.result() for other in others] == [b""] * 16
    assert native.asked == [(0, len(data))]


def test_a_change_between_parts_is_refused(tmp_path: Path) -> None:
    key, data = written(tmp_path, 20 << 20)

    def change(number: int) -> None:
        if number == 1:
            (tmp_path / "data").write_bytes(bytes(len(data)))

    native = Faulty(tmp_path, change)
    version = native.stat(key).version
    with pytest.raises(SourceChangedError):
        wrapped(native).read(key, start=0, length=len(data), version=version)
    assert not native.in_flight["now"]


def test_many_ranges_come_back_in_the_order_of_asking(tmp_path: Path) -> None:
    key, data = written(tmp_path, 30 << 20)
    draw = random.Random(7)
    native = Faulty(tmp_path, lambda number: 100 if number % 3 == 0 and number < 40 else None)
    version = native.stat(key).version
    places = [(draw.randrange(len(data) - 20_000), draw.randrange(20_000)) for _ in range(300)]
    places += [(0, len(data)), (5, 0)]
    ranges = [Range(key, version, start, length) for start, length in places]
    found = wrapped(native).read_many(ranges, max_gap_bytes=1000)
    assert [bytes(one) for one in found] == [data[start : start + length] for start, length in places]


def test_neighbours_cost_one_request(tmp_path: Path) -> None:
    key, data = written(tmp_path, 100_000)
    native = Faulty(tmp_path)
    version = native.stat(key).version
    ranges = [Range(key, version, start, 500) for start in range(0, 90_000, 1000)]
    found = wrapped(native).read_many(ranges)
    assert [bytes(one) for one in found] == [data[one.start : one.start + 500] for one in ranges]
    assert native.asked == [(0, 89_500)]


def test_the_first_failure_stops_the_rest_and_nothing_runs_on(tmp_path: Path) -> None:
    key, data = written(tmp_path, 1000)

    def fail(number: int) -> None:
        if number >= 50:
            raise SourceChangedError("x", expected="1", found="2")
        time.sleep(0.001)

    native = Faulty(tmp_path, fail)
    ranges = [Range(key, None, 0, len(data))] * 2000
    with pytest.raises(SourceChangedError):
        wrapped(native).read_many(ranges)
    assert not native.in_flight["now"]
    assert len(native.asked) < 200


def test_the_limit_of_requests_at_a_time_holds_for_parallel_reads(tmp_path: Path) -> None:
    key, data = written(tmp_path, 1000)

    def slow(_number: int) -> None:
        time.sleep(0.002)

    native = Faulty(tmp_path, slow)
    wrapped(native, concurrency=3).read_many([Range(key, None, 0, len(data))] * 100)
    assert native.in_flight["most"] == 3


def test_two_stores_of_one_origin_share_its_limits(tmp_path: Path) -> None:
    first, second = wrapped(Faulty(tmp_path), concurrency=7), wrapped(Faulty(tmp_path), concurrency=3)
    assert first.budget is second.budget
    assert first.budget.pace.limits.concurrency == 3


def test_patience_ends(tmp_path: Path) -> None:
    key, _ = written(tmp_path, 10)

    def refuse(_number: int) -> None:
        raise SourceUnavailableError("refused")

    native = Faulty(tmp_path, refuse)
    store = wrapped(native)

    def seconds_until_given_up() -> float:
        begun = time.monotonic()
        with pytest.raises(SourceUnavailableError, match="refused"):
            store.read(key, start=0, length=1, version=None)
        return time.monotonic() - begun

    assert seconds_until_given_up() < 1.5
    store.stat(key)
    assert 1.5 < seconds_until_given_up() < 5  # it has answered before: it is down, not misspelt


def test_a_storm_of_throttling_slows_down_and_ends_well(tmp_path: Path) -> None:
    key, data = written(tmp_path, 1000)

    def storm(number: int) -> None:
        if number < 40:
            raise SourceUnavailableError("slow down", throttled=True)

    native = Faulty(tmp_path, storm)
    store = SteadyStore(native, Limits(concurrency=32), policy=RetryPolicy(base_seconds=0.01))
    found = store.read_many([Range(key, None, 0, len(data))] * 200)
    assert {bytes(one) for one in found} == {data}
    assert native.asked.count((0, 1000)) <= 400


def test_a_failure_ends_the_patience_of_the_other_parts(tmp_path: Path) -> None:
    key, data = written(tmp_path, 40 << 20)
    waiting = threading.Event()

    def fail(number: int) -> None:
        if number == 0:
            assert waiting.wait(20)
            raise SourceChangedError("x", expected="1", found="2")
        waiting.set()
        raise SourceUnavailableError("down", throttled=True, retry_after=40)

    store = SteadyStore(Faulty(tmp_path, fail), Limits(), policy=RetryPolicy())
    version = store.stat(key).version
    begun = time.monotonic()
    with pytest.raises(SourceChangedError):
        store.read(key, start=0, length=len(data), version=version)
    assert time.monotonic() - begun < 30


def test_an_interrupted_read_leaves_nobody_writing_into_the_buffer(tmp_path: Path) -> None:
    key, data = written(tmp_path, 17 << 20)
    main = threading.get_ident()
    all_begun = threading.Barrier(3, timeout=10)  # 17 MiB are three parts: for this thread and two more

    def interrupt(_number: int) -> None:
        all_begun.wait()
        if threading.get_ident() == main:
            time.sleep(0.05)
            raise KeyboardInterrupt
        raise SourceUnavailableError("down", throttled=True, retry_after=20)

    native = Faulty(tmp_path, interrupt)
    store = SteadyStore(native, Limits(), policy=RetryPolicy())
    version = native.stat(key).version
    buffer = memoryview(bytearray(len(data)))
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        store.read_into(key, start=0, buffer=buffer, version=version)
    assert time.monotonic() - begun < 5
    assert not native.in_flight["now"]
    assert not store.budget.pace.in_flight


def test_an_index_error_of_a_store_is_no_end_of_work(tmp_path: Path) -> None:
    key, data = written(tmp_path, 20 << 20)

    def fail(number: int) -> None:
        if number == 1:
            raise IndexError

    native = Faulty(tmp_path, fail)
    with pytest.raises(IndexError):
        wrapped(native).read(key, start=0, length=len(data), version=native.stat(key).version)


def test_what_a_store_without_read_into_received_is_not_taken_for_read(tmp_path: Path) -> None:
    key, data = written(tmp_path, 2 << 20)

    class Copying(Faulty):
        read_into = None  # type: ignore[assignment]

        def read(self, key: str, *, start: int, length: int, version: Version | None) -> bytes:
            self.asked.append((start, length))
            if len(self.asked) == 1:
                raise SourceUnavailableError("broke off", received=1_000_000)
            return FileStore.read(self, key, start=start, length=length, version=version)

    native = Copying(tmp_path)
    store = wrapped(native)
    store._reads_into = None
    assert bytes(store.read(key, start=0, length=len(data), version=native.stat(key).version)) == data


def test_progress_renews_patience(tmp_path: Path) -> None:
    key, data = written(tmp_path, 3 << 20)

    def little(number: int) -> int | None:
        time.sleep(0.05)
        return 200_000 if number < 15 else None

    native = Faulty(tmp_path, little)
    store = SteadyStore(
        native, Limits(), policy=RetryPolicy(base_seconds=0.001, patience_seconds=0.2, first_contact_seconds=0.2)
    )
    assert bytes(store.read(key, start=0, length=len(data), version=native.stat(key).version)) == data


def test_a_body_that_broke_off_behind_its_last_byte_is_not_asked_for_nothing(tmp_path: Path) -> None:
    key, data = written(tmp_path, 2 << 20)
    native = Faulty(tmp_path, lambda number: len(data) if number == 0 else None)
    assert bytes(wrapped(native).read(key, start=0, length=len(data), version=native.stat(key).version)) == data
    assert native.asked == [(0, len(data)), (len(data) - 1, 1)]


def test_a_buffer_of_numbers_is_filled_to_its_end(tmp_path: Path) -> None:
    key, data = written(tmp_path, 80_000)
    numbers: Any = memoryview(bytearray(80_000)).cast("d")
    store = wrapped(Faulty(tmp_path))
    store.read_into(key, start=0, buffer=numbers, version=store.stat(key).version)
    assert numbers.tobytes() == data


def test_a_request_that_was_interrupted_is_no_answer(tmp_path: Path) -> None:
    store = wrapped(Faulty(tmp_path))
    with pytest.raises(KeyboardInterrupt), store.budget.turn(0, retry=False):
        raise KeyboardInterrupt
    assert not store.budget.answered
    assert not store.budget.pace.in_flight


def test_a_retry_that_waits_does_not_keep_others_from_their_turn(tmp_path: Path) -> None:
    budget = wrapped(Faulty(tmp_path), concurrency=1).budget
    now = time.monotonic()
    budget.pace._retries.tokens, budget.pace._retries.at = -30.0, now  # 3 seconds without retries
    with budget.turn(0, retry=False):
        waiting = [threading.Thread(target=_take_turn, args=(budget, retry)) for retry in (True, True, False)]
        for thread in waiting:
            thread.start()
            time.sleep(0.05)
    begun = time.monotonic()
    waiting[2].join(5)
    assert time.monotonic() - begun < 2.5
    for thread in waiting:
        thread.join(5)


def _take_turn(budget: Budget, retry: bool) -> None:
    with budget.turn(0, retry=retry):
        pass


def test_a_swap_whose_answer_was_lost_is_not_repeated(tmp_path: Path) -> None:
    tries = 0

    class Losing(Faulty):
        def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
            nonlocal tries
            tries += 1
            super().swap(key, data, expect=expect)
            raise SourceUnavailableError("reset")

    store = steady(Losing(tmp_path), Limits())
    assert isinstance(store, SteadySwapStore)
    with pytest.raises(SourceUnavailableError):
        store.swap(str(tmp_path / "ref")[1:], b"1", expect=None)
    assert tries == 1
    assert store.fetch(str(tmp_path / "ref")[1:])[0] == b"1"


def test_a_listing_goes_through_the_retries(tmp_path: Path) -> None:
    key, data = written(tmp_path, 10)
    store = steady(FileStore(tmp_path), Limits())
    assert [(stat.key, stat.size) for stat in store.list(f"{tmp_path}/"[1:])] == [(key, len(data))]


def test_a_forked_child_and_a_pickled_copy_read(tmp_path: Path) -> None:
    key, data = written(tmp_path, 20 << 20)
    store = steady(FileStore(tmp_path), Limits())
    version = store.stat(key).version
    assert bytes(store.read(key, start=0, length=len(data), version=version)) == data
    copy = pickle.loads(pickle.dumps(store))
    assert bytes(copy.read(key, start=1, length=len(data) - 1, version=version)) == data[1:]
    with store.budget.turn(0, retry=False):  # of a thread that the child does not have
        child = os.fork()
        if not child:
            right = bytes(store.read(key, start=0, length=len(data), version=version)) == data
            os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_store_that_went_down_is_waited_for_once_and_not_for_each_object(tmp_path: Path) -> None:
    key, data = written(tmp_path, 10)
    down = False

    def fail(_number: int) -> None:
        if down:
            raise SourceUnavailableError("refused")

    native = Faulty(tmp_path, fail)
    store = wrapped(native)
    store.read(key, start=0, length=1, version=None)
    down = True
    begun = time.monotonic()
    for _ in range(300):
        with pytest.raises(SourceUnavailableError):
            store.read(key, start=0, length=1, version=None)
    assert time.monotonic() - begun < QUICK.patience_seconds + 2
    down = False
    time.sleep(1.1)
    assert bytes(store.read(key, start=0, length=10, version=None)) == data
    assert bytes(store.read(key, start=0, length=10, version=None)) == data


def test_a_failure_of_long_ago_does_not_count_against_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sources.reading.budget._STALE_SECONDS", 0.5)
    key, data = written(tmp_path, 10)
    failing = True

    def fail(_number: int) -> None:
        if failing:
            raise SourceUnavailableError("refused")

    store = SteadyStore(Faulty(tmp_path, fail), Limits(), policy=RetryPolicy(patience_seconds=0.3))
    store.stat(key)
    with pytest.raises(SourceUnavailableError):
        store.read(key, start=0, length=1, version=None)
    failing = False
    time.sleep(1)
    found = store.read_many([Range(key, None, 0, 10)] * 100)
    assert {bytes(one) for one in found} == {data}
