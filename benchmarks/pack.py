"""What it costs to put many small files, in a shuffled order, into shards of 64 MB.

    .bench-venv/bin/python -m benchmarks.pack --scale 1 [--rounds 5] [--only forebay,webdataset] [--json results.json]

At --scale 1 there are 100,000 files of 14 KB, incompressible, warm in the page cache; the default is a fifth. Every
contestant reads the same loose files in the same order, in a fresh process; rounds are interleaved. Processor time is
user + system of the process and its children around the work itself, without imports of packages, and the figure to
compare: wall time depends on what else runs. What is not like for like:

- *reading* is no packer: it opens, reads and closes each file into one buffer, which all the others do, too. It is the
  floor under them.
- *forebay* is `loaders.pack` of a commit that was imported before (zero-copy); *forebay+import* has the import, too.
  Both compute BLAKE3 and CRC-32C of every file and the BLAKE3 of every shard, compare each file's version, flush each
  shard to the disk past the page cache, and commit. No peer hashes, checks or flushes.
- *forebay known* packs a commit that knows the files' hashes, as that of files that were packed or added before: it
  compares the CRC-32C of each, and computes BLAKE3 of the shards only.
- *forebay-2* is *forebay* with two processes; their start is in it.
- webdataset writes tars as Forebay does, through Python's tarfile; mosaic (MDSWriter, no compression, no hashes) and
  litdata (`optimize`, one worker process, whose start is in it) write formats of their own.
"""

from __future__ import annotations

import argparse
import json
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
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.rounds import chosen, machine, parser, shown, spread, table, take_turns, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

FILES, SIZE, SHARD = 100_000, 14_000, 64 << 20
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


def reading(data: Path, out: Path) -> Callable[[], object]:
    paths, buffer = [str(path) for path in shuffled(data)], memoryview(bytearray(SIZE))

    def work() -> None:
        for path in paths:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            os.preadv(fd, [buffer], 0)
            os.close(fd)

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


def webdataset(data: Path, out: Path) -> Callable[[], object]:
    import webdataset as wds

    paths = shuffled(data)

    def work() -> None:
        with wds.ShardWriter(str(out / "%06d.tar"), maxsize=SHARD, maxcount=1 << 40, verbose=0) as writer:
            for path in paths:
                with open(path, "rb") as file:
                    writer.write({"__key__": path.stem, "bin": file.read()})

    return work


def mosaic(data: Path, out: Path) -> Callable[[], object]:
    from streaming import MDSWriter

    paths = shuffled(data)

    def work() -> None:
        with MDSWriter(out=str(out / "mds"), columns={"bin": "bytes"}, size_limit=SHARD) as writer:
            for path in paths:
                with open(path, "rb") as file:
                    writer.write({"bin": file.read()})

    return work


def read_for_litdata(path: str) -> dict[str, bytes]:
    with open(path, "rb") as file:
        return {"bin": file.read()}


def litdata(data: Path, out: Path) -> Callable[[], object]:
    import litdata as lit

    paths = [str(path) for path in shuffled(data)]
    return lambda: lit.optimize(read_for_litdata, paths, str(out / "lit"), chunk_bytes="64MB", num_workers=1)


CONTESTANTS: dict[str, Callable[[Path, Path], Callable[[], object]]] = {
    "reading": reading,
    "forebay": forebay,
    "forebay known": lambda data, out: forebay(data, out, known=True),
    "forebay+import": lambda data, out: forebay(data, out, with_import=True),
    "forebay-2": lambda data, out: forebay(data, out, workers=2),
    "webdataset": webdataset,
    "mosaic": mosaic,
    "litdata": litdata,
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
    names = [name for name in CONTESTANTS if name not in PEERS or find_spec(PEERS[name])]
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
