"""A cache of half of the data, read in epochs: eviction that knows the order could not hit more often than `keep`.

What is not kept is fetched record by record: a block of 4 MiB for a record of 14 KB would be 300 times too much.
"""

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
SMALL_RECORD, SMALL_PER_SHARD, FEW_SHARDS = 14 << 10, 1024, 8
BYTES = random.Random(0).randbytes(SMALL_RECORD * SMALL_PER_SHARD)


class Shards:
    """A store in memory, and a data set of what is in it."""

    id = STORE
    fingerprint = "halves"

    def __init__(self, shards: int, per_shard: int) -> None:
        self.shard_starts = np.arange(shards + 1) * per_shard

    def __len__(self) -> int:
        return int(self.shard_starts[-1])

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
    data = Shards(SHARDS, PER_SHARD)
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


@pytest.mark.parametrize("ahead", [0, 4])
@pytest.mark.parametrize("order", ["full", "stream"])
def test_an_epoch_fetches_what_is_not_kept_and_no_more(tmp_path: Path, order: OrderName, ahead: int) -> None:
    data = Shards(FEW_SHARDS, SMALL_PER_SHARD)
    size = SMALL_RECORD * SMALL_PER_SHARD
    total = FEW_SHARDS * size
    origins = Origins()
    origins.add("", data)
    share = Share("halves", cycle_bytes=total)
    client = Client(origins, BlockStore.open(tmp_path / "cache", capacity_bytes=total // 2), share=share)
    refs = [ObjectRef(STORE, f"{shard}.tar", Version("1"), size) for shard in range(FEW_SHARDS)]
    sampler = ElasticBatchSampler(data, 64, seed=3, order=order)
    fetched = []
    for epoch in range(4):
        sampler.seek(epoch, 0)
        found = [np.divmod(np.array(batch), SMALL_PER_SHARD) for batch in sampler]
        batches = [(shards.tolist(), (n * SMALL_RECORD).tolist(), [SMALL_RECORD] * len(n)) for shards, n in found]
        before = client.stats.snapshot()
        for step, batch in enumerate(batches):
            for coming in batches[step + ahead : step + ahead + 1] if ahead else ():
                client.will_need(refs, *coming)
            client.read_ranges(refs, *batch)
        fetched.append((client.stats.snapshot() - before).bytes_origin / total)
    assert fetched[0] < 1.03
    assert max(fetched[1:]) < 0.57  # 0.5, and what is left of the cache beside its blocks: one is 3.6 %
    client.close()
