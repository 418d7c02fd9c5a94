"""The same batches and the same state in every mode, and nothing left behind."""

from __future__ import annotations

import gc
import json
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders.errors import IterationError, LoaderTimeoutError, StateMismatchError
from loaders.running import Loader
from loaders.sampler import ElasticBatchSampler
from tests.loaders.running.samples import Numbers, expected, keys, loader_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loaders.running import Mode

MODES: list[Mode] = ["sync", "thread", "process"]
HERE = ("sync", "thread")
KINDS: list[tuple[Mode, int, int]] = [
    ("sync", 1, 1),
    ("sync", 2, 1),
    ("thread", 1, 3),
    ("thread", 2, 2),
    ("process", 1, 2),
    ("process", 2, 1),
]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert loader_threads() == []


def leave(loader: Loader[Any], kind: type[BaseException]) -> None:
    for _ in loader:
        raise kind


shapes = st.tuples(st.integers(1, 120), st.integers(1, 9), st.sampled_from([1, 2, 3]), st.sampled_from(["drop", "pad"]))


@given(shape=shapes, workers=st.integers(1, 5), prefetch=st.integers(1, 6), mode=st.sampled_from(HERE))
def test_batches_are_those_of_the_sampler(
    shape: tuple[int, int, int, Any], workers: int, prefetch: int, mode: Literal["sync", "thread"]
) -> None:
    n, each, world, tail = shape
    if tail == "drop" and n < each * world:
        return
    for rank in range(world):
        sampler = ElasticBatchSampler(Numbers(n), each * world, seed=5, rank=rank, world_size=world, tail=tail)
        loader: Loader[Any] = Loader(
            Numbers(n),
            each * world,
            seed=5,
            rank=rank,
            world_size=world,
            tail=tail,
            mode=mode,
            workers=workers,
            prefetch=prefetch,
            collate="list",
        )
        assert len(loader) == len(sampler)
        assert keys(loader) == expected(sampler)
        assert (loader.epoch, loader.step) == (1, 0)
        sampler.set_epoch(1)
        assert keys(loader) == expected(sampler)


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[tuple[str, int], list[Loader[Any]]]]:
    """Loaders of every mode, for world sizes of 1 and 2; those with processes keep them."""
    made: dict[tuple[str, int], list[Loader[Any]]] = {
        (mode, world): [
            Loader(
                Numbers(45),
                8,
                seed=2,
                tail="exact",
                rank=rank,
                world_size=world,
                mode=mode,
                workers=workers,
                collate="list",
                timeout=60,
            )
            for rank in range(world)
        ]
        for mode, world, workers in KINDS
    }
    yield made
    for loaders in made.values():
        for loader in loaders:
            loader.close()


