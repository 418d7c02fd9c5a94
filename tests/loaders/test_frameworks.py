"""jax, TensorFlow, Paddle and Grain get the batches that plain Python gets; each where it is installed."""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loaders import ShardDataset
from loaders.errors import MissingExtraError
from loaders.frameworks import to_jax, to_paddle, to_tf
from loaders.running import Loader
from tests.loaders.running.samples import Numbers, expected

if TYPE_CHECKING:
    from tests.loaders.conftest import Workshop

Pair = namedtuple("Pair", "x y")


def batches(sizes: tuple[int, ...] = (4, 4, 3)) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [
        {
            "__key__": [f"sample-{number}-{i}" for i in range(size)],
            "pixels": rng.integers(0, 256, (size, 5, 6, 3), dtype=np.uint8),
            "more": Pair(rng.random((size, 2), dtype=np.float32), [np.arange(size, dtype=np.int32)]),
        }
        for number, size in enumerate(sizes)
    ]


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert np.array_equal(np.asarray(found["pixels"]), wanted["pixels"])
    assert np.asarray(found["pixels"]).dtype == np.uint8
    assert isinstance(found["more"], Pair)
    assert np.array_equal(np.asarray(found["more"].x), wanted["more"].x)
    assert np.array_equal(np.asarray(found["more"].y[0]), wanted["more"].y[0])


def test_jax_gets_its_arrays() -> None:
    jax = pytest.importorskip("jax")
    wanted = batches()
    for found, batch in zip(to_jax(wanted), wanted, strict=True):
        assert isinstance(found["pixels"], jax.Array)
        assert found["__key__"] == batch["__key__"]
        same(found, batch)


def test_jax_gets_arrays_that_are_sharded() -> None:
    jax = pytest.importorskip("jax")
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    (found,) = to_jax([{"x": np.arange(8.0, dtype=np.float32)}], sharding=sharding)
    assert found["x"].sharding == sharding
    assert found["x"].tolist() == list(range(8))


def test_no_batch_is_taken_before_it_is_asked_for() -> None:
    pytest.importorskip("jax")
    taken = []

    def source() -> Any:
        for batch in batches():
            taken.append(1)
            yield batch

    found = to_jax(source())
    next(found)
    assert len(taken) == 1


def test_tensorflow_gets_a_dataset() -> None:
    tf = pytest.importorskip("tensorflow")
    wanted = batches()
    dataset = to_tf(wanted)
    assert isinstance(dataset, tf.data.Dataset)
    for _ in range(2):  # every iteration is whole
        for found, batch in zip(dataset, wanted, strict=True):
            assert [key.decode() for key in found["__key__"].numpy()] == batch["__key__"]
            same(found, batch)


def test_tensorflow_takes_the_first_batch_once() -> None:
    pytest.importorskip("tensorflow")
    dataset = to_tf(iter(batches()))
    assert [len(found["__key__"]) for found in dataset] == [4, 4, 3]
    with pytest.raises(ValueError, match="there is no batch"):
        to_tf([])


def test_tensorflow_goes_on_where_a_loader_was_resumed() -> None:
    pytest.importorskip("tensorflow")
    loader: Loader[Any] = Loader(Numbers(20), 4, seed=1, collate="numpy")
    dataset = to_tf(loader)
    assert loader.step == 0
    state = loader.state_dict()
    loader.load_state_dict({**state, "step": 3})
    wanted = [loader.sampler.batch_at(0, step) for step in (3, 4)]
    found = [[key.decode() for key in batch["__key__"].numpy()] for batch in dataset]
    assert found == expected(wanted)
    assert len(list(dataset)) == 5


def test_paddle_gets_its_tensors() -> None:
    paddle = pytest.importorskip("paddle")
    wanted = batches()
    for found, batch in zip(to_paddle(wanted), wanted, strict=True):
        assert isinstance(found["pixels"], paddle.Tensor)
        same(found, batch)


def test_a_data_set_is_a_source_of_grain(workshop: Workshop) -> None:
    grain = pytest.importorskip("grain.python")
    commit = workshop.import_files({f"{i:02}.cls": str(i).encode() for i in range(40)})
    tree = workshop.repository.tree_of(commit)
    samples = ShardDataset.from_tree(tree, workshop.repository.root, workshop.client)
    batches = grain.MapDataset.source(samples).seed(3).shuffle().map(lambda sample: sample["cls"]).batch(8)
    found = np.concatenate([batches[number] for number in range(len(batches))])
    assert sorted(found.tolist()) == list(range(40))
    assert found.tolist() != list(range(40))


def test_a_framework_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jax", None)
    with pytest.raises(MissingExtraError, match=r"to_jax needs jax: pip install 'forebay\[jax\]'"):
        to_jax([])
