from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache_runtime.protocol import ErrorKind
from cache_runtime.worker.openapi import describe
from tests.cache_runtime.worker.workers import worker

if TYPE_CHECKING:
    from tests.cache_runtime.lake import Lake

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
TOKEN = "token-of-schemathesis"


def test_the_stored_description_is_the_served_one() -> None:
    stored = json.loads((REFERENCE / "openapi.json").read_text())
    assert stored == describe(), "python -m cache_runtime.worker.openapi > docs/reference/openapi.json"


def test_the_reference_names_every_operation_and_every_error() -> None:
    page = (REFERENCE / "worker-api.md").read_text()
    for path, operations in describe()["paths"].items():
        for method in operations.keys() & {"get", "head", "post", "delete"}:
            assert re.search(rf"^### .*`{method.upper()} {re.escape(path)}`", page, re.MULTILINE), (method, path)
    assert set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)) >= {kind.value for kind in ErrorKind}


@pytest.mark.filterwarnings("ignore")
def test_schemathesis_finds_nothing_against_a_running_worker(lake: Lake, tmp_path: Path) -> None:
    with worker(lake.root, tmp_path / "cache", tokens=[TOKEN], log_level="WARNING") as running:
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", str(REFERENCE / "openapi.json")),
            *("--url", running.url, "--header", f"Authorization: Bearer {TOKEN}", "--max-examples", "5"),
            *("--phases", "coverage,fuzzing", "--seed", "1", "--no-color"),
            # an id is the hash of the other parameters, which a schema cannot say
            *("--exclude-checks", "positive_data_acceptance"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert running.ask("GET", "/readyz").status == 200
        assert "Traceback" not in running.process.log.read_text()