def joined(loaders: list[Loader[Any]], steps: int) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Take some steps on every rank; the global batches, and the state after each."""
    ranks: list[list[list[str]]] = []
    states: list[list[dict[str, Any]]] = []
    for loader in loaders:
        ranks.append([])
        states.append([])
        while len(ranks[-1]) < steps:
            for batch in loader:
                ranks[-1].append(keys([batch])[0])
                states[-1].append(loader.state_dict())
                if len(ranks[-1]) == steps:
                    break
    assert all(found == states[0] for found in states)
    return [[key for part in step for key in part] for step in zip(*ranks, strict=True)], states[0]


@settings(max_examples=12)
@given(data=st.data())
def test_a_resume_anywhere_goes_on_as_if_unbroken_twice_over(
    worlds: dict[tuple[str, int], list[Loader[Any]]], data: st.DataObject
) -> None:
    kinds = sorted(worlds)
    start = ElasticBatchSampler(Numbers(45), 8, seed=2, tail="exact").position()
    for loader in worlds["sync", 1]:
        loader.load_state_dict(start)
    unbroken, states = joined(worlds["sync", 1], 15)  # into the third epoch
    assert {len(json.dumps(state)) for state in states} == {len(json.dumps(start))}
    assert len(json.dumps(start)) < 400
    found: list[list[str]] = []
    state = start
    for _ in range(3):
        loaders = worlds[data.draw(st.sampled_from(kinds))]
        for loader in loaders:
            loader.load_state_dict(json.loads(json.dumps(state)))
        more, then = joined(loaders, data.draw(st.integers(1, 5)))
        found += more
        state = then[-1]
        assert state == states[len(found) - 1]
    assert found == unbroken[: len(found)]


def test_every_step_of_every_mode_can_be_resumed(worlds: dict[tuple[str, int], list[Loader[Any]]]) -> None:
    start = ElasticBatchSampler(Numbers(45), 8, seed=2, tail="exact").position()
    for mode in MODES:
        (loader,) = worlds[mode, 1]
        loader.load_state_dict(start)
        unbroken, states = joined([loader], 12)
        for step, state in enumerate(states[:-3]):
            loader.load_state_dict(state)
            again, then = joined([loader], 2)
            assert again == unbroken[step + 1 : step + 3]
            assert then == states[step + 1 : step + 3]


def test_another_orders_state_is_refused() -> None:
    state = Loader(Numbers(10), 2, seed=1).state_dict()
    with pytest.raises(StateMismatchError, match="seed"):
        Loader(Numbers(10), 2, seed=2).load_state_dict(state)


def test_set_epoch_leaves_the_rest_out_and_keeps_a_resumed_step() -> None:
    loader: Loader[Any] = Loader(Numbers(12), 4, seed=1, collate="list")
    next(iter(loader))
    gc.collect()
    loader.set_epoch(0)
    assert loader.step == 1
    assert len(keys(loader)) == 2
    loader.set_epoch(5)
    assert keys(loader) == expected(loader.sampler.batch_at(5, step) for step in range(3))


@pytest.mark.parametrize("way", ["break", "error", "interrupt", "collected"])
def test_an_iteration_that_is_left_ends_its_threads(way: str) -> None:
    loader: Loader[Any] = Loader(Numbers(1000), 4, workers=3, collate="list")
    if way == "break":
        for _ in loader:
            break
    elif way == "collected":
        iterator = iter(loader)
        next(iterator)
        assert loader_threads()
        del iterator
    else:
        kind = ValueError if way == "error" else KeyboardInterrupt
        with pytest.raises(kind):
            leave(loader, kind)
    gc.collect()
    assert loader_threads() == []
    assert loader.step == 1


def test_no_more_batches_are_begun_than_allowed() -> None:
    numbers = Numbers(400)
    loader: Loader[Any] = Loader(numbers, 4, workers=3, prefetch=5, collate="list")
    batches = iter(loader)
    next(batches)
    deadline = time.monotonic() + 20
    while len(numbers.begun) < 6 * 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(numbers.begun) == 6 * 4
    del batches


def test_bytes_bound_what_is_begun() -> None:
    numbers = Numbers(400)
    loader: Loader[Any] = Loader(numbers, 4, workers=2, prefetch=8, prefetch_bytes=300, collate="numpy")
    for _, batch in zip(range(5), loader, strict=False):
        assert batch["x"].nbytes == 128
        time.sleep(0.02)
    assert len(numbers.begun) <= (8 + 5 + 2) * 4  # at first the size is not known
    assert loader._runner.fill() == 0


def test_a_batch_that_does_not_come_is_an_error_with_stacks() -> None:
    numbers = Numbers(20, slow=frozenset([13]), seconds=2)
    loader: Loader[Any] = Loader(numbers, 4, order="none", workers=2, timeout=0.5, collate="list")
    with pytest.raises(LoaderTimeoutError, match=r"step 3 \(samples 12, 13, 14, 15\)[\s\S]*time.sleep") as caught:
        keys(loader)
    assert caught.value.numbers == (12, 13, 14, 15)
    assert loader.step == 3
    assert loader_threads() == []


@pytest.mark.parametrize("mode", HERE)
def test_one_iteration_at_a_time(mode: Mode) -> None:
    loader: Loader[Any] = Loader(Numbers(20), 4, mode=mode, workers=2, collate="list")
    first = iter(loader)
    next(first)
    second = iter(loader)
    next(second)
    with pytest.raises(IterationError, match="one loader for each loop"):
        next(first)
    assert len(list(second)) == 3
    assert loader.epoch == 1


def test_arrays_are_stacked_and_may_be_kept() -> None:
    loader: Loader[Any] = Loader(Numbers(40), 4, seed=1, workers=2, collate="numpy")
    kept = [batch["x"] for batch in loader]
    assert sorted(np.concatenate(kept)[:, 0].tolist()) == list(range(40))


def test_threads_run_at_once() -> None:
    meeting = threading.Barrier(3, timeout=20)

    class Meeting(Numbers):
        def one(self, number: int) -> dict[str, Any]:
            meeting.wait()
            return super().one(number)

    assert len(keys(Loader(Meeting(3), 1, workers=3, collate="list"))) == 3


def test_ranks_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    loader: Loader[Any] = Loader(Numbers(8), 4, order="none", collate="list")
    assert keys(loader) == expected([[2, 3], [6, 7]])
    monkeypatch.delenv("RANK")  # as Lightning's launcher leaves it
    assert keys(Loader(Numbers(8), 4, order="none", collate="list", rank=0, world_size=1)) == expected(
        [[0, 1, 2, 3], [4, 5, 6, 7]]
    )


def test_arguments_that_contradict_each_other_are_refused() -> None:
    sampler = ElasticBatchSampler(Numbers(8), 4)
    with pytest.raises(ValueError, match="brings its own"):
        Loader(Numbers(8), 2, sampler=sampler)
    with pytest.raises(ValueError, match="batch_size is missing"):
        Loader(Numbers(8))
    with pytest.raises(ValueError, match="pass both"):
        Loader(Numbers(8), 4, rank=1)
    with pytest.raises(ValueError, match="forkserver or spawn"):
        Loader(Numbers(8), 4, mode="process", start_method="fork")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown mode"):
        Loader(Numbers(8), 4, mode="fiber")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="CUDA"):
        Loader(Numbers(8), 4, device="cuda:0")
    assert len(Loader(Numbers(8), sampler=sampler)) == 2
