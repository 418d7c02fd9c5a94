from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader, FsspecWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

import ds

if TYPE_CHECKING:
    from tests.ds.shop import Shop

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")


def state_of(value: int) -> dict[str, torch.Tensor]:
    return {f"layer-{number}": torch.full((256, 1024), value + number, dtype=torch.float32) for number in range(8)}


def zeros() -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in state_of(0).items()}


def test_one_process_saves_and_loads_in_one_commit(shop: Shop) -> None:
    for step in (1, 2):
        with ds.transaction("ckpt@runs", message=f"step {step}") as transaction:
            writer = FsspecWriter(f"ds://ckpt@runs/step-{step}", thread_count=2, transaction=transaction)
            save(state_of(step), storage_writer=writer, no_dist=True)
    assert [commit.message for _, commit in shop.dataset.repository.log("runs")] == ["step 2", "step 1"]
    assert "step-2/.metadata" in shop.paths()
    assert not any(path.endswith(".tmp") for path in shop.paths())
    before = shop.dataset.client.stats.snapshot()
    for step in (1, 2):
        loaded = zeros()
        load(loaded, storage_reader=FsspecReader(f"ds://ckpt@runs/step-{step}"), no_dist=True)
        assert all(torch.equal(loaded[name], tensor) for name, tensor in state_of(step).items())
    assert (shop.dataset.client.stats.snapshot() - before).bytes_origin == 0


def test_a_save_that_fails_leaves_no_checkpoint(shop: Shop) -> None:
    class Failing:
        def __reduce__(self) -> str:
            raise ZeroDivisionError

    transaction = ds.transaction("ckpt@runs")
    writer = FsspecWriter("ds://ckpt@runs/step-1", transaction=transaction)
    state = {**state_of(1), "bad": Failing()}
    with pytest.raises(CheckpointException, match="ZeroDivisionError"), transaction:
        save(state, storage_writer=writer, no_dist=True)
    assert shop.dataset.repository.head("runs") is None
    assert shop.waiting() == []


def test_two_ranks_save_with_and_without_a_transaction(shop: Shop, tmp_path: Path) -> None:
    environment = {**os.environ, **shop.environment, "OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(
        [sys.executable, "-m", "tests.ds.rank", "2", str(tmp_path / "rendezvous")],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = job.communicate(timeout=90)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    assert job.returncode == 0, said
    assert shop.paths() == [
        f"{name}/{file}" for name in ("alone", "step-2") for file in (".metadata", "__0_0.distcp", "__1_0.distcp")
    ]
    messages = [commit.message for _, commit in shop.dataset.repository.log("runs")]
    assert messages[0] == "step 2"
    assert len(messages) == 5  # without a transaction each file is a commit
    assert shop.waiting() == []
