from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks import random_access
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


@pytest.mark.slow
def test_the_random_access_benchmark_runs_small(capsys: pytest.CaptureFixture[str]) -> None:
    rows = random_access.main(["--scale", "0.01", "--rounds", "1", "--contestants", "forebay,forebay-views,files"])
    assert [row["contestant"] for row in rows] == ["forebay", "forebay-views", "files"]
    assert all(row["one_cpu_us"] > 0 for row in rows)
    assert rows[0]["many_cpu_us"] > 0
    assert rows[2]["many_cpu_us"] is None
    assert "| forebay-views |" in capsys.readouterr().out
