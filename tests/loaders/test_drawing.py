"""Random crops are the same in every way of loading, and others in every epoch."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from loaders import ElasticBatchSampler, Mixture, ShardDataset
from loaders.decoding import ImageCrop
from loaders.drawing import Drawn, draws_of
from loaders.running import Loader
from tests.loaders.test_images import encoded, picture

if TYPE_CHECKING:
    from tests.loaders.conftest import Workshop


@pytest.fixture
def crops(workshop: Workshop) -> ShardDataset:
    commit = workshop.import_files({f"{i:02}.jpg": bytes(encoded(picture(60, 80, seed=i), "JPEG")) for i in range(12)})
    tree = workshop.repository.tree_of(commit)
    decode = {"jpg": ImageCrop((16, 16), flip=0.5)}
    return ShardDataset.from_tree(tree, workshop.repository.root, workshop.client, decode=decode)


def identity(batch: Any) -> Any:
    return batch


def by_key(batches: Any) -> dict[str, bytes]:
    return {sample["__key__"]: sample["jpg"].tobytes() for batch in batches for sample in batch}


def stock(crops: ShardDataset, epoch: int, batch: int, workers: int = 0) -> dict[str, bytes]:
    sampler = ElasticBatchSampler(crops, batch, seed=5)
    sampler.set_epoch(epoch)
    loader: DataLoader[Any] = DataLoader(
        crops,  # type: ignore[arg-type]
        batch_sampler=sampler,
        collate_fn=identity,
        num_workers=workers,
    )
    return by_key(loader)


def test_a_crop_depends_on_seed_epoch_and_sample_alone(crops: ShardDataset) -> None:
    first = stock(crops, 0, 4)
    assert len(first) == 12
    assert first == stock(crops, 0, 3)
    assert first == stock(crops, 0, 4, workers=2)
    second = stock(crops, 1, 4)
    assert all(first[key] != second[key] for key in first)


def test_the_loader_takes_the_same_crops(crops: ShardDataset) -> None:
    for mode in ("sync", "thread"):
        loader: Loader[Any] = Loader(crops, 4, seed=5, mode=mode, workers=2, collate=identity)
        found = {}
        for batch in loader:
            found.update(by_key([batch]))
        assert found == stock(crops, 0, 4)


def test_single_samples_are_those_of_the_first_epoch_of_seed_zero(crops: ShardDataset) -> None:
    assert np.array_equal(crops[3]["jpg"], crops.__getitems__(Drawn([3], 0, 0))[0]["jpg"])
    assert not np.array_equal(crops[3]["jpg"], crops.__getitems__(Drawn([3], 0, 1))[0]["jpg"])


def test_a_mixture_hands_the_draws_on(crops: ShardDataset) -> None:
    mixed = Mixture({"a": (crops, 0.5), "b": (crops, 0.5)})
    first, second = (mixed.__getitems__(Drawn([2, 14], 5, epoch)) for epoch in (0, 1))
    assert np.array_equal(first[0]["jpg"], crops.__getitems__(Drawn([2], 5, 0))[0]["jpg"])
    assert np.array_equal(first[1]["jpg"], first[0]["jpg"])
    assert not np.array_equal(first[0]["jpg"], second[0]["jpg"])


def test_a_batch_keeps_its_draws_on_the_way_to_a_worker() -> None:
    batch = Drawn([1, 2], 7, 3)
    again = pickle.loads(pickle.dumps(batch))
    assert (again, again.seed, again.epoch) == ([1, 2], 7, 3)
    assert draws_of(again) == draws_of(batch) != draws_of([1, 2])
