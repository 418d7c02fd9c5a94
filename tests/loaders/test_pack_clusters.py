"""Packs on real clusters of Dask and Ray, whose workers are processes that know nothing but their surroundings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loaders.errors import PackExecutorError
from tests.loaders.test_pack_workers import UPPER, run, tree
from tests.loaders.test_packing import digits, packs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.loaders.conftest import Workshop

DEEP = bool(os.environ.get("FOREBAY_DEEP"))
ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def dask() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="NOT TESTED: the extra dask is not installed")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = ROOT
    try:
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster:
            yield cluster
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


@pytest.mark.parametrize("transform", [None, UPPER])
def test_dask_makes_the_same_objects(workshop: Workshop, dask: Any, transform: str | None) -> None:
    workshop.import_files(digits(60))
    run(workshop, "alone", transform=transform)
    names = packs(workshop)
    url = dask.scheduler_address.replace("tcp://", "dask://")
    report = run(workshop, "dask", executor=url, transform=transform)
    assert report.shards == len(names)
    assert (packs(workshop), tree(workshop, "dask")) == (names, tree(workshop, "alone"))


def test_a_killed_worker_of_dask_costs_nothing(workshop: Workshop, dask: Any) -> None:
    workshop.import_files(digits(60))
    run(workshop, "alone")
    names = packs(workshop)
    victim = next(iter(dask.workers.values())).pid
    killer = threading.Timer(0.2, os.kill, (victim, signal.SIGKILL))
    killer.start()
    run(workshop, "dask", executor=dask.scheduler_address.replace("tcp://", "dask://"))
    killer.join()
    assert (packs(workshop), tree(workshop, "dask")) == (names, tree(workshop, "alone"))


def test_no_scheduler_is_told(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="NOT TESTED: the extra dask is not installed")
    monkeypatch.setattr("loaders.packing.executors._CONNECT_SECONDS", 1)
    workshop.import_files(digits(5))
    with pytest.raises(PackExecutorError, match=r"dask://127\.0\.0\.1:9: no scheduler answers"):
        run(workshop, "never", executor="dask://127.0.0.1:9")


_RAY = """
import sys, warnings
warnings.simplefilter("ignore")
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
sys.argv = sys.argv[1:]
exec(compile(open(sys.argv[0]).read(), sys.argv[0], "exec"))
ray.shutdown()
"""


@pytest.mark.skipif(not DEEP, reason="starting Ray takes long: FOREBAY_DEEP=1 does it")
@pytest.mark.parametrize("transform", [None, UPPER])
def test_ray_makes_the_same_objects(workshop: Workshop, tmp_path: Path, transform: str | None) -> None:
    """In a process of its own: Ray leaves threads and warnings behind."""
    pytest.importorskip("ray", reason="NOT TESTED: the extra ray is not installed")
    from tests.loaders.test_pack_workers import PACKER

    workshop.import_files(digits(60))
    run(workshop, "alone", transform=transform)
    names = packs(workshop)
    (tmp_path / "packer.py").write_text(PACKER.replace("workers=workers", 'executor="ray://auto"'))
    done = subprocess.run(
        [sys.executable, "-c", _RAY, str(tmp_path / "packer.py"), str(tmp_path), "1", transform or ""],
        env={**os.environ, "PYTHONPATH": ROOT, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (packs(workshop), tree(workshop, "killed")) == (names, tree(workshop, "alone"))
