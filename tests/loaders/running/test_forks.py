"""Forks of a training process: a logger, a DataLoader's workers, an evaluation on the side."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing import forkserver
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loaders.errors import IterationError
from loaders.running import Loader
from tests.loaders.running.samples import Numbers, expected, keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from loaders.running import Mode


class Large(Numbers):
    """Arrays that fill a slab; their content tells which sample they are."""

    def one(self, number: int) -> dict[str, Any]:
        return {"x": np.full(20_000, number)}


def in_fork(check: Callable[[], bool]) -> int:
    """Begin a check in a fork; its process, which ends with 0 if all is well."""
    pid = os.fork()
    if pid:
        return pid
    ok = False
    try:
        signal.alarm(60)
        ok = check()
    finally:
        os._exit(0 if ok else 1)


def ended_well(pid: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("mode", ["sync", "thread", "process"])
def test_a_fork_leaves_the_parents_iteration_alone_and_begins_its_own(mode: Mode) -> None:
    loader: Loader[Any] = Loader(Numbers(200), 4, mode=mode, workers=2, collate="list", timeout=20, seed=1)
    batches = iter(loader)
    for _ in range(5):
        next(batches)

    def check() -> bool:
        began = time.monotonic()
        with pytest.raises(IterationError, match="of which this process is a fork"):
            next(batches)
        told = time.monotonic() - began < 5
        rest = keys(loader)
        loader.close()
        return told and rest == expected(loader.sampler.batch_at(0, step) for step in range(5, 50))

    fork = in_fork(check)
    assert keys(batches) == expected(loader.sampler.batch_at(0, step) for step in range(5, 50))
    assert ended_well(fork)
    loader.close()


def test_a_fork_does_not_write_into_the_parents_batches() -> None:
    loader: Loader[Any] = Loader(Large(160), 4, mode="process", workers=2, collate="numpy", timeout=60, seed=1)
    next(iter(loader))  # there is memory that is shared with workers

    def are_whole() -> bool:
        found = []
        while loader.epoch < 3:
            at, step = loader.epoch, loader.step
            kept: list[tuple[Any, list[int]]] = []
            for batch in loader:
                kept = [*kept[-2:], (batch["x"], loader.sampler.batch_at(at, step))]
                step += 1
                time.sleep(0.002)  # the other process makes batches meanwhile
                found += [bool((rows == np.array(numbers)[:, None]).all()) for rows, numbers in kept]
        return all(found)

    def check() -> bool:
        whole = are_whole()
        loader.close()
        return whole

    fork = in_fork(check)
    assert are_whole()
    assert ended_well(fork)
    loader.close()


def test_closing_does_not_wait_for_a_fork_that_holds_the_pipes() -> None:
    loader: Loader[Any] = Loader(Numbers(40), 4, mode="process", workers=2, collate="list", timeout=60)
    keys(loader)
    fork = in_fork(lambda: bool(signal.sigwait({signal.SIGTERM})))
    began = time.monotonic()
    loader.close()
    assert time.monotonic() - began < 4  # 5 s later the workers would be killed
    os.kill(fork, signal.SIGKILL)
    assert not ended_well(fork)


def test_a_killed_server_of_forks_costs_only_new_workers() -> None:
    slow = Numbers(200, slow=frozenset(range(0, 200, 5)), seconds=0.01)
    loader: Loader[Any] = Loader(slow, 4, mode="process", workers=2, collate="numpy", timeout=60, seed=1)
    found = []
    for step, batch in enumerate(loader):
        found.append(batch)
        if step == 10:
            server: Any = forkserver._forkserver
            os.kill(server._forkserver_pid, signal.SIGKILL)
    assert keys(found) == expected(loader.sampler.batch_at(0, step) for step in range(50))
    assert loader.stats().restarts == 2
    loader.close()


def test_a_server_of_forks_that_is_just_ending_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    begin: Any = forkserver.connect_to_new_process
    failures: list[Exception] = [ConnectionRefusedError("no longer"), BrokenPipeError("no longer"), EOFError()]

    def connect(handles: list[int]) -> Any:
        if failures:
            raise failures.pop()
        return begin(handles)

    monkeypatch.setattr(forkserver, "connect_to_new_process", connect)
    loader: Loader[Any] = Loader(Numbers(40), 4, mode="process", workers=2, collate="list", timeout=20, seed=1)
    assert keys(loader) == expected(loader.sampler.batch_at(0, step) for step in range(10))
    assert (failures, loader.stats().restarts) == ([], 0)
    loader.close()
