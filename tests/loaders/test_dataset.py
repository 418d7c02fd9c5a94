from __future__ import annotations

import io
import json
import pickle
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from loaders import (
    CorruptSampleError,
    DecodeError,
    ElasticBatchSampler,
    MissingFieldError,
    ResumableLoader,
    SampleIndex,
    ShardDataset,
    ShardLayout,
    StallMeter,
    pack,
)
from loaders.records import CommitRecords
from tests.loaders.conftest import AUTHOR, Workshop

if TYPE_CHECKING:
    from collections.abc import Mapping

N = 60


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 6), value, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {
    **{f"images/{i % 10}/{i:03d}.png": png(i) for i in range(N)},
    **{f"labels/{i:03d}.json": json.dumps({"label": i % 10, "number": i}).encode() for i in range(N)},
}


def open_dataset(workshop: Workshop, *, packed: bool = True, **options: Any) -> ShardDataset:
    if not workshop.repository.branches():
        workshop.import_files(FILES)
    if packed:
        layout = ShardLayout(shuffle=True, seed=7, shard_size=20_000, key="stem")
        pack(workshop.repository, "main", workshop.client, layout=layout, branch="main", author=AUTHOR)
    tree = workshop.repository.tree("main")
    return ShardDataset.from_tree(tree, workshop.repository.root, workshop.client, **{"key": "stem"} | options)


def samples_of(dataset: ShardDataset) -> SampleIndex:
    assert isinstance(dataset.records, CommitRecords)
    return dataset.records.samples


def number_and_image(sample: Mapping[str, Any]) -> tuple[int, torch.Tensor]:
    return sample["json"]["number"], torch.from_numpy(sample["png"])


def same(batch: list[Any]) -> list[Any]:
    return batch


def keys_of(batches: Any) -> list[list[str]]:
    return [[sample["__key__"] for sample in batch] for batch in batches]


@pytest.mark.parametrize("packed", [True, False])
def test_every_sample_decodes_wherever_its_files_lie(workshop: Workshop, packed: bool) -> None:
    dataset = open_dataset(workshop, packed=packed)
    assert len(dataset) == N
    numbers = set()
    for sample in dataset.__getitems__(range(N)):
        number = sample["json"]["number"]
        numbers.add(number)
        assert sample["__key__"] == f"{number:03d}"
        assert np.array_equal(sample["png"], np.full((4, 6), number))
    assert numbers == set(range(N))


def test_one_sample_equals_the_same_in_a_batch(workshop: Workshop) -> None:
    dataset = open_dataset(workshop, decode=None)
    batch = dataset.__getitems__([5, 0, 5, -1])
    assert batch == [dataset[5], dataset[0], dataset[5], dataset[N - 1]]
    assert batch[0] == {
        "__key__": batch[0]["__key__"],
        **{path.rpartition(".")[2]: data for path, data in FILES.items() if f"/{batch[0]['__key__']}." in path},
    }


def test_a_number_outside_is_an_index_error_so_plain_loops_end(workshop: Workshop) -> None:
    dataset = open_dataset(workshop)
    with pytest.raises(IndexError, match="sample 60 is outside of a data set of 60 samples"):
        dataset[N]
    with pytest.raises(IndexError, match="sample -61"):
        dataset.__getitems__([0, -N - 1])
    assert dataset.__getitems__([]) == []
    assert len(list(dataset)) == N  # type: ignore[call-overload]


def test_fields_where_decode_and_transform(workshop: Workshop) -> None:
    dataset = open_dataset(
        workshop,
        fields=["json"],
        where=lambda key: key.endswith("7"),
        decode={"json": lambda data: bytes(data).decode()},
        transform=lambda sample: sample["__key__"] + sample["json"],
    )
    assert sorted(dataset.__getitems__(range(len(dataset)))) == [
        f"{i:03d}" + FILES[f"labels/{i:03d}.json"].decode() for i in range(7, N, 10)
    ]


