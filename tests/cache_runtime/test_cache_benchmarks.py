from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import cache_cycles, cache_hits, cache_readers, cache_scaling

if TYPE_CHECKING:
    from pathlib import Path


def test_the_benchmark_of_large_hits_runs(tmp_path: Path) -> None:
    result = cache_hits.run(objects=1, rounds=2, round_bytes=64 << 20, directory=tmp_path)
    assert len(result["rows"]) == 12
    assert "64 MiB" in cache_hits.report(result)


def test_the_benchmark_of_epochs_runs(tmp_path: Path) -> None:
    result = cache_cycles.run(epochs=3, scale=0.2, directory=tmp_path, only=("forebay", "lru"))
    assert len(result["rows"]) == 8
    assert "0.48" in cache_cycles.report(result)


def test_the_benchmark_of_many_readers_runs(tmp_path: Path) -> None:
    crowds = ("1 reader", "1 reader + filler")
    result = cache_readers.run(objects=200, rounds=2, seconds=0.05, directory=tmp_path, only=crowds)
    assert [row["crowd"] for row in result["rows"]] == [*crowds, *crowds]
    assert "filled" in cache_readers.report(result)


@pytest.mark.slow
def test_the_benchmark_of_scaling_asks_the_origin_once(tmp_path: Path) -> None:
    result = cache_scaling.run(scale=0.1, rounds=1, directory=tmp_path)
    assert [row["origin_most"] for row in result["rows"]] == [1, 0, 0, 0, 0, 0]
    assert "joined" in cache_scaling.report(result)
