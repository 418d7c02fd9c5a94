"""The cache is told what comes next, and not asked again and again where it has everything."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from loaders.dataset import ShardDataset
from loaders.running import Loader
from loaders.running.announcing import Announcer
from loaders.running.making import Task

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
