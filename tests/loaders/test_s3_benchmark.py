from __future__ import annotations

import pytest

from benchmarks.epoch_s3 import main


@pytest.mark.slow
def test_the_s3_benchmark_runs_small(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--scale", "0.02", "--rounds", "1", "--only", "forebay", "--latency", "0.005"]
    rounds = main(arguments)
    (run,) = rounds["forebay"]
    assert run["records"] == 400
    assert 1 < run["fetched_over_used"] < 1.3  # headers of tar, a manifest
    assert run["requests"] > 1
    assert "| forebay (1 of 1 runs) |" in capsys.readouterr().out
