"""Data sets of numbers for the tests of the loader; importable by worker processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass
class Numbers:
    """Sample i is {"__key__": "k<i>", "x": [i, i, i, i]}.

    Attributes:
        n: How many.
        bad: These raise ValueError.
        slow: These take `seconds`.
        deadly: These kill the process that reads them, once for each file that can be made in `deaths`.
        deaths: A directory, or None for again and again.
        lives: How often a deadly sample kills.
    """

    n: int
    bad: frozenset[int] = frozenset()
    slow: frozenset[int] = frozenset()
    seconds: float = 0.0
    deadly: frozenset[int] = frozenset()
    deaths: Path | None = None
    lives: int = 1
    fingerprint: str = "numbers"
    begun: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, number: int) -> Any:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        return [self.one(int(number)) for number in numbers]

    def one(self, number: int) -> dict[str, Any]:
        self.begun.append(number)
        if number in self.slow:
            time.sleep(self.seconds)
        if number in self.bad:
            raise ValueError(f"number {number} is bad")
        if number in self.deadly:
            self.die(number)
        return {"__key__": f"k{number}", "x": np.full(4, number)}

    def die(self, number: int) -> None:
        for life in range(self.lives):
            try:
                if self.deaths is not None:
                    (self.deaths / f"{number}-{life}").touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)


class Unpicklable(Numbers):
    def __setstate__(self, state: dict[str, Any]) -> None:
        raise RuntimeError("no such file in a worker")


def until_error(batches: Any, kind: type[BaseException]) -> tuple[list[Any], Any]:
    """The batches before the error, and the error."""
    found: list[Any] = []
    try:
        for batch in batches:
            found.append(batch)  # noqa: PERF402 - list() would lose them
    except kind as error:
        return found, error
    raise AssertionError(f"no {kind.__name__}")


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("forebay-loader")]


def keys(batches: Any) -> list[list[str]]:
    """The keys of batches, however they were collated."""
    return [
        list(batch["__key__"]) if isinstance(batch, dict) else [sample["__key__"] for sample in batch]
        for batch in batches
    ]


def expected(numbers: Any) -> list[list[str]]:
    return [[f"k{number}" for number in batch] for batch in numbers]
