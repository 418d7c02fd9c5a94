"""Interruptions, other threads, full machines and odd data: errors that say what to do, and nothing that hangs."""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loaders import Mixture
from loaders.errors import IterationError, StateMismatchError
from loaders.frameworks import _looked_at
from loaders.running import ErrorPolicy, Loader, pool, read_quarantine
from loaders.running.policies import describe
from loaders.sampler import ElasticBatchSampler
from loaders.stall import StallReport
from tests.loaders.running.samples import Numbers, expected, keys, loader_threads

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator
    from pathlib import Path

    from loaders.running import Mode
    from loaders.running.making import Task


class Large(Numbers):
    def one(self, number: int) -> dict[str, Any]:
        return {"__key__": f"k{number}", "x": np.full(100_000, number)}


def large(**options: Any) -> Loader[Any]:
    chosen = {"mode": "process", "workers": 2, "collate": "numpy", "timeout": 60, "order": "none", **options}
    return Loader(Large(64), 4, **chosen)


def whole(batches: Any) -> bool:
    """Whether these are all batches of `large`, each with its numbers."""
    steps = 0
    for step, batch in enumerate(batches):
        assert batch["x"][:, 0].tolist() == list(range(4 * step, 4 * step + 4))
        assert batch["x"][:, -1].tolist() == list(range(4 * step, 4 * step + 4))
        steps += 1
    return steps == 16


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_a_loop_goes_on_after_ctrl_c(mode: Mode) -> None:
    slow = Numbers(120, slow=frozenset(range(120)), seconds=0.005)
    loader: Loader[Any] = Loader(slow, 4, mode=mode, workers=2, collate="list", timeout=60, seed=1)
    found, interruptions = [], 0
    while loader.epoch == 0:
        try:
            for batch in loader:
                found.append(batch)
                if len(found) in {3, 12} and interruptions < 2:
                    threading.Timer(0.004 + 0.01 * interruptions, os.kill, (os.getpid(), signal.SIGINT)).start()
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions == 2
    assert keys(found) == expected(loader.sampler.batch_at(0, step) for step in range(30))
    loader.close()


def test_a_worker_that_stops_in_the_middle_of_a_batch_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_SILENT_SECONDS", 1)
    loader = large(prefetch=4, prefetch_bytes=1)  # no shared memory: batches go through pipes, which they fill
    loader._runner._budget.limit_bytes = 1 << 30  # type: ignore[union-attr]
    loader._runner._slabs_refused = True  # type: ignore[union-attr]

    def stopping() -> Iterator[Any]:
        for step, batch in enumerate(loader):
            if step == 2:
                time.sleep(0.5)  # the workers fill their pipes and wait
                os.kill(loader._runner.pids[0], signal.SIGSTOP)  # type: ignore[union-attr]
            yield batch

    assert whole(stopping())
    assert loader.stats().restarts == 1
    loader.close()


