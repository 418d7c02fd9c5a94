"""The same operator with a real kubelet and containerd: `make kubelet`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.services import containerd
from tests.services.kube import missing
from tests.services.kube.real import ALONE
from tests.services.requiring import require

pytestmark = pytest.mark.kubelet
SECONDS = 500


def test_a_worker_runs_in_a_real_container() -> None:
    require(missing())
    require(containerd.missing())
    with tempfile.TemporaryDirectory(prefix="forebay-kubelet-", dir="/var/tmp") as directory:
        module = "tests.dataset_controller.scenarios.on_kubelet"
        done = subprocess.run(
            [*ALONE, sys.executable, "-m", module, directory],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        log = Path(directory, "kubelet.log")
        told = log.read_text()[-2000:] if done.returncode and log.exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + told
    steps = [line for line in done.stdout.splitlines() if not line.startswith("unpacking")]
    assert steps == ["node ready", "worker ready", "worker back", "nothing left"]
