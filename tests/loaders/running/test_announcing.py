"""The cache is told what comes next, and not asked again and again where it has everything."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.dataset import ShardDataset
from loaders.mixture import Mixture, _Sum
from loaders.running import Loader
from loaders.running.announcing import Announcer
from loaders.running.making import Task
from tests.loaders.running.samples import Numbers

if TYPE_CHECKING:
    from loaders.running import Mode
    from tests.loaders.conftest import Workshop


def done(value: int) -> Future[int]:
    future: Future[int] = Future()
    future.set_result(value)
    return future


def announced(missing: int, *, steps: int = 400, ahead: int = 32) -> tuple[list[Task], list[list[int]]]:
    asked: list[list[int]] = []

    def prefetch(numbers: list[int]) -> Future[int]:
        asked.append(numbers)
        return done(missing)

    tasks = [Task(0, step, [step]) for step in range(steps)]
    return list(Announcer(prefetch, ahead=ahead).pass_on(iter(tasks))), asked


def test_tasks_are_passed_on_and_announced_once_each() -> None:
    tasks, asked = announced(5)
    assert [task.step for task in tasks] == list(range(400))
    assert [number for group in asked for number in group] == list(range(400))


def test_little_is_announced_where_nothing_is_missing() -> None:
    tasks, asked = announced(0)
    assert len(tasks) == 400
    assert len(asked) <= 3 + 50 // 16 + 1


def test_it_is_ahead_by_as_much_as_asked_and_takes_the_rest_back() -> None:
    futures: list[Future[int]] = []

    def prefetch(_numbers: list[int]) -> Future[int]:
        futures.append(Future())
        return futures[-1]

    tasks: Any = Announcer(prefetch, ahead=16).pass_on(Task(0, step, [step]) for step in range(1000))
    next(tasks)
    assert len(futures) == 3
    tasks.close()
    assert all(future.cancelled() for future in futures)


@pytest.mark.parametrize("mode", ["sync", "thread"])
def test_a_cold_cache_is_filled_once(workshop: Workshop, mode: Mode) -> None:
    commit = workshop.import_files({f"{number:03d}.bin": bytes([number]) * 3000 for number in range(150)})
    tree = workshop.repository.tree_of(commit)
    dataset = ShardDataset.from_tree(tree, workshop.repository.root, workshop.client, decode=None)
    loader: Loader[Any] = Loader(dataset, 4, seed=1, mode=mode, workers=2, collate="list")
    for _ in range(2):
        assert sorted(sample["bin"][0] for batch in loader for sample in batch) == list(range(150))
    assert loader.stats().bytes_origin == 150 * 3000


def test_a_mixture_announces_to_the_caches_of_its_sources(workshop: Workshop) -> None:
    def source(name: str, first: int) -> ShardDataset:
        files = {f"{name}/{number:03d}.bin": bytes([number]) * 3000 for number in range(first, first + 60)}
        tree = workshop.repository.tree_of(workshop.import_files(files))
        root, client = workshop.repository.root, workshop.client
        return ShardDataset.from_tree(tree, root, client, prefix=f"{name}/", decode=None)

    mixture = Mixture({"a": (source("a", 0), 2), "plain": (Plain(10), 1), "b": (source("b", 100), 1)})
    asked = mixture.prefetch([0, 65, -1, 59, 75])
    assert asked is not None
    assert asked.result(30) == 4 * 3000  # 65 is one of `plain`, which has no cache
    assert mixture.prefetch([60, 69]) is None
    with pytest.raises(IndexError, match="sample 130 is outside"):
        mixture.prefetch([130])
    loader: Loader[Any] = Loader(mixture, 4, seed=1, mode="sync", collate="list")
    assert loader._announcer is not None
    for _ in range(2):
        for _batch in loader:
            pass
    read = workshop.client.stats.snapshot()
    assert read.bytes_origin <= 120 * 3000


class Plain(Numbers):
    def one(self, number: int) -> dict[str, Any]:
        return {"__key__": f"plain{number}", "bin": b""}


@given(st.lists(st.sampled_from(["done", "failed", "cancelled"]), min_size=1, max_size=5), st.randoms())
def test_the_future_of_a_mixture_is_over_when_all_of_its_parts_are(ends: list[str], chance: Any) -> None:
    parts: list[Future[int]] = [Future() for _ in ends]
    found = _Sum(parts)
    order = list(zip(parts, ends, strict=True))
    chance.shuffle(order)
    for part, end in order:
        assert not found.done()
        if end == "done":
            part.set_result(7)
        elif end == "failed":
            part.set_exception(OSError("away"))
        else:
            part.cancel()
    assert found.done()
    assert found.cancelled() == ("cancelled" in ends)
    if not found.cancelled():
        assert (found.exception() is None) == ("failed" not in ends)
        assert "failed" in ends or found.result() == 7 * len(ends)


def test_cancelling_the_future_of_a_mixture_takes_back_what_has_not_begun() -> None:
    parts: list[Future[int]] = [Future(), Future(), Future()]
    parts[0].set_running_or_notify_cancel()
    found = _Sum(parts)
    assert found.cancel()
    assert [part.cancelled() for part in parts] == [False, True, True]
    assert not found.done()
    parts[0].set_result(3)
    assert found.cancelled()


def test_who_has_no_cache_is_not_asked_again_and_again() -> None:
    asked = []
    tasks = [Task(0, step, [step]) for step in range(400)]
    assert list(Announcer(lambda numbers: asked.append(numbers), ahead=32).pass_on(iter(tasks))) == tasks
    assert len(asked) <= 3 + 50 // 16 + 1
