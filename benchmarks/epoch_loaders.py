"""One epoch through one loader, in a process of its own: the other half of `epoch.py`, which starts it.

    python epoch_loaders.py prepare|run LOADER --data DIR [--batch 64] [--workers 0]

Prints one JSON object. Imports only the loader that it runs, so a peer needs no Forebay in its environment and
Forebay no peer. Every loader delivers the payload and the class of each record as bytes, in a shuffled order, through
torch's DataLoader (or the loader's own subclass of it) with an identity collate.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def identity(batch: Any) -> Any:
    return batch


def records(data: Path) -> list[tuple[str, Path, bytes]]:
    """Return (key, payload file, class) of every record, sorted; the class is the directory's name."""
    paths = sorted((data / "files").glob("*/*.bin"))
    return [(path.stem, path, path.parent.name.encode()) for path in paths]


# --- loose files: one open, read and close a record; the class costs nothing, it is in the path


class LooseFiles:
    def __init__(self, data: Path) -> None:
        self.rows = [(str(path), cls) for _, path, cls in records(data)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, bytes]:
        path, cls = self.rows[index]
        with open(path, "rb") as file:
            return {"bin": file.read(), "cls": cls}


def run_files(data: Path, options: argparse.Namespace) -> Callable[[int], Iterable[Any]]:
    return shuffled_epochs(LooseFiles(data), options)


def shuffled_epochs(dataset: Any, options: argparse.Namespace) -> Callable[[int], Iterable[Any]]:
    """What torch's own DataLoader makes of a data set."""
    import torch
    from torch.utils.data import DataLoader

    def epoch(number: int) -> Iterable[Any]:
        return DataLoader(
            dataset,
            batch_size=options.batch,
            shuffle=True,
            num_workers=options.workers,
            collate_fn=identity,
            generator=torch.Generator().manual_seed(number),
        )

    return epoch


# --- Forebay: a packed commit in a directory, all of it in the local cache


def forebay_client(data: Path, *, cached: bool) -> Any:
    from cache_runtime import BlockStore, Client
    from sources import FileStore, Origins

    origins = Origins()
    origins.add(str(data)[1:] + "/", FileStore(data))
    return Client(origins, BlockStore.open(data / "cache", capacity_bytes=16 << 30) if cached else None)


def prepare_forebay(data: Path, options: argparse.Namespace) -> None:
    from loaders import ShardLayout, pack
    from sources import FileStore, scan
    from versioning import Repository, stage_import

    store, prefix = FileStore(data), f"{str(data)[1:]}/files/"
    repository = Repository.init(store, f"{str(data)[1:]}/forebay/")
    changes = stage_import(None, scan(store, prefix), store=store.id, source_prefix=prefix, target="")
    repository.commit_changes("main", changes, message="import", author="bench", base=None)
    layout = ShardLayout(shuffle=True, seed=7)
    pack(repository, "main", forebay_client(data, cached=False), layout=layout, branch="main", author="bench")
    client = forebay_client(data, cached=True)
    dataset = forebay_dataset(data, client)
    for start in range(0, len(dataset), 256):
        dataset.__getitems__(range(start, min(start + 256, len(dataset))))
    client.close()


def forebay_dataset(data: Path, client: Any) -> Any:
    from loaders import ShardDataset
    from sources import FileStore
    from versioning import Repository

    repository = Repository.open(FileStore(data), f"{str(data)[1:]}/forebay/")
    return ShardDataset.from_tree(repository.tree("main"), repository.root, client, decode=None)


def run_forebay(data: Path, options: argparse.Namespace) -> Callable[[int], Iterable[Any]]:
    from torch.utils.data import DataLoader

    from loaders import ElasticBatchSampler

    dataset = forebay_dataset(data, forebay_client(data, cached=True))
    sampler = ElasticBatchSampler(dataset, options.batch, seed=7)

    def epoch(number: int) -> Iterable[Any]:
        sampler.set_epoch(number)
        return DataLoader(dataset, batch_sampler=sampler, num_workers=options.workers, collate_fn=identity)

    return epoch


