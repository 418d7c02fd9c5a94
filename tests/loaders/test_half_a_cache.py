"""A cache of half of the data, read in epochs: eviction that knows the order could not hit more often than `keep`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cache_runtime import BlockStore, Client, Share
from loaders import ElasticBatchSampler
from sources import ObjectRef, Origins, StoreId, Version

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from loaders.ordering.choosing import OrderName

STORE = StoreId("test://halves")
SHARD_BYTES, SHARDS, PER_SHARD = 5 << 20, 40, 64
RECORD = SHARD_BYTES // PER_SHARD
BYTES = random.Random(0).randbytes(SHARD_BYTES)


class Shards:
    """A store in memory, and a data set of what is in it."""

    id = STORE
    fingerprint = "halves"
    shard_starts = np.arange(SHARDS + 1) * PER_SHARD

    def __len__(self) -> int:
        return SHARDS * PER_SHARD

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> memoryview:
        return memoryview(BYTES)[start : start + length]


def best_hits(epochs: list[npt.NDArray[np.int64]], room: int) -> list[int]:
    """Return the hits of each epoch with eviction of what is needed last (Belady), which may refuse what comes."""
    order = [int(number) for epoch in epochs for number in epoch]
    needed = [len(order)] * len(order)
    last: dict[int, int] = {}
    for place in reversed(range(len(order))):
        needed[place] = last.get(order[place], len(order))
        last[order[place]] = place
    kept: dict[int, int] = {}
    hits = [0] * len(epochs)
    for place, number in enumerate(order):
        hits[place // len(epochs[0])] += number in kept
        kept[number] = needed[place]
        if len(kept) > room:
            del kept[max(kept, key=kept.__getitem__)]
    return hits


@pytest.mark.parametrize("order", ["full", "stream"])
def test_keep_hits_as_often_as_eviction_by_next_use_could(tmp_path: Path, order: OrderName) -> None:
    data = Shards()
    origins = Origins()
    origins.add("", data)
    capacity = SHARDS * SHARD_BYTES // 2
    client = Client(
        origins,
        BlockStore.open(tmp_path / "cache", capacity_bytes=capacity),
        share=Share("halves", cycle_bytes=SHARDS * SHARD_BYTES),
    )
    refs = [ObjectRef(STORE, f"{shard}.tar", Version("1"), SHARD_BYTES) for shard in range(SHARDS)]
    sampler = ElasticBatchSampler(data, 64, seed=3, order=order)
    hits, epochs = [], []
    for epoch in range(4):
        sampler.seek(epoch, 0)
        batches = list(sampler)
        before = client.stats.snapshot()
        for batch in batches:
            shards, places = np.divmod(np.array(batch), PER_SHARD)
            client.read_ranges(refs, shards.tolist(), (places * RECORD).tolist(), [RECORD] * len(batch))
        hits.append((client.stats.snapshot() - before).reads_local / len(data))
        epochs.append(np.concatenate(batches))
    best = best_hits(epochs, len(data) // 2)
    assert best[1:3] == [len(data) // 2] * 2  # what is not here when an epoch begins is read once in it: no hit
    assert min(hits[1:]) > 0.46
    client.close()
