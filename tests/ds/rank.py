"""A job whose ranks save and load a checkpoint: python -m tests.ds.rank WORLD_SIZE RENDEZVOUS_FILE."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import torch
import torch.distributed
from torch.distributed.checkpoint._fsspec_filesystem import FsspecWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import ds

ROWS = 4096


def state_of(mesh: Any, value: float) -> dict[str, Any]:
    weights = torch.arange(ROWS * 64, dtype=torch.float32).reshape(ROWS, 64) + value
    return {"weights": distribute_tensor(weights, mesh, [Shard(0)]), "step": torch.tensor(value)}


def work(rank: int, world_size: int, rendezvous: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
    mesh = init_device_mesh("cpu", (world_size,))
    save(state_of(mesh, 1.0), checkpoint_id="ds://ckpt@runs/alone")
    with ds.transaction("ckpt@runs", message="step 2") as transaction:
        save(state_of(mesh, 2.0), storage_writer=FsspecWriter("ds://ckpt@runs/step-2", transaction=transaction))
        parts: list[Any] = [None] * world_size
        torch.distributed.all_gather_object(parts, transaction.hand_over() if rank else None)
        for part in parts[1:] if rank == 0 else []:
            transaction.take_over(part)
    torch.distributed.barrier()  # now the commit is there for everybody
    for name, value in (("alone", 1.0), ("step-2", 2.0)):
        loaded = state_of(mesh, 0.0)
        load(loaded, checkpoint_id=f"ds://ckpt@runs/{name}")
        wanted = state_of(mesh, value)
        assert torch.equal(loaded["weights"].to_local(), wanted["weights"].to_local())
        assert torch.equal(loaded["step"], wanted["step"])
    torch.distributed.destroy_process_group()


def main(world_size: int, rendezvous: str) -> int:
    """Fork the ranks, so that torch is imported once; return how many failed."""
    children = [fork(rank, world_size, rendezvous) for rank in range(world_size)]
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


def fork(rank: int, world_size: int, rendezvous: str) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work(rank, world_size, rendezvous)
        status = 0
    except Exception:  # noqa: BLE001 - told to whoever started us
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
