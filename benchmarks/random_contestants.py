"""Random access through one loader, in a process of its own: the other half of `random_access.py`, which starts it.

    python random_contestants.py prepare|run CONTESTANT --data DIR [--reads 8000] [--batch 64] [--cold]

Prints one JSON object. Every contestant returns the payload and the class of records by their numbers, as bytes: one
number a call (`one`), and, where it can, a list of them (`many`). It is timed by its own process's CPU time.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import epoch_loaders

if TYPE_CHECKING:
    from collections.abc import Callable


class Access(NamedTuple):
    """How a contestant reads: one record, and many of them in one call."""

    one: Callable[[int], Any]
    many: Callable[[list[int]], Any] | None


def open_forebay(data: Path) -> Access:
    dataset = epoch_loaders.forebay_dataset(data, epoch_loaders.forebay_client(data, cached=True))
    return Access(dataset.__getitem__, dataset.__getitems__)


def open_views(data: Path) -> Access:
    """Forebay without the copy: fields as memoryviews of the cache."""
    from loaders import ShardDataset

    plain = epoch_loaders.forebay_dataset(data, epoch_loaders.forebay_client(data, cached=True))
    dataset = ShardDataset(plain.records, decode=dict.fromkeys(plain.records.fields, memoryview))
    return Access(dataset.__getitem__, dataset.__getitems__)


def open_files(data: Path) -> Access:
    return Access(epoch_loaders.LooseFiles(data).__getitem__, None)


def open_mosaic(data: Path) -> Access:
    import streaming

    streaming.base.util.clean_stale_shared_memory()
    return Access(streaming.StreamingDataset(local=str(data / "mosaic"), batch_size=64).__getitem__, None)


def open_litdata(data: Path) -> Access:
    import litdata

    return Access(litdata.StreamingDataset(str(data / "litdata")).__getitem__, None)


def open_huggingface(data: Path) -> Access:
    import datasets

    dataset = datasets.load_from_disk(str(data / "huggingface"))
    return Access(dataset.__getitem__, dataset.__getitems__)


def open_arrayrecord(data: Path) -> Access:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    source = ArrayRecordDataSource(sorted(str(path) for path in (data / "grain").iterdir()))
    source.__enter__()
    return Access(
        lambda number: epoch_loaders.parse_record(source.__getitem__(number)),
        lambda numbers: [epoch_loaders.parse_record(record) for record in source.__getitems__(numbers)],
    )


def prepare_lance(data: Path, options: argparse.Namespace) -> None:
    import lance
    import pyarrow as pa

    schema = pa.schema([("bin", pa.binary()), ("cls", pa.binary())])
    rows = epoch_loaders.shuffled(data)

    def batches() -> Any:
        for start in range(0, len(rows), 1024):
            part = rows[start : start + 1024]
            columns = [pa.array([path.read_bytes() for _, path, _ in part]), pa.array([cls for *_, cls in part])]
            yield pa.record_batch(columns, schema=schema)

    lance.write_dataset(batches(), str(data / "lance"), schema=schema)


def open_lance(data: Path) -> Access:
    import lance

    dataset = lance.dataset(str(data / "lance"))
    return Access(
        lambda number: dataset.take([number]).to_pylist()[0], lambda numbers: dataset.take(numbers).to_pylist()
    )


PREPARE: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "forebay": epoch_loaders.prepare_forebay,
    "mosaic": epoch_loaders.prepare_mosaic,
    "litdata": epoch_loaders.prepare_litdata,
    "huggingface": epoch_loaders.prepare_huggingface,
    "arrayrecord": epoch_loaders.prepare_grain,
    "lance": prepare_lance,
}
OPEN = {
    "forebay": open_forebay,
    "forebay-views": open_views,
    "files": open_files,
    "mosaic": open_mosaic,
    "litdata": open_litdata,
    "huggingface": open_huggingface,
    "arrayrecord": open_arrayrecord,
    "lance": open_lance,
}
SLOW = {"litdata": 20, "lance": 4}
"""These read so many times fewer records, or a round would take minutes."""


def measure(name: str, data: Path, options: argparse.Namespace) -> dict[str, float]:
    """Time random reads, after one pass over the same numbers unless the page cache is to be cold."""
    access = OPEN[name](data)
    count = len(epoch_loaders.records(data))
    reads = max(options.batch, min(options.reads, count) // SLOW.get(name, 1))
    numbers = random.Random(options.seed).sample(range(count), min(count, reads))
    batches = [numbers[start : start + options.batch] for start in range(0, len(numbers), options.batch)]
    result = {}
    if not options.cold:
        for number in numbers:
            access.one(number)
    for way, read, places in (("one", access.one, numbers), ("many", access.many, batches)):
        if read is None:
            continue
        if options.cold:
            epoch_loaders.drop_page_cache()
        wall, cpu = time.perf_counter(), epoch_loaders.cpu_seconds()
        for place in places:
            read(place)  # type: ignore[operator] # numbers to `one`, lists to `many`
        result[f"{way}_cpu_us"] = (epoch_loaders.cpu_seconds() - cpu) / len(numbers) * 1e6
        result[f"{way}_wall_us"] = (time.perf_counter() - wall) / len(numbers) * 1e6
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=["prepare", "run"])
    parser.add_argument("contestant", choices=sorted(OPEN))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--reads", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = {"contestant": options.contestant}
    if options.action == "run":
        result |= measure(options.contestant, options.data, options)
    elif options.contestant in PREPARE:
        PREPARE[options.contestant](options.data, options)
    print("\n" + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
