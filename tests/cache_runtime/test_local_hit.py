from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import local_hit

if TYPE_CHECKING:
    from pathlib import Path


def test_the_benchmark_of_local_hits_runs(tmp_path: Path) -> None:
    ways = ("client.read", "os.pread", "file", "fsspec")
    result = local_hit.run(objects=50, rounds=2, directory=tmp_path, only=ways)
    assert tuple(result["microseconds"]) == (*ways, "client.read_many")
    assert "os.pread" in local_hit.report(result)
