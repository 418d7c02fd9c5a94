"""What it costs to put many small files, in a shuffled order, into shards of 64 MB.

    .bench-venv/bin/python -m benchmarks.pack --scale 1 [--rounds 5] [--only forebay,webdataset] [--json results.json]

At --scale 1 there are 100,000 files of 14 KB, incompressible, warm in the page cache; the default is a fifth. Every
contestant has the same loose files in the same order, in a fresh process; rounds are interleaved. Processor time is
user + system of the process and its children around the work itself, without imports of packages, and the figure to
compare: wall time depends on what else runs. What is not like for like:

- Three are no packers but the floor under them: *reading* opens, reads and closes each file into one buffer;
  *reading+sums* computes each file's CRC-32C, too, and the BLAKE3 of 7 MiB of them at a time; *reading+sums+write*
  appends them to one file as well, past the page cache, without names, headers or places.
- *forebay* is `loaders.pack` of a commit that was imported before (zero-copy); *forebay+import* has the import, too.
  Both compute BLAKE3 and CRC-32C of every file and the BLAKE3 of every shard, compare each file's version, flush each
  shard to the disk past the page cache, and commit. No peer hashes, checks or flushes.
- *forebay known* packs a commit that knows the files' hashes, as that of files that were packed or added before: it
  compares the CRC-32C of each, and computes BLAKE3 of the shards only.
- *forebay-2* is *forebay* with two processes; their start is in it.
- Those of *memory* get keys and bytes that are in memory already, as the writers of the peers are used: no file is
  read. *forebay memory* is `ShardWriter` with tars, *forebay-mds memory* with MDS; both flush each shard, the first
  computes each record's CRC-32C. *writing memory* is their floor: it appends the same bytes to one file. litdata's is
  its `BinaryWriter`.
- webdataset writes tars as Forebay does, through Python's tarfile; mosaic (MDSWriter, no compression, no hashes) and
  litdata (`optimize`, one worker process, whose start is in it) write formats of their own.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchmarks.rounds import chosen, machine, parser, shown, spread, table, take_turns, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FILES, SIZE, SHARD = 100_000, 14_000, 64 << 20
WINDOW = 7 << 20
SECONDS = 580
PEERS = {"webdataset": "webdataset", "mosaic": "streaming", "litdata": "litdata"}


def make_files(data: Path, count: int) -> None:
    """Write `files/<class>/<number>.bin`; the same bytes every time."""
    rng = np.random.default_rng(1)
    for number in range(count):
        directory = data / "files" / f"{number % 100:03d}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{number:06d}.bin").write_bytes(rng.bytes(SIZE))


def shuffled(data: Path) -> list[Path]:
    paths = sorted((data / "files").glob("*/*.bin"))
    random.Random(7).shuffle(paths)
    return paths


def reading(data: Path, out: Path, *, summed: bool = False, written: bool = False) -> Callable[[], object]:
    import google_crc32c
    from blake3 import blake3

    from sources.direct import write_direct

    paths, step = [str(path) for path in shuffled(data)], WINDOW // SIZE
    memory = mmap.mmap(-1, WINDOW)
    memory.write(bytes(WINDOW))  # its pages are there before the time begins
    window, array = memoryview(memory), np.frombuffer(memory, np.uint8)
    buffers = [window[slot * SIZE : slot * SIZE + SIZE] for slot in range(step if summed else 1)]

    def work() -> None:
        file, hasher = os.open(out / "bytes", os.O_WRONLY | os.O_CREAT), blake3()
        for begin in range(0, len(paths), step):
            some = paths[begin : begin + step]
            for number, path in enumerate(some):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                os.preadv(fd, [buffers[number % len(buffers)]], 0)
                os.close(fd)
            for slot in range(len(some) if summed else 0):
                google_crc32c.value(array[slot * SIZE : slot * SIZE + SIZE])
            if summed:
                hasher.update(window[: len(some) * SIZE])
            if written:
                write_direct(file, window[: -(-len(some) * SIZE // 4096) * 4096])
        os.close(file)

    return work


def in_memory(data: Path) -> list[tuple[str, bytes]]:
    return [(path.stem, path.read_bytes()) for path in shuffled(data)]


def writing(data: Path, out: Path) -> Callable[[], object]:
    samples = [sample for _, sample in in_memory(data)]

    def work() -> None:
        file = os.open(out / "bytes", os.O_WRONLY | os.O_CREAT)
        for begin in range(0, len(samples), 64):
            os.writev(file, samples[begin : begin + 64])
        os.close(file)

    return work


def forebay_writer(data: Path, out: Path, kind: Literal["tar", "mds"]) -> Callable[[], object]:
    from loaders import ShardWriter

    samples = in_memory(data)

    def work() -> None:
        with ShardWriter(out / "shards", format=kind, shard_size=SHARD) as writer:
            for key, sample in samples:
                writer.write({"__key__": key, "bin": sample})

    return work


def with_hashes(entries: Any, root: Path) -> Any:
    import google_crc32c
    import pyarrow as pa
    from blake3 import blake3

    files = [(root / key).read_bytes() for key in entries["key"].to_pylist()]
    sums = {
        "oid": pa.array([blake3(file).digest() for file in files], pa.binary(32)),
        "crc32c": pa.array([google_crc32c.value(file) for file in files], pa.uint32()),
    }
    for name, column in sums.items():
        entries = entries.set_column(entries.schema.get_field_index(name), entries.schema.field(name), column)
    return entries


def forebay(
    data: Path, out: Path, *, workers: int = 1, with_import: bool = False, known: bool = False
) -> Callable[[], object]:
    from cache_runtime import Client
    from loaders import PackOptions, ShardLayout, pack
    from loaders.packing.workplaces import plain_workplace
    from sources import FileStore, Origins, scan
    from versioning import ChangeSet, Repository, stage_import

    source, sink, prefix = FileStore(data), FileStore(out), f"{data}/files/"[1:]
    repository = Repository.init(sink, f"{out}/repo/"[1:])
    origins = Origins()
    origins.add(f"{data}/"[1:], source)
    workplace = plain_workplace(repository, {f"{data}/"[1:]: f"file://{data}"})

    def stage() -> None:
        changes = stage_import(None, scan(source, prefix), store=source.id, source_prefix=prefix, target="")
        if known:
            changes = ChangeSet.of_table(with_hashes(changes.upserts, Path("/")))
        repository.commit_changes("main", changes, message="import", author="bench", base=None)

    def work() -> None:
        if with_import:
            stage()
        layout = ShardLayout(shuffle=True, seed=7, shard_size=SHARD)
        options = PackOptions(workers=workers, workplace=workplace)
        pack(repository, "main", Client(origins, None), layout=layout, branch="main", author="bench", options=options)

    if not with_import:
        stage()
    return work


def samples_of(data: Path, *, memory: bool) -> Iterable[tuple[str, bytes]]:
    if memory:
        return in_memory(data)
    paths = shuffled(data)
    return ((path.stem, read_for_peer(str(path))) for path in paths)


def read_for_peer(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def webdataset(data: Path, out: Path, *, memory: bool = False) -> Callable[[], object]:
    import webdataset as wds

    samples = samples_of(data, memory=memory)

    def work() -> None:
        with wds.ShardWriter(str(out / "%06d.tar"), maxsize=SHARD, maxcount=1 << 40, verbose=0) as writer:
            for key, sample in samples:
                writer.write({"__key__": key, "bin": sample})

    return work


def mosaic(data: Path, out: Path, *, memory: bool = False) -> Callable[[], object]:
    from streaming import MDSWriter

    samples = samples_of(data, memory=memory)

    def work() -> None:
        with MDSWriter(out=str(out / "mds"), columns={"bin": "bytes"}, size_limit=SHARD) as writer:
            for _, sample in samples:
                writer.write({"bin": sample})

    return work


def read_for_litdata(path: str) -> dict[str, bytes]:
    return {"bin": read_for_peer(path)}


def litdata(data: Path, out: Path) -> Callable[[], object]:
    import litdata as lit

    paths = [str(path) for path in shuffled(data)]
    return lambda: lit.optimize(read_for_litdata, paths, str(out / "lit"), chunk_bytes="64MB", num_workers=1)


def litdata_memory(data: Path, out: Path) -> Callable[[], object]:
    from litdata.streaming.writer import BinaryWriter

    samples = in_memory(data)

    def work() -> None:
        writer = BinaryWriter(str(out / "lit"), chunk_bytes="64MB")
        for number, (_, sample) in enumerate(samples):
            writer[number] = {"bin": sample}
        writer.done()
        writer.merge()

    return work


CONTESTANTS: dict[str, Callable[[Path, Path], Callable[[], object]]] = {
    "reading": reading,
    "reading+sums": lambda data, out: reading(data, out, summed=True),
    "reading+sums+write": lambda data, out: reading(data, out, summed=True, written=True),
    "forebay": forebay,
    "forebay known": lambda data, out: forebay(data, out, known=True),
    "forebay+import": lambda data, out: forebay(data, out, with_import=True),
    "forebay-2": lambda data, out: forebay(data, out, workers=2),
    "webdataset": webdataset,
    "mosaic": mosaic,
    "litdata": litdata,
    "writing memory": writing,
    "forebay memory": lambda data, out: forebay_writer(data, out, "tar"),
    "forebay-mds memory": lambda data, out: forebay_writer(data, out, "mds"),
    "webdataset memory": lambda data, out: webdataset(data, out, memory=True),
    "mosaic memory": lambda data, out: mosaic(data, out, memory=True),
    "litdata memory": litdata_memory,
}


def run_here(name: str, data: Path, out: Path) -> dict[str, float]:
    """Run one contestant in this process, and return what it cost."""
    work = CONTESTANTS[name](data, out)
    for path in shuffled(data):  # other work on the machine may have pushed some out of the page cache
        path.read_bytes()

    def cpu() -> float:
        return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

    began, before = time.perf_counter(), cpu()
    work()
    return {"wall": time.perf_counter() - began, "cpu": cpu() - before}


def run_apart(name: str, data: Path, scratch: Path) -> dict[str, float]:
    """Run one contestant in a process of its own."""
    out = Path(tempfile.mkdtemp(prefix="out-", dir=scratch))
    command = [sys.executable, "-m", "benchmarks.pack", "--run", name, "--data", str(data), "--out", str(out)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=Path(__file__).parent.parent
        )
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found
    finally:
        shutil.rmtree(out)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    names = [name for name in CONTESTANTS if find_spec(PEERS.get(name.partition(" ")[0], "numpy"))]
    count = max(10, int(FILES * options.scale))
    with tempfile.TemporaryDirectory(prefix="forebay-bench-", dir=options.directory) as directory:
        scratch = Path(os.path.realpath(directory))
        make_files(scratch, count)
        ways = {name: lambda _, name=name: run_apart(name, scratch, scratch) for name in chosen(options, names)}
        found = take_turns(ways, options.rounds)
    rows = []
    for name, costs in found.items():
        cpu = [cost["cpu"] / count * 1e6 for cost in costs]
        wall = spread([cost["wall"] for cost in costs])
        rows.append({"name": name, "cpu_us": spread(cpu, 1), "cpu_us_min": round(min(cpu), 1), "wall": wall})
    print(f"{count:,} files of {SIZE} bytes, {options.rounds} rounds; {machine()}\n")
    lines = [(row["name"], shown(row["cpu_us"]), row["cpu_us_min"], shown(row["wall"])) for row in rows]
    print(table(["contestant", "CPU us a record: median (quartiles)", "least", "wall, s"], lines))
    write_json(options.json, {"files": count, "rounds": options.rounds, "machine": machine(), "rows": rows})
    return rows


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    made = parser(__doc__, rounds=5)
    made.set_defaults(scale=0.2)
    made.add_argument("--run", help=argparse.SUPPRESS)
    made.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    made.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = made.parse_args(arguments)
    if options.run:
        print(json.dumps(run_here(options.run, options.data, options.out)))
        return []
    return measure(options)


if __name__ == "__main__":
    main()
