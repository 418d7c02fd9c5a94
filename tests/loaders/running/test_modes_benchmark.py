from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.epoch_modes import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_the_modes_benchmark_runs_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--scale", "0.01", "--rounds", "2", "--only", "sync,thread,torch0", "--work", "raw,python"]
    rows = main([*options, "--json", str(tmp_path / "modes.json")])
    assert [(row["work"], row["loader"]) for row in rows] == [
        (work, loader) for work in ("raw", "python") for loader in ("sync", "thread", "torch0")
    ]
    assert all(row["cpu_us"]["median"] > 0 for row in rows)
    assert "| raw | thread |" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "modes.json").read_text())["rows"]) == 6
