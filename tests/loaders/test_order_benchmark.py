from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.order import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_order_benchmark_runs_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "order.json"
    found = main(["--scale", "0.002", "--rounds", "1", "--json", str(output)])
    assert json.loads(output.read_text()) == found
    by_name = {row["order"]: row for row in found["quality"]}
    assert by_name["none"]["sample_entropy"] == 0
    assert all(row["state_bytes"] < 500 for row in found["start"])
    assert "| stream, 64 lanes |" in capsys.readouterr().out