def test_a_field_that_some_samples_lack_is_refused(workshop: Workshop) -> None:
    workshop.import_files({**FILES, "images/0/stray.png": png(1)})
    with pytest.raises(MissingFieldError, match="1 of 61 samples have no field 'json': stray;"):
        open_dataset(workshop, packed=False, fields=["png", "json"])


def test_a_bad_image_names_sample_field_and_object(workshop: Workshop) -> None:
    workshop.import_files({"images/0/000.png": b"not a PNG", "images/1/001.png": png(1)[:45]})
    dataset = open_dataset(workshop, packed=False)
    with pytest.raises(
        DecodeError, match=r"sample 000, field png: cannot decode 9 bytes: .*images/0/000\.png"
    ) as caught:
        dataset[0]
    assert (caught.value.key, caught.value.field) == ("000", "png")
    assert caught.value.__cause__ is not None
    with pytest.raises(DecodeError, match="sample 001, field png"):
        dataset[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_keeps_its_type_and_text_through_a_dataloader(workshop: Workshop, workers: int) -> None:
    workshop.import_files({"labels/000.json": b"{"})
    loader: DataLoader[Any] = DataLoader(
        open_dataset(workshop, packed=False, key="path"),  # type: ignore[arg-type]
        batch_size=4,
        num_workers=workers,
        collate_fn=same,
    )
    with pytest.raises(DecodeError, match="sample labels/000, field json: cannot decode 1 bytes: JSONDecodeError"):
        list(loader)


def test_a_failing_transform_is_raised_as_it_is_with_the_sample_noted(workshop: Workshop) -> None:
    dataset = open_dataset(workshop, transform=lambda sample: sample["missing"])
    with pytest.raises(KeyError) as caught:
        dataset[3]
    assert caught.value.__notes__ == [f"in the transform of sample {samples_of(dataset).keys[3]}"]


def test_verify_finds_bytes_that_are_not_those_committed(workshop: Workshop) -> None:
    good = samples_of(open_dataset(workshop))
    assert len(ShardDataset(CommitRecords(good, workshop.client), verify=True).__getitems__(range(N))) == N
    crcs = good.member_crc.copy()
    crcs[2 * 7] ^= 1
    damaged = ShardDataset(CommitRecords(replace(good, member_crc=crcs), workshop.client), verify=True)
    with pytest.raises(CorruptSampleError, match=f"sample {good.keys[7]}, field json: its crc32c is"):
        damaged.__getitems__(range(N))
    unknown = ShardDataset(
        CommitRecords(replace(good, member_crc=np.full_like(crcs, -1)), workshop.client), verify=True
    )
    assert len(unknown.__getitems__(range(N))) == N


def test_an_empty_file_is_a_value(workshop: Workshop) -> None:
    workshop.import_files({"a.txt": b"", "a.json": b"1"})
    dataset = open_dataset(workshop)
    assert dataset[0] == {"__key__": "a", "txt": "", "json": 1}
    assert ShardDataset(CommitRecords(samples_of(dataset), workshop.client), verify=True)[0] == dataset[0]


def test_the_second_epoch_reads_nothing_from_the_origin(workshop: Workshop) -> None:
    dataset = open_dataset(workshop)
    dataset.__getitems__(range(N))
    before = dataset.stats()
    dataset.__getitems__(range(N))
    spent = dataset.stats() - before
    assert spent.reads_origin == 0
    assert spent.bytes_local == samples_of(dataset).size


def test_a_dataset_pickles(workshop: Workshop) -> None:
    dataset = open_dataset(workshop, decode=None)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.__getitems__([3, 1]) == dataset.__getitems__([3, 1])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_default_collate_makes_tensors(workshop: Workshop, workers: int) -> None:
    dataset = open_dataset(workshop, transform=number_and_image)
    sampler = ElasticBatchSampler(dataset, 16, seed=1)
    meter = StallMeter(DataLoader(dataset, batch_sampler=sampler, num_workers=workers))  # type: ignore[arg-type]
    seen = []
    for numbers, images in meter:
        assert images.shape[1:] == (4, 6)
        assert torch.equal(images[:, 0, 0], numbers.to(torch.uint8))
        seen += numbers.tolist()
    assert sorted(seen) == list(range(N))
    assert meter.report().samples == N


def resumable(dataset: ShardDataset, *, workers: int = 0, rank: int = 0, world: int = 1) -> ResumableLoader[Any]:
    sampler = ElasticBatchSampler(dataset, 8, seed=3, rank=rank, world_size=world)
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=same,
        timeout=60 if workers else 0,
    )
    return ResumableLoader(loader)


