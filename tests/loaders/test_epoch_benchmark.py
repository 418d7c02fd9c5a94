from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.epoch import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_the_epoch_benchmark_runs_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "epoch.json"
    rows = main(["--records", "200", "--rounds", "1", "--loaders", "forebay,files", "--json", str(output)])
    assert [row["loader"] for row in rows] == ["forebay", "files"]
    assert all(row["cpu_us"] > 0 for row in rows)
    assert "| forebay |" in capsys.readouterr().out
    written = json.loads(output.read_text())
    assert written["settings"]["records"] == 200
    assert {len(runs) for runs in written["rounds"].values()} == {1}
