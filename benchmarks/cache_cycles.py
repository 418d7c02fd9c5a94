"""What does a cache of half of the data hit, epoch after epoch?

    .bench-venv/bin/python -m benchmarks.cache_cycles --json cache_cycles.json

20,000 objects of 10 KiB, and 60 of 5 MiB (two blocks, each counted), every one read once in each epoch, in a new
random order or always in the same one. Counted are the origin's bytes, from the second epoch on: a hit ratio is the
part of the bytes that the origin was not asked for. All get half of the data's bytes on disk.

- `forebay`: a share with `cycle_bytes`, as a dataset with `admission: keep` has.
- `forebay-sieve`: without it, for comparison: what is evicted then is what was not read since the hand passed.
- `lru`: simulated on the same orders, with room for half of the objects: no index, no slabs, nothing lost at their
  ends.
- `juicefs`: a mount with `--cache-size` of half of the data, its eviction as it is by default, its storage's bytes as
  it counts them. The kernel's copy of a file is dropped after each read: it is no part of the cache that is compared.

The order is the same for all; nothing is timed, so nothing is interleaved, and `--rounds` is the number of epochs.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
from collections import OrderedDict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import juicefs_mount
from benchmarks.juicefs_mount import juicefs
from benchmarks.rounds import chosen, machine, parser, table, write_json
from benchmarks.source_data import body_of, key_of
from cache_runtime import BlockStore, Client, Share
from sources import Location, ObjectRef, Origins, StoreId, Version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MIB = 1 << 20
ORDERS = ("random", "the same")
_STORE = StoreId("bench://cycles")
_READ_AT_ONCE = 16


class Data(NamedTuple):
    """What is read: so many objects of so many bytes."""

    count: int
    size: int

    @property
    def total(self) -> int:
        return self.count * self.size


DATA = (Data(20_000, 10 << 10), Data(60, 5 * MIB))


class Memory:
    """An origin in memory that counts what it gives."""

    id = _STORE

    def __init__(self) -> None:
        self.given = 0

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> memoryview:
        self.given += length
        return body_of(0, start + length)[start:]


def orders(data: Data, epochs: int, kind: str) -> Iterator[list[int]]:
    picks, order = random.Random(1), list(range(data.count))
    picks.shuffle(order)
    for _ in range(epochs):
        if kind == "random":
            picks.shuffle(order)
        yield list(order)


def forebay(scratch: Path, data: Data, epochs: Sequence[list[int]], *, keeps: bool = True) -> list[float]:
    origin, origins = Memory(), Origins()
    origins.add("", origin)
    refs = [ObjectRef(_STORE, key_of(number), Version("1"), data.size) for number in range(data.count)]
    client = Client(origins, BlockStore.open(scratch / "cache", capacity_bytes=max(32 * MIB, data.total // 2)))
    share, found = Share("bench", cycle_bytes=data.total if keeps else 0), []
    for order in epochs:
        before = origin.given
        for start in range(0, len(order), _READ_AT_ONCE):
            part = [Location(refs[n], 0, data.size) for n in order[start : start + _READ_AT_ONCE]]
            client.read_many(part, share=share)
        found.append(1 - (origin.given - before) / data.total)
    client.close()
    return found


def sieve(scratch: Path, data: Data, epochs: Sequence[list[int]]) -> list[float]:
    return forebay(scratch, data, epochs, keeps=False)


def lru(scratch: Path, data: Data, epochs: Sequence[list[int]]) -> list[float]:
    kept: OrderedDict[int, None] = OrderedDict()
    found = []
    for order in epochs:
        hits = 0
        for number in order:
            hits += number in kept
            kept[number] = None
            kept.move_to_end(number)
            if len(kept) > data.count // 2:
                kept.popitem(last=False)
        found.append(hits / data.count)
    return found


def juice(scratch: Path, data: Data, epochs: Sequence[list[int]]) -> list[float]:
    with juicefs(scratch / "juicefs", "--cache-size", f"{max(1, data.total // 2 // MIB)}M") as mount:
        names = [key_of(number) for number in range(data.count)]
        paths = mount.write(names, lambda _: body_of(0, data.size))
        found = []
        for order in epochs:
            before = mount.fetched_bytes()
            for number in order:
                _read_and_drop(paths[number])
            given = mount.fetched_bytes() - before
            found.append(1 - given / data.total)
    return found


def _read_and_drop(path: str) -> None:
    with open(path, "rb", buffering=0) as file:
        file.read()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


CONTESTANTS: dict[str, Callable[[Path, Data, Sequence[list[int]]], list[float]]] = {
    "forebay": forebay,
    "forebay-sieve": sieve,
    "lru": lru,
    "juicefs": juice,
}


def run(
    *, epochs: int = 6, scale: float = 1.0, directory: Path | None = None, only: Sequence[str] = tuple(CONTESTANTS)
) -> dict[str, Any]:
    """Measure, and return each contestant's hit ratio of every epoch but the first."""
    rows = []
    for data in (Data(max(2, int(one.count * scale)), one.size) for one in DATA):
        for kind in ORDERS:
            wanted = list(orders(data, epochs, kind))
            for name in only:
                with ExitStack() as stack:
                    path = stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-cycles-", dir=directory))
                    found = [round(ratio, 4) for ratio in CONTESTANTS[name](Path(path), data, wanted)[1:]]
                rows.append({"count": data.count, "size": data.size, "order": kind, "client": name, "hits": found})
    return {"machine": machine(), "epochs": epochs, "rows": rows}


def report(result: dict[str, Any]) -> str:
    head = ["data", "order", "cache of half of it", "hit ratio, mean of epochs", "least", "goal"]
    rows = [
        [
            f"{row['count']:,} x {row['size'] >> 10:,} KiB", row["order"], row["client"],
            f"{statistics.fmean(row['hits']):.3f}", f"{min(row['hits']):.3f}",
            "0.48" if row["client"] == "forebay" else "",
        ]
        for row in result["rows"]
    ]  # fmt: skip
    return table(head, rows)


def main() -> None:
    """Parse the command line, measure and print."""
    options = parser(__doc__, rounds=6).parse_args()
    names = [name for name in CONTESTANTS if name != "juicefs" or not juicefs_mount.missing()]
    only = chosen(options, names)
    result = run(epochs=options.rounds, scale=options.scale, directory=options.directory, only=only)
    print(f"{result['machine']}, {result['epochs']} epochs, the first one not counted\n\n{report(result)}")
    write_json(options.json, result)


if __name__ == "__main__":
    main()