def test_without_memory_to_share_batches_go_through_pipes(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    loader = large()
    try:
        assert whole(loader)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        loader.close()
    records: list[logging.LogRecord] = caplog.records
    assert [record.getMessage().split(":")[0] for record in records] == ["batches go through pipes"]


def test_a_loader_that_is_dropped_closes_its_files() -> None:
    keys(Loader(Numbers(8), 4, mode="process", workers=1, collate="list"))  # the server of forks is there now
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for start_method in ("forkserver", "spawn"):
        loader = large(workers=1, start_method=start_method)
        assert whole(loader)
        del loader
        gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_wait_may_have_no_end() -> None:
    loader = large(timeout=math.inf)
    assert whole(loader)
    loader.close()


def test_an_iteration_that_its_own_thread_collects_ends() -> None:
    loader: Loader[Any] = Loader(Numbers(400), 4, workers=2, collate="list", prefetch=3)
    tasks, dropped, collected = loader._tasks, threading.Event(), threading.Event()

    def collecting() -> Iterator[Task]:
        for step, task in enumerate(tasks()):
            if step == 8:  # the loop has taken 6 of them: this runs in a thread, under the ring's lock
                dropped.wait(20)
                gc.collect()
                collected.set()
            yield task

    loader._tasks = collecting  # type: ignore[method-assign]

    def leave_a_cycle() -> None:
        batches = iter(loader)
        for _ in range(6):
            next(batches)
        cycle: list[Any] = [batches]
        cycle.append(cycle)
        loader._running = None

    gc.disable()  # it is collected there, not here
    try:
        leave_a_cycle()
        dropped.set()
        assert collected.wait(20)
        deadline = time.monotonic() + 20
        while loader_threads() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert loader_threads() == []
    finally:
        gc.enable()


@pytest.mark.parametrize("mode", ["sync", "thread", "process"])
def test_a_loop_of_another_thread_is_not_disturbed(mode: Mode) -> None:
    slow = Numbers(12, slow=frozenset([5]), seconds=1.0)
    loader: Loader[Any] = Loader(slow, 4, mode=mode, workers=1, order="none", collate="list", timeout=60)
    found: list[list[str]] = []
    loop = threading.Thread(target=lambda: found.extend(keys(loader)))
    loop.start()
    while loader.step < 1:
        time.sleep(0.01)
    time.sleep(0.1)  # it waits for the second batch now
    for disturb in (loader.close, lambda: loader.set_epoch(3), lambda: next(iter(loader))):
        with pytest.raises(IterationError, match="another thread waits"):
            disturb()
    loop.join(30)
    assert [len(batch) for batch in found] == [4, 4, 4]
    loader.close()


def test_statistics_begin_anew_in_mid_epoch() -> None:
    loader: Loader[Any] = Loader(Numbers(40), 4, mode="sync", collate="list")
    for step, _ in enumerate(loader):
        if step == 4:
            time.sleep(1.0)
        if step == 5:
            loader.reset_stats()
    stats = loader.stats()
    assert isinstance(stats, StallReport)
    assert stats.batches == 4
    assert stats.wait_seconds <= stats.total_seconds < 1.0


class Odd(Numbers):
    def one(self, number: int) -> dict[str, Any]:
        if number in self.bad:
            raise ValueError("a\u2028b\x85c\udcff")
        return super().one(number)


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_a_bad_samples_text_may_be_anything(tmp_path: Path) -> None:
    policy = ErrorPolicy("skip", max_fraction=1.0)
    keys(Loader(Odd(40, bad=frozenset([3, 8])), 4, collate="list", on_error=policy, quarantine=tmp_path / "bad"))
    lines = read_quarantine(tmp_path / "bad")
    assert sorted(line["number"] for line in lines) == [3, 8]
    assert lines[0]["error"] == "a b c\udcff"
    assert describe(SpeechlessError()) == "its text cannot be told: RuntimeError"


def test_the_replacement_of_a_bad_sample_is_of_its_own_source() -> None:
    sources = {"now": (Numbers(10, bad=frozenset([3])), 1.0), "later": (Numbers(1000, fingerprint="later"), 0.0)}
    mixture = Mixture(sources, epoch_size=100)
    policy = ErrorPolicy("replace", max_fraction=1.0)
    loader: Loader[Any] = Loader(mixture, 4, collate="list", on_error=policy)
    found = {key for batch in keys(loader) for key in batch}
    assert found == {f"k{number}" for number in range(10) if number != 3}
    assert loader.stats().replaced == 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_workers": 2}, "it is `workers` here"),
        ({"shuffle": True}, "it is `order` here"),
        ({"pin": 1}, "known are seed, order, drop_last"),
    ],
)
def test_options_of_other_loaders_are_told_by_their_names_here(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Loader(Numbers(8), 4, **options)


def test_data_sets_that_a_loader_cannot_read_are_refused() -> None:
    with pytest.raises(TypeError, match="list has no __getitems__, fingerprint"):
        Loader([1, 2, 3], 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="made for other samples"):
        Loader(Numbers(8), sampler=ElasticBatchSampler(Numbers(8, fingerprint="other"), 4))


def test_a_state_of_numpys_numbers_is_for_json_too() -> None:
    loader: Loader[Any] = Loader(Numbers(8), np.int64(4), seed=np.int64(3), rank=np.int32(0), world_size=np.int32(1))  # type: ignore[arg-type]
    loader.set_epoch(np.int64(2))  # type: ignore[arg-type]
    state = json.loads(json.dumps(loader.state_dict()))
    Loader(Numbers(8), 4, seed=3).load_state_dict(state)
    Loader(Numbers(8), 4, seed=3).load_state_dict({**state, "step": np.array(1)})
    with pytest.raises(TypeError):
        loader.set_epoch(1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", [{"epoch": None}, {"step": "2"}, {"step": 2}, {"epoch": -1}])
def test_a_damaged_state_is_refused_and_changes_nothing(damage: dict[str, Any]) -> None:
    loader: Loader[Any] = Loader(Numbers(8), 4)
    state = loader.state_dict()
    with pytest.raises(StateMismatchError, match="damaged"):
        loader.load_state_dict({**state, **damage})
    with pytest.raises(StateMismatchError, match="of type NoneType"):
        loader.load_state_dict(None)  # type: ignore[arg-type]
    assert loader.state_dict() == state


def test_a_look_at_the_first_batch_moves_no_loader() -> None:
    loader: Loader[Any] = Loader(Numbers(20), 4, seed=1, collate="list")
    next(iter(loader))
    state = loader.state_dict()
    first, batches = _looked_at(loader)
    assert loader.state_dict() == state
    assert keys([first]) == expected([loader.sampler.batch_at(0, 1)])
    loader.load_state_dict({**state, "step": 3})  # the first batch is another one now
    assert keys(batches) == expected(loader.sampler.batch_at(0, step) for step in (3, 4))
    assert len(keys(batches)) == 5


def test_a_look_at_an_iterator_loses_nothing() -> None:
    first, batches = _looked_at(iter([1, 2, 3]))
    assert (first, list(batches), list(batches)) == (1, [1, 2, 3], [])
    again = _looked_at([1, 2])[1]
    assert (list(again), list(again)) == ([1, 2], [1, 2])
