from __future__ import annotations

import importlib.util
from pathlib import Path


def test_the_benchmark_of_local_hits_runs(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "local_hit.py"
    spec = importlib.util.spec_from_file_location("local_hit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = module.run(objects=50, rounds=2, directory=tmp_path)
    assert set(result["microseconds"]) == {"client.read", "os.pread", "file"}
