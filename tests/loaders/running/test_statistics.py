"""Statistics, traces, headspace, and the watch for the interpreter's lock."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.running import Loader
from loaders.running.contention import LockWatch, holds_the_lock
from loaders.running.making import Span
from loaders.running.sizes import batch_bytes
from loaders.running.statistics import Histogram, Recorder
from tests.loaders.running.samples import Numbers

if TYPE_CHECKING:
    from pathlib import Path

    from loaders.running import Mode


@given(st.lists(st.floats(1e-6, 100), min_size=1, max_size=200), st.sampled_from([0.5, 0.99]))
def test_percentiles_are_about_right(seconds: list[float], share: float) -> None:
    histogram = Histogram()
    for one in seconds:
        histogram.add(one, 0)
    exact = float(np.percentile(seconds, 100 * share, method="inverted_cdf"))
    assert 0.8 * exact <= histogram.percentile(share) <= 1.25 * exact
    assert histogram.stats().seconds == pytest.approx(sum(seconds))


@pytest.mark.parametrize("mode", ["sync", "thread", "process"])
def test_stats_count_what_was_delivered_and_waited_for(mode: Mode) -> None:
    numbers = Numbers(24, slow=frozenset(range(24)), seconds=0.004)
    loader: Loader[Any] = Loader(numbers, 4, mode=mode, workers=1, collate="numpy")
    for _ in loader:
        time.sleep(0.001)
    stats = loader.stats()
    assert (stats.batches, stats.samples) == (6, 24)
    assert set(stats.stages) == {"load", "collate", "wait"}
    assert stats.stages["load"].seconds >= 24 * 0.004
    assert stats.stages["load"].p50_seconds >= 0.012
    assert stats.stages["wait"].count == 6
    assert 10 < stats.stall_percent <= 100
    assert stats.wait_seconds <= stats.total_seconds
    assert stats.samples_per_second == pytest.approx(24 / stats.total_seconds)
    assert stats.bytes_local is None
    loader.reset_stats()
    assert loader.stats().batches == 0
    loader.close()


@pytest.mark.parametrize("mode", ["sync", "thread", "process"])
def test_a_trace_is_what_perfetto_reads(mode: Mode, tmp_path: Path) -> None:
    loader: Loader[Any] = Loader(Numbers(16), 4, mode=mode, workers=2, collate="numpy")
    with loader.trace(tmp_path / "trace.json"):
        assert len(list(loader)) == 4
    list(loader)  # not in the trace
    loader.close()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert sum(event["name"] == "wait" for event in spans) == 4
    assert sum(event["name"] == "collate" for event in spans) == 4
    assert all({"ts", "dur", "pid", "tid", "cat"} <= event.keys() and event["dur"] >= 0 for event in spans)
    first, last = (choose(event["ts"] for event in spans) for choose in (min, max))
    assert last - first < 60e6  # one clock for all processes
    names = {event["args"]["name"] for event in events if event["ph"] == "M"}
    assert names >= ({"training", "loader worker"} if mode == "process" else {"training"})
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


def test_headspace_names_what_holds_the_loop_up() -> None:
    slow = Numbers(120, slow=frozenset(range(120)), seconds=0.003)
    loader: Loader[Any] = Loader(slow, 4, workers=1, collate="numpy")
    next(iter(loader))
    before = loader.state_dict()
    found = loader.headspace(lambda _batch: None, batches=6)
    assert found.bottleneck == "read"
    assert found.consumer > 10 * found.together
    assert found.gain > 10
    assert loader.state_dict() == before
    easy: Loader[Any] = Loader(Numbers(120), 4, workers=1, collate="numpy")
    assert easy.headspace(lambda _batch: time.sleep(0.03), batches=6).bottleneck == "consumer"
    easy.batch_sampler.seek(0, 29)
    with pytest.raises(ValueError, match="too few to measure"):
        easy.headspace(lambda _batch: None)


def test_the_lock_is_named_only_where_threads_wait_for_it() -> None:
    assert holds_the_lock(wall=10, waited=5, decoding=38, cpu=10)
    assert not holds_the_lock(wall=10, waited=1, decoding=38, cpu=10)  # nobody waits
    assert not holds_the_lock(wall=10, waited=5, decoding=38, cpu=35)  # they get their cores
    assert not holds_the_lock(wall=10, waited=5, decoding=9, cpu=9)  # one thread, or time goes into reading
    assert not holds_the_lock(wall=0, waited=0, decoding=0, cpu=0)


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    recorder = Recorder(clock=lambda: now)
    watch = LockWatch(recorder, cores=8)
    with caplog.at_level(logging.WARNING):
        for _ in range(64 * 5):
            now += 0.1
            waited = Span("wait", now, 0.05, 0.0, 1, 1)
            recorder.delivered(1, waited=waited, fill=0, spans=[Span("decode", now, 0.4, 0.1, 1, 2)])
            watch.look()
    assert [record.message.count('mode="process"') for record in caplog.records] == [1]
    LockWatch(recorder, cores=1).look()


def test_bytes_of_batches() -> None:
    assert batch_bytes({"x": np.zeros((2, 4)), "k": ["ab", b"cd"], "t": (np.zeros(1, "u1"),)}) == 64 + 4 + 1
