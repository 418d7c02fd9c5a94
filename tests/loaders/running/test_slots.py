"""Fields decoded straight into the batch, out of a real repository."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from loaders.dataset import ShardDataset
from loaders.drawing import draw_of
from loaders.errors import CollateError, DecodeError
from loaders.running import ErrorPolicy, Loader, RawArray, SlotDecoder
from loaders.running.collating import Stacking, choose_collate
from loaders.running.leases import ArrayPool

if TYPE_CHECKING:
    from loaders.running import Mode
    from loaders.running.policies import OnError
    from tests.loaders.conftest import Workshop

N = 40


class NpyArray(RawArray):
    """A decoder of `.npy` files of one shape, as an example of a slot."""

    def into(self, data: memoryview, out: Any) -> None:
        array = np.load(io.BytesIO(data))
        if array.shape != self.shape:
            raise ValueError(f"shape {array.shape}")
        out[:] = array


class Drawn(RawArray):
    draws = True

    def into(self, data: memoryview, out: Any, draw: int = 0) -> None:
        out[:] = draw % 1000


def npy(number: int) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.full((2, 3), number, np.int32))
    return stream.getvalue()


def made(workshop: Workshop, *, broken: int | None = None, **options: Any) -> ShardDataset:
    files = {}
    for number in range(N):
        files[f"{number:03d}.npy"] = b"broken" if number == broken else npy(number)
        files[f"{number:03d}.raw"] = np.full(5, number, "<f4").tobytes()
        files[f"{number:03d}.cls"] = str(number).encode()
    commit = workshop.import_files(files)
    tree = workshop.repository.tree_of(commit)
    decode = {"npy": NpyArray((2, 3), np.int32), "raw": RawArray((5,), "<f4")}
    return ShardDataset.from_tree(tree, workshop.repository.root, workshop.client, decode=decode, **options)


def test_a_slot_decoder_is_a_decoder_and_ours_are_no_slots(workshop: Workshop) -> None:
    dataset = made(workshop)
    assert isinstance(RawArray((1,), "u1"), SlotDecoder)
    assert not isinstance(dataset.decoders["cls"], SlotDecoder)
    assert dataset[3]["raw"].tolist() == [3.0] * 5
    assert dataset[3]["npy"].tolist() == [[3] * 3] * 2


@pytest.mark.parametrize("mode", ["sync", "thread"])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_fields_are_decoded_into_the_batch(workshop: Workshop, mode: Mode, kind: Any) -> None:
    dataset = made(workshop)
    loader: Loader[Any] = Loader(dataset, 8, seed=3, mode=mode, workers=3, collate=kind)
    for step, batch in enumerate(loader):
        numbers = loader.sampler.batch_at(0, step)
        assert batch["cls"].tolist() == numbers
        assert batch["npy"][:, 1, 2].tolist() == numbers
        assert batch["raw"][:, 4].tolist() == numbers
        assert batch["npy"].shape == (8, 2, 3)
        assert batch["npy"].is_contiguous() if kind == "torch" else batch["npy"].flags.c_contiguous
    read, decode = loader.stats().stages["read"], loader.stats().stages["decode"]
    assert read.count == decode.count >= 5
    assert loader.stats().bytes_origin == dataset.stats().bytes_origin


def brighter(sample: dict[str, Any]) -> Any:
    sample["npy"] += 100  # in place
    return sample["npy"], {"raw": sample["raw"] * 2, "label": sample["cls"]}


@pytest.mark.parametrize("mode", ["sync", "thread"])
def test_a_transform_sees_arrays_and_may_change_or_replace_them(workshop: Workshop, mode: Mode) -> None:
    loader: Loader[Any] = Loader(made(workshop, transform=brighter), 8, seed=3, mode=mode, workers=2, collate="numpy")
    for array, rest in loader:
        assert (array[:, 0, 0] - 100).tolist() == rest["label"].tolist() == (rest["raw"][:, 0] / 2).tolist()


def test_a_bad_field_leaves_its_row_out(workshop: Workshop) -> None:
    dataset = made(workshop, broken=17)
    loader: Loader[Any] = Loader(dataset, 8, seed=3, workers=2, collate="numpy")
    with pytest.raises((ValueError, DecodeError)) as caught:
        list(loader)
    assert any("017" in note for note in caught.value.__notes__)
    hows: list[OnError] = ["skip", "replace"]
    for how in hows:
        policy = ErrorPolicy(how, max_fraction=1.0)
        loader = Loader(dataset, 8, seed=3, workers=2, collate="numpy", on_error=policy)
        batches = list(loader)
        assert all(batch["npy"][:, 0, 0].tolist() == batch["cls"].tolist() for batch in batches)
        assert sum(len(batch["npy"]) for batch in batches) == (N - 1 if how == "skip" else N)
        assert loader.stats().quarantined == (17,)


class DrawnAlone:
    """A random decoder whose values have no one shape."""

    draws = True

    def __call__(self, data: memoryview, draw: int = 0) -> Any:
        return np.full(1, draw % 1000)


@pytest.mark.parametrize("decoder", [Drawn((1,), np.int64), DrawnAlone()])
def test_draws_depend_on_seed_epoch_and_sample_only(workshop: Workshop, decoder: Any) -> None:
    files = {f"{number:03d}.raw": b"x" for number in range(N)}
    tree = workshop.repository.tree_of(workshop.import_files(files))

    def run(seed: int, mode: Mode) -> list[list[int]]:
        decode: Any = {"raw": decoder}
        dataset = ShardDataset.from_tree(tree, workshop.repository.root, workshop.client, decode=decode)
        loader: Loader[Any] = Loader(dataset, 8, seed=seed, mode=mode, workers=2, collate="numpy")
        return [batch["raw"][:, 0].tolist() for _ in range(2) for batch in loader]

    found = run(3, "sync")
    assert found == run(3, "thread")
    assert found[:5] != found[5:]
    assert found != run(4, "sync")
    assert draw_of(3, 0, 1) != draw_of(3, 0, 2)


def test_pooled_arrays_are_used_again_only_when_nothing_refers_to_them() -> None:
    pool = ArrayPool()
    array = pool.empty((4, 3), np.int32)
    place, row = array.__array_interface__["data"][0], array[2]
    del array
    assert pool.empty((4, 3), np.int32).__array_interface__["data"][0] != place
    del row
    assert place in {pool.empty((4, 3), np.int32).__array_interface__["data"][0] for _ in range(2)}
    assert pool.empty((0, 3), np.int32).shape == (0, 3)


SAMPLES: list[Any] = [
    {"a": 1, "b": 2.5, "c": "x", "d": np.arange(3), "e": (torch.ones(2), True), "f": [np.float32(1), b"y"]},
    {"a": 3, "b": 4.5, "c": "z", "d": np.arange(3) + 1, "e": (torch.zeros(2), False), "f": [np.float32(2), b"w"]},
]


def test_batches_are_those_of_torch() -> None:
    ours, theirs = choose_collate("torch")(SAMPLES), default_collate(SAMPLES)
    assert ours.keys() == theirs.keys()
    for name in "abd":
        assert torch.equal(ours[name], theirs[name])
        assert ours[name].dtype == theirs[name].dtype
    assert ours["c"] == theirs["c"]
    assert type(ours["e"]) is type(theirs["e"])
    assert torch.equal(ours["e"][0], theirs["e"][0])
    assert ours["f"][1] == list(theirs["f"][1])


def test_numpy_batches_need_no_torch() -> None:
    batch = Stacking("numpy")([{"a": 1, "b": np.arange(2), "c": None}] * 3)
    assert batch["a"].tolist() == [1, 1, 1]
    assert batch["b"].shape == (3, 2)
    assert batch["c"] == [None] * 3
    assert Stacking("numpy")([]) == []


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_what_does_not_fit_is_told(kind: Any) -> None:
    collate = choose_collate(kind)
    with pytest.raises(CollateError, match="fields a, another b"):
        collate([{"a": 1}, {"b": 1}])
    with pytest.raises(CollateError, match=r"sample\[1\].*cannot be stacked"):
        collate([(1, np.arange(2)), (1, np.arange(3))])
    with pytest.raises(CollateError, match="lengths"):
        collate([[1], [1, 2]])
    with pytest.raises(CollateError, match="cannot be stacked"):
        collate([{"a": object()}, {"a": object()}])
    with pytest.raises(ValueError, match="unknown collate"):
        choose_collate("jax")  # type: ignore[arg-type]
