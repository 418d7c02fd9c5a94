from __future__ import annotations

import itertools
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any, NoReturn

from ds.replaying import drop_write, kept_writes, resume_write
from versioning import BLOB_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    import ds
    from tests.ds.shop import Shop

_CALLS = ("fsync", "rename", "unlink", "write", "pwrite", "rmdir", "mkdir", "replace", "link")
_SIZES = (0, 10, 3000, BLOB_BYTES + 17)


def files_of(number: int) -> dict[str, bytes]:
    """What transaction `number` writes."""
    seed = random.Random(number)
    sizes = seed.sample(_SIZES, 3) if number % 4 == 0 else seed.sample(_SIZES[:3], 2)
    return {f"{number:04}/{index}": seed.randbytes(16).ljust(size, b"-")[:size] for index, size in enumerate(sizes)}


def write_one(shop: Shop, number: int) -> None:
    with shop.transaction(message=f"number {number}") as transaction:
        for path, data in files_of(number).items():
            with transaction.open(path) as file:
                file.write(data)


def present(dataset: ds.Dataset, number: int) -> bool:
    """Say whether a transaction is in the branch; a part of it, or other bytes, is a failure."""
    wanted = files_of(number)
    found = [entry.path for entry in dataset.tree("runs").entries(f"{number:04}/")]
    assert found in ([], sorted(wanted))
    for path in found:
        with dataset.open(path, "runs") as file:
            assert file.read() == wanted[path]
    return bool(found)


def in_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        _end_with(work)
    return child


def _end_with(work: Callable[[], None]) -> NoReturn:
    try:
        work()
    finally:
        os._exit(0)


def die_before_call(number: int) -> None:
    """Kill this process before the n-th call that changes something on a disk."""
    calls = itertools.count(1)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return wrapped

    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name)))


def test_a_process_killed_at_any_step_commits_all_or_nothing(shop: Shop) -> None:
    outcomes = set()
    shop.write("first", b"1")
    for number in itertools.count(1):

        def dying(number: int = number) -> None:
            die_before_call(number)
            write_one(shop, number)

        _, status = os.waitpid(in_child(dying), 0)
        states = [kept.state for kept in kept_writes(shop.settings)]
        there = present(shop.dataset, number)
        if status == 0:
            assert there
            break
        for kept in kept_writes(shop.settings):
            resume_write(kept.id, shop.settings) if kept.state == "finished" else drop_write(kept.id, shop.settings)
        outcomes.add((there, *states))
        assert present(shop.dataset, number) == (there or "finished" in states)
    assert {(False, "unfinished"), (False, "finished"), (True, "finished")} <= outcomes
    assert kept_writes(shop.settings) == []
    messages = [commit.message for _, commit in shop.dataset.repository.log("runs")]
    assert len(messages) == len(set(messages))  # nothing was committed twice


def test_nothing_acknowledged_is_lost_when_writers_are_killed_at_random(shop: Shop) -> None:
    shop.write("first", b"1")
    acknowledged: list[int] = []
    seed, first = random.Random(5), 0
    for _ in range(10):
        read, write = os.pipe()

        def writing(start: int = first, pipe: int = write) -> None:
            for number in range(start, start + 40):
                write_one(shop, number)
                os.write(pipe, b"%04d" % number)

        child = in_child(writing)
        os.close(write)
        time.sleep(seed.uniform(0.02, 0.4))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with open(read, "rb") as pipe:
            said = pipe.read()
        acknowledged += [int(said[at : at + 4]) for at in range(0, len(said), 4)]
        first += 40
    shop.write("last", b"whose transaction commits what was finished")
    assert acknowledged
    dataset = shop.dataset
    assert all(present(dataset, number) for number in acknowledged)
    assert {kept.state for kept in kept_writes(shop.settings)} <= {"unfinished"}
    for number in range(first):
        present(dataset, number)