# --- webdataset: tar shards, shuffled shard list and a shuffle buffer of 1000


def prepare_webdataset(data: Path, options: argparse.Namespace) -> None:
    import webdataset

    (data / "webdataset").mkdir()
    with webdataset.ShardWriter(str(data / "webdataset/%06d.tar"), maxsize=64e6, verbose=0) as writer:
        for key, path, cls in shuffled(data):
            writer.write({"__key__": key, "bin": path.read_bytes(), "cls": cls})


def run_webdataset(data: Path, options: argparse.Namespace) -> Callable[[int], Iterable[Any]]:
    import webdataset
    from torch.utils.data import DataLoader

    urls = sorted(str(path) for path in (data / "webdataset").glob("*.tar"))

    def epoch(number: int) -> Iterable[Any]:
        dataset = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=number, empty_check=False).shuffle(1000)
        return DataLoader(dataset, batch_size=options.batch, num_workers=options.workers, collate_fn=identity)

    return epoch


# --- mosaicml-streaming: MDS shards, its default shuffle


def prepare_mosaic(data: Path, options: argparse.Namespace) -> None:
    from streaming import MDSWriter

    columns = {"bin": "bytes", "cls": "bytes"}
    with MDSWriter(out=str(data / "mosaic"), columns=columns, size_limit="64mb") as writer:
        for _key, path, cls in shuffled(data):
            writer.write({"bin": path.read_bytes(), "cls": cls})


def run_mosaic(data: Path, options: argparse.Namespace) -> Callable[[int], Iterable[Any]]:
    import streaming
    from torch.utils.data import DataLoader

    streaming.base.util.clean_stale_shared_memory()
    dataset = streaming.StreamingDataset(
        local=str(data / "mosaic"), shuffle=True, batch_size=options.batch, num_canonical_nodes=1
    )

    def epoch(number: int) -> Iterable[Any]:
        return DataLoader(dataset, batch_size=options.batch, num_workers=options.workers, collate_fn=identity)

    return epoch


# --- litdata: chunks of 64 MB, read in place


def litdata_record(row: tuple[str, bytes]) -> dict[str, bytes]:
    return {"bin": Path(row[0]).read_bytes(), "cls": row[1]}


def prepare_litdata(data: Path, options: argparse.Namespace) -> None:
    import litdata

    inputs = [(str(path), cls) for _, path, cls in shuffled(data)]
    litdata.optimize(litdata_record, inputs, str(data / "litdata"), chunk_bytes="64MB", num_workers=1)


def run_litdata(data: Path, options: argparse.Namespace) -> Callable[[int], Iterable[Any]]:
    import litdata

    dataset = litdata.StreamingDataset(str(data / "litdata"), shuffle=True, drop_last=False)

    def epoch(number: int) -> Iterable[Any]:
        dataset.set_epoch(number)
        return litdata.StreamingDataLoader(
            dataset, batch_size=options.batch, num_workers=options.workers, collate_fn=identity, shuffle=True
        )

    return epoch


# --- HF datasets: Arrow files, mapped


def prepare_huggingface(data: Path, options: argparse.Namespace) -> None:
    import datasets

    def rows() -> Iterable[dict[str, bytes]]:
        for _, path, cls in shuffled(data):
            yield {"bin": path.read_bytes(), "cls": cls}

    features = datasets.Features({"bin": datasets.Value("binary"), "cls": datasets.Value("binary")})
    made = datasets.Dataset.from_generator(rows, features=features, cache_dir=str(data / "huggingface-cache"))
    made.save_to_disk(str(data / "huggingface"), max_shard_size="64MB")


def run_huggingface(data: Path, options: argparse.Namespace) -> Callable[[int], Iterable[Any]]:
    import datasets

    return shuffled_epochs(datasets.load_from_disk(str(data / "huggingface")), options)