def test_workers_and_epochs_do_not_change_the_batches(workshop: Workshop) -> None:
    dataset = open_dataset(workshop)
    runs = [[keys_of(loader), keys_of(loader)] for loader in (resumable(dataset), resumable(dataset, workers=2))]
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][1]
    assert sorted(chain(*runs[0][0])) == sorted(chain(*runs[0][1])) == [f"{i:03d}" for i in range(N)]


def test_resume_at_every_step_equals_the_unbroken_run(workshop: Workshop) -> None:
    dataset = open_dataset(workshop)
    unbroken = keys_of(resumable(dataset)) + keys_of_second_epoch(dataset)
    loader = resumable(dataset)
    states = [loader.state_dict()]
    for _epoch in range(2):
        states += [loader.state_dict() for _batch in loader]
    for step, state in enumerate(states[:-1]):
        other = resumable(dataset)
        other.load_state_dict(json.loads(json.dumps(state)))
        rest = keys_of(other) + (keys_of(other) if state["epoch"] == 0 else [])
        assert rest == unbroken[step:]


def keys_of_second_epoch(dataset: ShardDataset) -> list[list[str]]:
    loader = resumable(dataset)
    loader.set_epoch(1)
    return keys_of(loader)


@pytest.mark.parametrize("step", [1, 5, 7])
def test_resume_from_workers_counts_what_was_delivered_not_what_was_prefetched(workshop: Workshop, step: int) -> None:
    dataset = open_dataset(workshop)
    unbroken = keys_of(resumable(dataset))
    loader = resumable(dataset, workers=2)
    batches = iter(loader)
    first = keys_of(next(batches) for _ in range(step))
    state = loader.state_dict()
    del batches
    assert first == unbroken[:step]
    for world in (1, 2, 4):
        rest = []
        for rank in range(world):
            other = resumable(dataset, workers=2 if rank == 0 else 0, rank=rank, world=world)
            other.load_state_dict(state)
            rest.append(keys_of(other))
        assert [list(chain(*parts)) for parts in zip(*rest, strict=True)] == unbroken[step:]


def test_a_broken_iteration_goes_on_where_it_was(workshop: Workshop) -> None:
    dataset = open_dataset(workshop)
    unbroken = keys_of(resumable(dataset))
    loader = resumable(dataset)
    assert len(loader) == len(unbroken)
    batches = iter(loader)
    got = keys_of([next(batches), next(batches)])
    assert got + keys_of(loader) == unbroken
    assert loader.epoch == 1


def test_another_sampler_cannot_be_resumed(workshop: Workshop) -> None:
    loader: DataLoader[Any] = DataLoader(open_dataset(workshop), batch_size=8)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the loader's batch_sampler is BatchSampler, which cannot be resumed"):
        ResumableLoader(loader)


def test_a_state_of_other_samples_is_refused(workshop: Workshop) -> None:
    state = resumable(open_dataset(workshop)).state_dict()
    other = resumable(open_dataset(workshop, where=lambda key: key != "007"))
    with pytest.raises(ValueError, match="its samples is"):
        other.load_state_dict(state)


def test_an_index_is_made_once_and_shared(workshop: Workshop) -> None:
    index = samples_of(open_dataset(workshop))
    images = ShardDataset(CommitRecords(index.select(["png"]), workshop.client))
    labels = ShardDataset(CommitRecords(index.select(["json"]), workshop.client))
    assert isinstance(index, SampleIndex)
    assert images[4]["__key__"] == labels[4]["__key__"]
    assert set(images[4]) == {"__key__", "png"}
