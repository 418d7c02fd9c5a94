"""What it costs to write shards: CPU time a record, one process, interleaved.

    .bench-venv/bin/python -m benchmarks.shard_writers [--records 20000] [--rounds 5] [--json FILE]

Every contestant writes the same records (14 KB of random bytes and a class) from memory into shards of 64 MB in a fresh
directory, in a process of its own that has imported it before. CPU time is that of the process and its children, user
and system; wall time says more about the disk and about what else runs.

Unlike: Forebay (tar) also computes the crc32c of each member, writes an index twice, and syncs each shard to the disk,
which the others do not. litdata.optimize is a pipeline with worker processes, the other contestants are writers.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rounds import chosen, machine, parser, shown, spread, table, take_turns, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAYLOADS = 256
PAYLOAD_BYTES = 14_000
SHARD_BYTES = 64_000_000


def payloads() -> list[bytes]:
    chance = random.Random(7)
    return [chance.randbytes(PAYLOAD_BYTES) for _ in range(PAYLOADS)]


def records(count: int, data: list[bytes]) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {"__key__": f"{number:08d}", "bin": data[number % PAYLOADS], "cls": number % 1000}


def forebay(form: Any) -> Callable[[Path, int, list[bytes]], None]:
    from loaders import ShardWriter

    def write(out: Path, count: int, data: list[bytes]) -> None:
        with ShardWriter(out, format=form, shard_size=SHARD_BYTES) as writer:
            for record in records(count, data):
                writer.write(record)

    return write


def webdataset() -> Callable[[Path, int, list[bytes]], None]:
    import webdataset

    def write(out: Path, count: int, data: list[bytes]) -> None:
        with webdataset.ShardWriter(str(out / "%06d.tar"), maxsize=SHARD_BYTES, maxcount=1 << 30, verbose=0) as writer:
            for record in records(count, data):
                writer.write(record)

    return write


def mosaic() -> Callable[[Path, int, list[bytes]], None]:
    from streaming import MDSWriter

    def write(out: Path, count: int, data: list[bytes]) -> None:
        columns = {"__key__": "str", "bin": "bytes", "cls": "int"}
        with MDSWriter(out=str(out), columns=columns, size_limit=SHARD_BYTES) as writer:
            for record in records(count, data):
                writer.write(record)

    return write


def litdata_record(number: int) -> dict[str, Any]:
    if not _DATA:
        _DATA.extend(payloads())
    return {"__key__": f"{number:08d}", "bin": _DATA[number % PAYLOADS], "cls": number % 1000}


_DATA: list[bytes] = []


def litdata() -> Callable[[Path, int, list[bytes]], None]:
    import litdata

    def write(out: Path, count: int, data: list[bytes]) -> None:
        _DATA[:] = data  # for workers that are forked
        litdata.optimize(litdata_record, list(range(count)), str(out), chunk_bytes=SHARD_BYTES, num_workers=1)

    return write


CONTESTANTS: dict[str, Callable[[], Callable[[Path, int, list[bytes]], None]]] = {
    "forebay tar": lambda: forebay("tar"),
    "forebay mds": lambda: forebay("mds"),
    "webdataset": webdataset,
    "mosaicml-streaming": mosaic,
    "litdata": litdata,
}


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run_one(name: str, out: Path, count: int) -> dict[str, float]:
    """Measure in this process; a small run before it pays for what is lazy."""
    write, data = CONTESTANTS[name](), payloads()
    for warm, records_ in ((True, 500), (False, count)):
        directory = Path(tempfile.mkdtemp(dir=out))
        cpu, wall = cpu_seconds(), time.perf_counter()
        write(directory, records_, data)
        cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
        size = sum(path.stat().st_size for path in directory.rglob("*"))
        if size < records_ * PAYLOAD_BYTES:
            raise SystemExit(f"{name}: wrote {size} bytes only")
        if not warm:
            return {"cpu_us": cpu / count * 1e6, "wall_us": wall / count * 1e6, "bytes": size}
        shutil.rmtree(directory)
    raise AssertionError


def run_apart(name: str, directory: Path | None, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=directory) as out:
        command = [sys.executable, "-m", "benchmarks.shard_writers", "--one", name, "--directory", out]
        done = subprocess.run([*command, "--records", str(count)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        row: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        return row


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    line = parser(__doc__, rounds=5)
    line.add_argument("--records", type=int, default=20_000)
    line.add_argument("--one", help="measure this one here, and print JSON")
    options = line.parse_args(arguments)
    if options.one:
        print("\n" + json.dumps(run_one(options.one, options.directory, options.records)), flush=True)
        return []
    count = int(options.records * options.scale)
    names = chosen(options, CONTESTANTS)
    found = take_turns(
        {name: lambda _, name=name: run_apart(name, options.directory, count) for name in names},  # type: ignore[misc]
        options.rounds,
    )
    rows = []
    for name in names:
        cpu, wall = ([run[what] for run in found[name]] for what in ("cpu_us", "wall_us"))
        rows.append({"writer": name, "cpu_us": spread(cpu, 1), "least_cpu_us": min(cpu), "wall_us": spread(wall, 1)})
    print(f"{machine()}; {count} records of {PAYLOAD_BYTES} bytes, {options.rounds} rounds: median (quartiles)\n")
    print(
        table(
            ["writer", "CPU us/record", "least", "wall us/record"],
            [
                [row["writer"], shown(row["cpu_us"]), f"{row['least_cpu_us']:.1f}", shown(row["wall_us"])]
                for row in rows
            ],
        )
    )
    write_json(options.json, {"machine": machine(), "records": count, "rounds": found, "rows": rows})
    return rows


if __name__ == "__main__":
    main()