# --- Grain over ArrayRecord: the three bytes of the class and the payload in one record


def prepare_grain(data: Path, options: argparse.Namespace) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    (data / "grain").mkdir()
    rows = shuffled(data)
    shards = 5
    for shard in range(shards):
        # groups of one record: what ArrayRecord's documentation asks for where access is random
        writer = ArrayRecordWriter(str(data / f"grain/{shard:03d}.array_record"), "group_size:1")
        for _, path, cls in rows[shard::shards]:
            writer.write(cls + path.read_bytes())
        writer.close()


def parse_record(record: bytes) -> dict[str, bytes]:
    return {"bin": record[3:], "cls": record[:3]}


def run_grain(data: Path, options: argparse.Namespace) -> Callable[[int], Iterable[Any]]:
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # grain's workers pass absl's flags on
    source = grain.sources.ArrayRecordDataSource(sorted(str(path) for path in (data / "grain").iterdir()))

    def epoch(number: int) -> Iterable[Any]:
        order = grain.MapDataset.source(source).seed(number + 1).shuffle().map(parse_record)
        batches = order.batch(options.batch, batch_fn=list)
        reading = grain.ReadOptions(num_threads=0 if options.workers == 0 else 1, prefetch_buffer_size=2)
        if options.workers == 0:
            reading = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        made = batches.to_iter_dataset(reading)
        if options.workers:
            made = made.mp_prefetch(grain.MultiprocessingOptions(num_workers=options.workers))
        return made  # type: ignore[no-any-return]

    return epoch


def shuffled(data: Path) -> list[tuple[str, Path, bytes]]:
    """Return the records in the order in which shards hold them: classes must not clump."""
    rows = records(data)
    random.Random(7).shuffle(rows)
    return rows


PREPARE = {
    "forebay": prepare_forebay,
    "webdataset": prepare_webdataset,
    "mosaic": prepare_mosaic,
    "litdata": prepare_litdata,
    "huggingface": prepare_huggingface,
    "grain": prepare_grain,
}
RUN = {
    "forebay": run_forebay,
    "files": run_files,
    "webdataset": run_webdataset,
    "mosaic": run_mosaic,
    "litdata": run_litdata,
    "huggingface": run_huggingface,
    "grain": run_grain,
}


def cpu_seconds() -> float:
    """CPU time of this process, its threads and the workers that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def consume(batches: Iterable[Any]) -> tuple[int, int]:
    """Take every batch and touch nothing but lengths; (records, payload bytes)."""
    count = size = 0
    for batch in batches:
        count += len(batch)
        for sample in batch:
            size += len(sample["bin"])
    return count, size


def drop_page_cache() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def measure(name: str, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Time one epoch after an untimed one in the same process, or the first one with an empty page cache."""
    epoch = RUN[name](data, options)
    warm = None
    if options.cold:
        drop_page_cache()
    else:
        warm = consume(epoch(0))
    wall, cpu = time.perf_counter(), cpu_seconds()
    batches = epoch(1)
    count, size = consume(batches)
    del batches
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    if warm is not None and (count, size) != warm:
        raise SystemExit(f"{name}: two epochs differ: {warm} and {(count, size)} (records, bytes)")
    return {
        "loader": name,
        "records": count,
        "bytes": size,
        "cpu_us_per_record": cpu / count * 1e6,
        "wall_us_per_record": wall / count * 1e6,
    }


def version_of(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    wheels = {"mosaic": "mosaicml-streaming", "files": "torch", "huggingface": "datasets"}
    try:
        return version(wheels.get(name, name))
    except PackageNotFoundError:  # Forebay from its source tree
        return "source tree"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=["prepare", "run"])
    parser.add_argument("loader", choices=sorted(RUN))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = {"loader": options.loader, "version": version_of(options.loader)}
    if options.action == "run":
        result |= measure(options.loader, options.data, options)
    elif options.loader in PREPARE:
        PREPARE[options.loader](options.data, options)
    print("\n" + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
