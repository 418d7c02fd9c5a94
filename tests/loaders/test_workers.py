"""DataLoader workers with a real S3 origin: forked and spawned, with a cold cache and a loaded one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from torch.utils.data import DataLoader

from cache_runtime import BlockStore, Client, plan_load, run_load
from loaders import ElasticBatchSampler, ShardDataset
from loaders.records import CommitRecords
from sources import Location, Origins, scan
from sources.s3 import S3Store
from tests.conftest import BUCKET
from versioning import Repository, stage_import

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.weed import S3Server

N = 48
SIZES = {"": 0, "small": 9000, "mib": 1 << 20, "block": 4 << 20, "large": (4 << 20) + 1}


def body(number: int) -> bytes:
    size = list(SIZES.values())[number % 12] if number % 12 < len(SIZES) else 700 + number
    return bytes([number]) * size


@pytest.fixture
def dataset(s3: S3Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ShardDataset]:
    store, top = S3Store(BUCKET, s3.options), f"workers/{request.node.name}/"
    for number in range(N):
        store.put(f"{top}raw/{number:03d}.bin", body(number))
    repository = Repository.init(store, f"{top}repo/")
    changes = stage_import(None, scan(store, f"{top}raw/"), store=store.id, source_prefix=f"{top}raw/", target="")
    commit = repository.commit_changes("main", changes, message="m", author="Ada <a@example.org>", base=None)
    origins = Origins()
    origins.add(top, store)
    client = Client(origins, BlockStore.open(tmp_path / "cache", capacity_bytes=128 << 20))
    yield ShardDataset.from_tree(repository.tree_of(commit), repository.root, client, decode=None)
    client.close()


def same(batch: list[Any]) -> list[Any]:
    return batch


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("loaded", [False, True], ids=["cold", "loaded"])
def test_workers_deliver_every_byte(dataset: ShardDataset, s3: S3Server, context: str, loaded: bool) -> None:
    assert isinstance(dataset.records, CommitRecords)
    client, samples = dataset.records.client, dataset.records.samples
    dataset[1]  # the parent has used its store and its origin before it forks
    if loaded:
        objects = samples.objects.refs(list(range(N)))
        assert run_load(client, plan_load(client, [Location(ref, 0, ref.size) for ref in objects])).verified
    before = s3.requests()
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=ElasticBatchSampler(dataset, 8, seed=2),
        num_workers=2,
        collate_fn=same,
        multiprocessing_context=context,
        persistent_workers=True,
        timeout=60,
    )
    for _epoch in range(2):
        seen = {sample["__key__"]: sample["bin"] for batch in loader for sample in batch}
        assert seen == {f"{number:03d}": body(number) for number in range(N)}
    del loader
    assert not loaded or s3.requests() == before
    assert dataset[3] == {"__key__": samples.keys[3].as_py(), "bin": body(int(samples.keys[3].as_py()))}
