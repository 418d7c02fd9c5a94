"""Interleaved rounds and their tables: what the benchmarks of the cache share.

Wall time depends on what else runs; compare the processor time where both cores are busy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence


class Cost(NamedTuple):
    """What one round cost.

    Attributes:
        wall: Seconds on the clock.
        cpu: Seconds of the processor, of this process and whoever serves it.
        disk_bytes: What they read from the disk: 0 where everything was in the page cache.
    """

    wall: float
    cpu: float
    disk_bytes: int = 0

    def __sub__(self, earlier: Cost) -> Cost:
        return Cost(*(now - then for now, then in zip(self, earlier, strict=True)))


class Stopwatch:
    """Counts this process and others, with the kernel's own nanoseconds: ticks of 10 ms are too coarse for a round."""

    def __init__(self, pids: Iterable[int] = ()) -> None:
        self._clocks = [time.CLOCK_PROCESS_CPUTIME_ID, *((~pid << 3) | 2 for pid in pids)]
        self._counters = [Path(f"/proc/{pid}/io") for pid in ("self", *pids)]
        self._start = self._now()

    def _now(self) -> Cost:
        disk = sum(_disk_bytes(path.read_text()) for path in self._counters)
        return Cost(time.perf_counter(), sum(map(time.clock_gettime, self._clocks)), disk)

    def cost(self) -> Cost:
        return self._now() - self._start


def _disk_bytes(counters: str) -> int:
    return next(int(line.split()[1]) for line in counters.splitlines() if line.startswith("read_bytes:"))


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(one for task in tasks for child in task.read_text().split() for one in family(int(child)))]


def take_turns(ways: Mapping[str, Callable[[int], Any]], rounds: int) -> dict[str, list[Any]]:
    """Call each with the number of the round, in an order that turns around, and return what they return."""
    found: dict[str, list[Any]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            found[name].append(ways[name](number))
    return found


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return median and quartiles; of a single round they are its value."""
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [*values] * 3
    row = {"median": statistics.median(values), "q1": quartiles[0], "q3": quartiles[2]}
    return {name: round(value, digits) for name, value in row.items()}


def shown(row: Mapping[str, float]) -> str:
    return f"{row['median']:g} ({row['q1']:g} - {row['q3']:g})"


def machine() -> str:
    cores, system = os.cpu_count(), platform.release()
    return f"{platform.machine()}, {cores} cores, Linux {system}, Python {platform.python_version()}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def chosen(options: argparse.Namespace, names: Collection[str]) -> list[str]:
    """Return the contestants that `--only` names, all without it.

    Raises:
        SystemExit: If it names another.
    """
    wanted = options.only.split(",") if options.only else list(names)
    if unknown := [name for name in wanted if name not in names]:
        raise SystemExit(f"--only {','.join(unknown)}: not one of {', '.join(names)}")
    return [name for name in names if name in wanted]


def parser(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Make a command line with the options that all of them have."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help="how often each is measured")
    made.add_argument("--scale", type=float, default=1.0, help="times as much data")
    made.add_argument("--only", default="", help="contestants, comma-separated")
    made.add_argument("--directory", type=Path, help="where to make the scratch directory; default: the system's")
    made.add_argument("--json", type=Path, help="write the results here, too")
    return made


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")
