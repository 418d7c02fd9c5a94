"""Do many readers of one node's cache, and a filler beside them, wait for each other?

    .bench-venv/bin/python -m benchmarks.cache_readers --json cache_readers.json

One cache directory, 20,000 pinned objects of 10 KiB, processes as a training's: each reader reads random objects for
half a second in each round. `hits` were read before by that process; `first reads` were not, so each looks into the
index and compares a checksum. The filler stores new objects as fast as it can into a full cache, so it also evicts.
Rounds are interleaved over the crowds; medians (quartiles).

What tells a lock convoy: readers that wait go to sleep, which the kernel counts (voluntary context switches), and
what they do for a lock takes processor time. With more processes than cores the reads in a second cannot grow any
more, but a read should cost the processor what it costs one reader alone. (Two busy cores share caches and memory,
and the clock's ticks fall into what runs: a few percent are not a lock.)
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import resource
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.rounds import chosen, machine, parser, shown, spread, table, take_turns, write_json
from benchmarks.source_data import body_of, key_of
from cache_runtime import BlockStore, Share
from sources import ObjectRef, StoreId, Version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

MIB = 1 << 20
OBJECTS, SIZE = 20_000, 10 << 10
FILL_ROOM = 256 * MIB
WORKS = ("hits", "first reads")
READERS = 4
CROWDS = {
    "1 reader": (1, 0),
    "1 reader + filler": (1, 1),
    "4 readers": (READERS, 0),
    "4 readers + filler": (READERS, 1),
}
_STORE = StoreId("bench://readers")
_BATCH = 64
_SECONDS = 60
_STORES = 8  # more than a turn reads through; each has checked nothing yet


class Done(NamedTuple):
    """What one process did in its turn: objects, seconds on the clock and of the processor, and how often it slept."""

    objects: int
    wall: float
    cpu: float
    slept: int


def _refs(name: str, count: int) -> list[ObjectRef]:
    return [ObjectRef(_STORE, f"{name}/{key_of(number)}", Version("1"), SIZE) for number in range(count)]


def prepare(directory: Path, count: int) -> int:
    """Fill a cache with pinned objects, and return its capacity."""
    capacity = count * SIZE * 5 // 4 + FILL_ROOM
    store, refs = BlockStore.open(directory, capacity_bytes=capacity), _refs("read", count)
    store.pin(refs, "bench")
    for start in range(0, count, 512):
        items = [(ref, body_of(start + n, SIZE)) for n, ref in enumerate(refs[start : start + 512])]
        if store.put_many(items) != len(items):
            raise AssertionError("the cache is too small")
    store.close()
    return capacity


def serve(pipe: Connection, directory: Path, capacity: int, count: int, name: str) -> None:
    """Be a reader or the filler: do what the pipe says until it says nothing."""
    store, refs = BlockStore.open(directory, capacity_bytes=capacity), _refs("read", count)
    picks = random.Random(os.getpid())
    turns: dict[str, Callable[[], Iterator[int]]] = {
        "hits": lambda: _hits(store, refs, picks),
        "first reads": lambda: _first_reads(store, refs, picks),
        "fill": lambda: _fill(store, name),
    }
    if name != "filler":
        for ref in refs:
            store.find(ref, 0, SIZE)
    pipe.send(None)
    while (order := pipe.recv()) is not None:
        work, at, seconds = order
        turn = turns[work]()
        next(turn)  # whatever it does before it begins
        time.sleep(max(0.0, at - time.monotonic()))
        pipe.send(_timed(turn, seconds))
    store.close()


def _timed(turn: Iterator[int], seconds: float) -> Done:
    slept, cpu, start = _slept(), time.process_time(), time.perf_counter()
    objects = 0
    for some in turn:
        objects += some
        if time.perf_counter() - start > seconds:
            break
    return Done(objects, time.perf_counter() - start, time.process_time() - cpu, _slept() - slept)


def _slept() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def _hits(store: BlockStore, refs: Sequence[ObjectRef], picks: random.Random) -> Iterator[int]:
    chunks = [picks.choices(refs, k=_BATCH) for _ in range(256)]
    find, size = store.find, SIZE
    yield 0
    while True:
        for chunk in chunks:
            for ref in chunk:
                if find(ref, 0, size) is None:
                    raise AssertionError("a pinned object is not there")
            yield _BATCH


def _first_reads(store: BlockStore, refs: Sequence[ObjectRef], picks: random.Random) -> Iterator[int]:
    order = picks.sample(refs, len(refs))
    unread = [pickle.loads(pickle.dumps(store)) for _ in range(_STORES)]
    yield 0
    for fresh in unread:
        for start in range(0, len(order), _BATCH):
            chunk = order[start : start + _BATCH]
            for ref in chunk:
                if fresh.find(ref, 0, SIZE) is None:
                    raise AssertionError("a pinned object is not there")
            yield len(chunk)


def _fill(store: BlockStore, name: str) -> Iterator[int]:
    share = Share("fill")
    yield 0
    while True:
        made = time.monotonic_ns()
        refs = [ObjectRef(_STORE, f"{name}/{made}/{n}", Version("1"), SIZE) for n in range(_BATCH)]
        yield store.put_many([(ref, body_of(n, SIZE)) for n, ref in enumerate(refs)], share=share)


class Crowd:
    """Processes that wait for orders."""

    def __init__(self, stack: ExitStack, readers: int, directory: Path, capacity: int, count: int) -> None:
        self._pipes: dict[str, Connection] = {}
        context = multiprocessing.get_context("spawn")
        for name in (*(f"reader {n}" for n in range(readers)), "filler"):
            self._pipes[name], theirs = context.Pipe()
            arguments = (theirs, directory, capacity, count, name)
            process = context.Process(target=serve, args=arguments, daemon=True)
            process.start()
            stack.callback(process.join, 30)
            stack.callback(self._pipes[name].send, None)
        for pipe in self._pipes.values():
            _receive(pipe)

    def turn(self, work: str, readers: int, fillers: int, seconds: float, number: int) -> tuple[list[Done], list[Done]]:
        """Have so many read, and the filler fill, at the same time; return what readers and filler did."""
        at = time.monotonic() + 0.25
        names = [f"reader {n}" for n in range(readers)] + ["filler"] * fillers
        for name in names:
            self._pipes[name].send(("fill" if name == "filler" else work, at, seconds))
        done = [_receive(self._pipes[name]) for name in names]
        return done[:readers], done[readers:]


def _receive(pipe: Connection) -> Any:
    if not pipe.poll(_SECONDS):
        raise RuntimeError("a process does not answer")
    return pipe.recv()


def run(
    *,
    objects: int = OBJECTS,
    rounds: int = 9,
    seconds: float = 0.5,
    directory: Path | None = None,
    only: Sequence[str] = tuple(CROWDS),
) -> dict[str, Any]:
    """Measure, and return a row for each work and crowd."""
    rows = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-readers-", dir=directory)))
        capacity = prepare(scratch / "cache", objects)
        crowd = Crowd(stack, max(CROWDS[name][0] for name in only), scratch / "cache", capacity, objects)
        for work in WORKS:
            turns = {name: partial(crowd.turn, work, *CROWDS[name], seconds) for name in only}
            found = take_turns(turns, rounds)
            rows += [{"work": work, "crowd": name, **_summed(found[name])} for name in only]
    return {"machine": machine(), "objects": objects, "object_bytes": SIZE, "rounds": rounds, "rows": rows}


def _summed(turns: Sequence[tuple[list[Done], list[Done]]]) -> dict[str, Any]:
    row = {
        "reads_per_second": spread([sum(one.objects / one.wall for one in readers) for readers, _ in turns], 0),
        "cpu_us_per_read": spread([_sum(readers, "cpu") / _sum(readers, "objects") * 1e6 for readers, _ in turns]),
        "sleeps_per_1000_reads": spread(
            [_sum(readers, "slept") / _sum(readers, "objects") * 1e3 for readers, _ in turns]
        ),
    }
    if turns[0][1]:
        row["filled_mib_per_second"] = spread([_sum(f, "objects") * SIZE / MIB / f[0].wall for _, f in turns], 1)
    return row


def _sum(done: Sequence[Done], name: str) -> float:
    return float(sum(getattr(one, name) for one in done))


def report(result: dict[str, Any]) -> str:
    head = ["work", "processes", "reads/s", "times", "CPU us/read", "times", "sleeps in 1,000 reads", "filled MiB/s"]
    rows = []
    alone = {row["work"]: row for row in result["rows"] if row["crowd"] == "1 reader"}
    for row in result["rows"]:
        one = alone.get(row["work"], row)
        times = [
            round(row[name]["median"] / one[name]["median"], 2) for name in ("reads_per_second", "cpu_us_per_read")
        ]
        filled = shown(row["filled_mib_per_second"]) if "filled_mib_per_second" in row else ""
        rows.append(
            [
                row["work"], row["crowd"], shown(row["reads_per_second"]), times[0], shown(row["cpu_us_per_read"]),
                times[1], shown(row["sleeps_per_1000_reads"]), filled,
            ]
        )  # fmt: skip
    return table(head, rows)


def main() -> None:
    """Parse the command line, measure and print."""
    options = parser(__doc__, rounds=9).parse_args()
    only = chosen(options, CROWDS)
    objects = max(_BATCH, int(OBJECTS * options.scale))
    result = run(objects=objects, rounds=options.rounds, directory=options.directory, only=only)
    print(f"{result['machine']}, warm page cache, {result['rounds']} rounds\n\n{report(result)}")
    write_json(options.json, result)


if __name__ == "__main__":
    main()
