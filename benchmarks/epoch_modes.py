"""CPU and wall time of one epoch through `Loader`'s modes and through torch's DataLoader, on the same data set.

    python -m benchmarks.epoch_modes                      # bytes of 14 KB, and a transform that decodes
    python -m benchmarks.epoch_modes --rounds 7 --only thread,process,torch

Data: files in a repository, packed, in the cache and in the page cache. `raw`: 14 KB each, as bytes. `decode`: JPEGs of
500 x 375 at quality 90 into a crop of 224, by `ImageCrop`, which gives up the interpreter's lock. `python`: 14 KB each,
and a transform in pure Python that takes 1 ms or so and keeps the lock.

All loaders live in one process and take turns, an epoch each, after one that is not measured; workers stay between
epochs (`persistent_workers`). Processor time is that of the process, its threads and its workers while the epoch runs,
and the figure to compare: wall time depends on what else the machine does. `torch` is a DataLoader with the same data
set, order and collate function; what differs is who makes batches and how they come over. `torch0` has no workers.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.rounds import Stopwatch, chosen, family, machine, parser, shown, spread, table, take_turns, write_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

BATCH = 64
LOADERS = ("sync", "thread", "process", "torch0", "torch")


def records(kind: str, scale: float) -> dict[str, bytes]:
    draw = np.random.default_rng(7)
    if kind == "decode":
        return {f"{number:06d}.jpg": jpeg(draw) for number in range(max(64, int(512 * scale)))}
    count = max(128, int({"raw": 20_000, "python": 1500}[kind] * scale))
    sizes = draw.lognormal(9.4, 0.5, count).astype(int)
    return {f"{number:06d}.bin": draw.bytes(int(size)) for number, size in enumerate(sizes)}


def jpeg(draw: np.random.Generator) -> bytes:
    """Make a picture that is neither flat nor noise."""
    from PIL import Image

    coarse = draw.integers(0, 256, (25, 34, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
    noisy = np.asarray(image).astype(np.int16) + draw.integers(-12, 13, (375, 500, 3))
    stream = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def burn(sample: dict[str, Any]) -> dict[str, Any]:
    """Do what keeps the interpreter's lock for about a millisecond."""
    total = 0
    for number in range(20_000):
        total += number & 3
    return {"__key__": sample["__key__"], "total": total}


def packed(kind: str, data: Path, scale: float) -> Any:
    from cache_runtime import BlockStore, Client
    from loaders import ShardDataset, ShardLayout, pack
    from loaders.decoding import ImageCrop
    from sources import FileStore, Origins, scan
    from versioning import Repository, stage_import

    (data / "files").mkdir(parents=True)
    for name, body in records(kind, scale).items():
        (data / "files" / name).write_bytes(body)
    store, top = FileStore(data), f"{str(data)[1:]}/"
    origins = Origins()
    origins.add(top, store)
    client = Client(origins, BlockStore.open(data / "cache", capacity_bytes=4 << 30))
    repository = Repository.init(store, f"{top}repo/")
    staged = stage_import(None, scan(store, f"{top}files/"), store=store.id, source_prefix=f"{top}files/", target="")
    repository.commit_changes("main", staged, message="import", author="bench", base=None)
    pack(repository, "main", client, layout=ShardLayout(shuffle=True, seed=7), branch="main", author="bench")
    ways: dict[str, dict[str, Any]] = {
        "raw": {"decode": None},
        "decode": {"decode": {"jpg": ImageCrop((224, 224))}},
        "python": {"decode": None, "transform": burn},
    }
    return ShardDataset.from_tree(repository.tree("main"), repository.root, client, **ways[kind])


def made(name: str, dataset: Any, kind: str, workers: int) -> Any:
    """Return a loader and what sets its epoch."""
    from torch.utils.data import DataLoader

    from loaders import ElasticBatchSampler, Loader
    from loaders.running import choose_collate

    collate: Any = "list" if kind == "raw" else "torch"
    if not name.startswith("torch"):
        mode: Any = name
        loader: Any = Loader(dataset, BATCH, seed=7, mode=mode, workers=workers, collate=collate)
        return loader, loader.set_epoch
    sampler = ElasticBatchSampler(dataset, BATCH, seed=7)
    number = 0 if name == "torch0" else workers
    options: dict[str, Any] = {"persistent_workers": True, "multiprocessing_context": "forkserver"} if number else {}
    stock = DataLoader(
        dataset, batch_sampler=sampler, num_workers=number, collate_fn=choose_collate(collate), **options
    )
    return stock, sampler.set_epoch


def epoch_of(loader: Iterable[Any], set_epoch: Callable[[int], None]) -> Callable[[int], Any]:
    import os

    def epoch(number: int) -> Any:
        set_epoch(number + 1)
        watch = Stopwatch([pid for pid in family(os.getpid()) if pid != os.getpid()])
        batches = sum(1 for _ in loader)
        return batches, watch.cost()

    return epoch


def measure(kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        dataset = packed(kind, Path(scratch).resolve() / "data", options.scale)
        loaders = {name: made(name, dataset, kind, options.workers) for name in chosen(options, LOADERS)}
        ways = {name: epoch_of(*loader) for name, loader in loaders.items()}
        for way in ways.values():
            way(-1)  # workers start, decoders are imported, the cache is filled
        rounds = take_turns(ways, options.rounds)
        if len({batches for runs in rounds.values() for batches, _ in runs}) != 1:
            raise SystemExit(f"{kind}: the loaders made different numbers of batches: {rounds}")
        for loader, _ in loaders.values():
            if hasattr(loader, "close"):
                loader.close()
        n = len(dataset)
        return [
            {
                "work": kind,
                "loader": name,
                "cpu_us": spread([cost.cpu / n * 1e6 for _, cost in runs], 1),
                "wall_us": spread([cost.wall / n * 1e6 for _, cost in runs], 1),
            }
            for name, runs in rounds.items()
        ]


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    made_parser = parser(__doc__, rounds=5)
    made_parser.add_argument("--workers", type=int, default=2)
    made_parser.add_argument("--work", default="raw,decode,python", help="comma-separated")
    options = made_parser.parse_args(arguments)
    rows = [row for kind in options.work.split(",") for row in measure(kind, options)]
    cells = [[row["work"], row["loader"], shown(row["cpu_us"]), shown(row["wall_us"])] for row in rows]
    print(f"{machine()}; {options.workers} workers, batch {BATCH}, {options.rounds} rounds\n")
    print(table(["work", "loader", "CPU us/record", "wall us/record"], cells))
    write_json(options.json, {"machine": machine(), "rows": rows})
    return rows


if __name__ == "__main__":
    main()
