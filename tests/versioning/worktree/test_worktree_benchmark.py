from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_benchmark_of_working_copies_runs(tmp_path: Path) -> None:
    options = ["--scale", "0.05", "--size", "10", "--rounds", "2", "--only", "ds (in process)"]
    places = ["--directory", str(tmp_path / "data"), "--json", str(tmp_path / "out.json")]
    (tmp_path / "data").mkdir()
    subprocess.run(
        [sys.executable, "-m", "benchmarks.worktree", *options, *places],
        cwd=ROOT,
        check=True,
        timeout=60,
        env={**os.environ, "FOREBAY_HOME": str(tmp_path)},
    )
    assert len(json.loads((tmp_path / "out.json").read_text())["seconds"]["checkout"]["ds (in process)"]) == 2
