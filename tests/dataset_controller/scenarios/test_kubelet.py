"""The same operator with a real kubelet and containerd: `make kubelet`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.services import containerd, fuse
from tests.services.kube import missing
from tests.services.kube.real import ALONE
from tests.services.requiring import require

pytestmark = pytest.mark.kubelet
SECONDS = 500


def test_a_worker_runs_in_a_real_container() -> None:
    assert steps_of("on_kubelet") == ["node ready", "worker ready", "worker back", "nothing left"]


def test_pods_read_a_dataset_as_a_volume_of_a_real_kubelet() -> None:
    require(fuse.missing())
    steps = [
        "driver registered",
        "inline volume read",
        "claim read",
        "read after another driver came",
        "nothing mounted",
    ]
    assert steps_of("volumes_on_kubelet") == steps


def steps_of(story: str) -> list[str]:
    """Run a story in namespaces of its own, and return what it printed."""
    require(missing())
    require(containerd.missing())
    with tempfile.TemporaryDirectory(prefix="forebay-kubelet-", dir="/var/tmp") as directory:
        module = f"tests.dataset_controller.scenarios.{story}"
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
    return [line for line in done.stdout.splitlines() if not line.startswith("unpacking")]
