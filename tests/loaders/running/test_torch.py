"""Stock DataLoader, StatefulDataLoader and the iterable face: every step can be resumed."""

from __future__ import annotations

import copy
import json
import warnings
from typing import Any

import pytest
from torch.utils.data import DataLoader

from loaders.errors import StateMismatchError
from loaders.resume import ResumableLoader
from loaders.running import Loader
from loaders.sampler import ElasticBatchSampler
from loaders.torch import IterableShards, StatefulBatchSampler
from tests.loaders.running.samples import Numbers, expected, keys

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torchdata's imports warn of torch's own changes
    from torchdata.stateful_dataloader import StatefulDataLoader

N, BATCH = 21, 4


def sampler(**options: Any) -> ElasticBatchSampler:
    return ElasticBatchSampler(Numbers(N), BATCH, seed=6, **options)


def unbroken(epochs: int = 2) -> list[list[str]]:
    order = sampler()
    return expected(order.batch_at(epoch, step) for epoch in range(epochs) for step in range(len(order)))


def stateful(workers: int, face: str) -> Any:
    shared: dict[str, Any] = {"num_workers": workers, "collate_fn": list}
    if workers:
        shared["multiprocessing_context"] = "fork"
    if face == "map":
        return StatefulDataLoader(Numbers(N), batch_sampler=StatefulBatchSampler(sampler()), **shared)
    shared["collate_fn"] = None
    return StatefulDataLoader(IterableShards(Numbers(N), sampler(), collate="list"), batch_size=None, **shared)


@pytest.mark.parametrize("face", ["map", "iterable"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore")
def test_stateful_data_loader_resumes_at_every_step_twice(face: str, workers: int) -> None:
    steps, want = len(sampler()), unbroken()
    loader = stateful(workers, face)
    found, states = [], []
    for batch in loader:
        found += keys([batch])
        states.append(json.loads(json.dumps(loader.state_dict())))
    assert found == want[:steps]
    for step in range(steps) if not workers else (0, 2, steps - 1):
        again = stateful(workers, face)
        again.load_state_dict(copy.deepcopy(states[step]))
        batches = iter(again)
        rest = keys([batch for _, batch in zip(range(1), batches, strict=False)])
        if rest:
            once_more = stateful(workers, face)
            once_more.load_state_dict(json.loads(json.dumps(again.state_dict())))
            rest += keys(once_more)
            again = once_more
        assert rest == want[step + 1 : steps]
        if face == "iterable":
            again.dataset.set_epoch(1)
        assert keys(again) == want[steps:]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_iterable_faces_order_does_not_depend_on_workers(workers: int) -> None:
    dataset = IterableShards(Numbers(N), sampler(), collate="list")
    options: dict[str, Any] = {"persistent_workers": True, "multiprocessing_context": "fork"} if workers else {}
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=None, num_workers=workers, **options)
    assert len(dataset) == 6
    assert keys(loader) + keys(loader) == unbroken()
    dataset.set_epoch(7)
    assert keys(loader) == expected(sampler().batch_at(7, step) for step in range(6))


def test_states_are_the_same_for_a_stock_data_loader_and_ours() -> None:
    def stock() -> ResumableLoader[Any]:
        return ResumableLoader(DataLoader(Numbers(N), batch_sampler=sampler(), collate_fn=list))  # type: ignore[arg-type]

    first = stock()
    for step, _ in enumerate(first):
        if step == 2:
            break
    ours: Loader[Any] = Loader(Numbers(N), BATCH, seed=6, collate="list")
    ours.load_state_dict(first.state_dict())
    for _ in ours:
        break
    last = stock()
    last.load_state_dict(ours.state_dict())
    assert keys(last) == unbroken()[4:6]
    assert last.state_dict()["epoch"] == 1


def test_another_iterators_state_is_refused() -> None:
    steps: Any = iter(StatefulBatchSampler(sampler()))
    with pytest.raises(StateMismatchError, match="not one of this iterator"):
        steps.load_state_dict(sampler().position())
    other: Any = iter(StatefulBatchSampler(ElasticBatchSampler(Numbers(N), BATCH, seed=7)))
    with pytest.raises(StateMismatchError, match="seed"):
        steps.load_state_dict(other.state_dict())
