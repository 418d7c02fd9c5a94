"""How fast are files of a mount, cold and warm, next to JuiceFS, rclone and s3fs-fuse on the same S3, and next to ext4?

    .bench-venv/bin/python -m benchmarks.mount --rounds 3 [--scale 0.1] [--only forebay,juicefs] [--json mount.json]

At --scale 1: 100,000 files of 10 KiB in 100 directories, and one of 1 GiB, in one S3 server on loopback (SeaweedFS).
Each mount has its usual settings and a cache on the same disk that takes all of it; JuiceFS has its own copy in a
bucket of the same server and its names in SQLite (it cannot show objects as they are), rclone `--vfs-cache-mode full`.

*cold*: mounted anew with an empty cache, once a round; each reads the same files, and other ones with 16 threads. The
stream is read in pieces of 1 MiB. *warm*: all mounts at the same time, in turns, files that were read before; *kept*:
in the page cache; *dropped*: out of it (POSIX_FADV_DONTNEED for the file and for all files of the mount's cache), so
that the mount has to read them. fio reads for a given time with one job (psync). *walk*: `find -size`, which stats each
file, in a mount that was just made, and again. CPU: of the mount's processes, per GiB of the cold stream and of the
warm sequential reading. Wall times are those of a machine where all else sleeps; what else runs, runs for all.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.mount_contestants import BUCKET, CONTESTANTS, JUICE_BUCKET, Place, Running, program
from benchmarks.rounds import chosen, machine, parser, shown, spread, table, take_turns, write_json
from benchmarks.source_data import body_of, key_of
from tests.services.weed import s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = 100_000
SMALL_BYTES = 10 << 10
BIG_BYTES = 1 << 30
FIO = {
    "sequential 1 MiB": ["--rw=read", "--bs=1M"],
    "random 4 KiB": ["--rw=randread", "--bs=4k"],
    "random 128 KiB": ["--rw=randread", "--bs=128k"],
}
_FIO_SECONDS = 3
_COLD_READS, _COLD_THREADED, _WARM_READS = 300, 3000, 2000


class Bench:
    """Measures mounts of one place; what it finds is in `found`, by work, unit and contestant."""

    def __init__(self, place: Place, files: int, big_bytes: int) -> None:
        self.place = place
        self.files = files
        self.big_bytes = big_bytes
        self.found: dict[str, dict[str, list[float]]] = {}

    def note(self, work: str, name: str, value: float) -> None:
        self.found.setdefault(work, {}).setdefault(name, []).append(value)

    def cold(self, name: str, number: int) -> None:
        """Mount anew for each work, and measure it."""
        draw = random.Random(number)
        numbers = draw.sample(range(self.files), min(self.files, _COLD_READS + _COLD_THREADED))
        part = len(numbers) // 11
        for work, some, threads in (("1 thread", numbers[:part], 1), ("16 threads", numbers[part:], 16)):
            with self._mount(name) as running:
                self.note(f"cold 10 KiB, {work} (files/s)", name, _read_small(running, some, threads))
        with self._mount(name) as running:
            started, before = time.perf_counter(), _cpu(running)
            size = _stream(running.path / "big.bin")
            self.note("cold stream (MB/s)", name, size / (time.perf_counter() - started) / 1e6)
            self.note("CPU of the mount, cold stream (s/GiB)", name, (_cpu(running) - before) / size * 2**30)
        with self._mount(name) as running:
            for turn in ("first", "second"):
                self.note(f"walk, {turn} (files/s)", name, _walk(running, self.files))
            self.note("RSS after the walks (MiB)", name, running.rss_mib())

    @contextmanager
    def _mount(self, name: str, *, keep: bool = False) -> Iterator[Running]:
        mounting: Any = CONTESTANTS[name].mount(self.place, keep=keep)
        with mounting as running:
            _forget([running.cache])
            yield running

    def warm(self, names: list[str], rounds: int) -> None:
        """Mount all, read all that is measured once, and measure in turns."""
        picks = random.Random(5).sample(range(self.files), min(self.files, _WARM_READS))
        with ExitStack() as stack:
            mounts = {name: stack.enter_context(self._mount(name)) for name in names}
            mounts["ext4"] = self._loose(picks)
            for running in mounts.values():
                for _ in range(2):
                    _read_small(running, picks, 8)
                    _stream(running.path / "big.bin")
            time.sleep(2)  # what writes its cache behind the reader's back has done so
            for running in mounts.values():  # opened once more: a file that was fetched now is a file of the cache
                _stream(running.path / "big.bin")
            for cached in ("kept", "dropped"):
                ways = {
                    name: partial(self._warm_turn, name, running, picks, cached) for name, running in mounts.items()
                }
                take_turns(ways, rounds)

    def _warm_turn(self, name: str, running: Running, picks: list[int], cached: str, number: int) -> None:
        del number
        big = running.path / "big.bin"
        if cached == "dropped":
            _forget([running.cache, *(_small(running, pick) for pick in picks)])
        self.note(f"warm 10 KiB, {cached} (files/s)", name, _read_small(running, picks, 1))
        for work, options in FIO.items():
            if cached == "dropped":
                _forget([running.cache, big])
            before = _cpu(running)
            reads, size = _fio(big, options)
            rate, unit = (size / 1e6, "MB/s") if "sequential" in work else (reads, "reads/s")
            self.note(f"warm {work}, {cached} ({unit})", name, rate)
            if "sequential" in work and running.pids:
                spent = _cpu(running) - before
                self.note(
                    f"CPU of the mount, sequential, {cached} (s/GiB)", name, spent / (size * _FIO_SECONDS) * 2**30
                )

    def _loose(self, picks: list[int]) -> Running:
        directory = self.place.directory / "ext4"
        for pick in picks:
            path = directory / key_of(pick).removeprefix("data/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body_of(pick, SMALL_BYTES))
        with open(directory / "big.bin", "wb") as file:
            for at in range(0, self.big_bytes, 32 << 20):
                file.write(body_of(at, min(32 << 20, self.big_bytes - at)))
            os.fsync(file.fileno())
        return Running(directory, 0, directory)


def _small(running: Running, number: int) -> Path:
    return running.path / key_of(number).removeprefix("data/")


def _read_small(running: Running, numbers: list[int], threads: int) -> float:
    """Open, read and close files; return how many a second."""

    def read(number: int) -> None:
        descriptor = os.open(f"{running.path}/{key_of(number)[5:]}", os.O_RDONLY)
        data = os.read(descriptor, 1 << 20)
        os.close(descriptor)
        if len(data) != SMALL_BYTES or data[:64] != body_of(number, SMALL_BYTES)[:64]:
            raise AssertionError(f"{running.path}: other bytes of {key_of(number)}")

    started = time.perf_counter()
    if threads == 1:
        for number in numbers:
            read(number)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(read, numbers))
    return len(numbers) / (time.perf_counter() - started)


def _stream(path: Path) -> int:
    size, buffer = 0, bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            size += count
    return size


def _fio(path: Path, options: list[str]) -> tuple[float, float]:
    """Return reads and bytes a second."""
    command = ["fio", "--name=read", f"--filename={path}", "--readonly", "--ioengine=psync", "--invalidate=0", *options]
    command += [f"--runtime={_FIO_SECONDS}", "--time_based", "--output-format=json", f"--size={path.stat().st_size}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    read = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]["read"]
    return read["iops"], read["bw_bytes"]


def _walk(running: Running, files: int) -> float:
    command = ["find", os.fspath(running.path), "-type", "f", "-size", "+1k"]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, timeout=600)
    seconds = time.perf_counter() - started
    if done.stdout.count(b"\n") != files + 1:
        raise AssertionError(f"{running.path}: {done.stdout.count(bytes([10]))} files, not {files + 1}")
    return files / seconds


def _cpu(running: Running) -> float:
    """Return the seconds that the mount's processes have used."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in running.pids)


def _forget(places: list[Path]) -> None:
    """Drop files, and all files below directories, from the page cache."""
    for place in places:
        for path in place.rglob("*") if place.is_dir() else [place]:
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


def run(*, names: list[str], rounds: int, scale: float, directory: Path | None = None) -> dict[str, Any]:
    """Measure, and return the machine, the settings and the results."""
    files, big_bytes = max(500, int(FILES * scale)), max(64 << 20, int(BIG_BYTES * scale))
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-mount-", dir=directory)))
        server = stack.enter_context(s3_server(scratch / "s3", buckets=(BUCKET, JUICE_BUCKET)))
        place = Place(scratch, server)
        _fill(place, files, big_bytes)
        for name in names:
            print(f"preparing {name}", file=sys.stderr, flush=True)
            CONTESTANTS[name].prepare(place)
        bench = Bench(place, files, big_bytes)
        take_turns({name: partial(_told, bench, name) for name in names}, rounds)
        print("warm", file=sys.stderr, flush=True)
        bench.warm(names, rounds)
    results = {work: {name: spread(each, 2) for name, each in found.items()} for work, found in bench.found.items()}
    return {"machine": machine(), "files": files, "big_bytes": big_bytes, "rounds": rounds, "results": results}


def _told(bench: Bench, name: str, number: int) -> None:
    print(f"cold {number} {name}", file=sys.stderr, flush=True)
    bench.cold(name, number)


def _fill(place: Place, files: int, big_bytes: int) -> None:
    import obstore
    from obstore.store import S3Store

    keys: Any = {"access_key_id": place.server.key, "secret_access_key": place.server.secret}
    store = S3Store(BUCKET, config={**keys, "endpoint": place.server.endpoint}, client_options={"allow_http": True})
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda at: obstore.put(store, key_of(at), bytes(body_of(at, SMALL_BYTES))), range(files)))
    parts = (bytes(body_of(at, min(32 << 20, big_bytes - at))) for at in range(0, big_bytes, 32 << 20))
    obstore.put(store, "data/big.bin", parts)


def report(result: dict[str, Any]) -> str:
    names = list(dict.fromkeys(name for found in result["results"].values() for name in found))
    rows = [
        [work, *(shown(found[name]) if name in found else "" for name in names)]
        for work, found in result["results"].items()
    ]
    return table(["work", *names], rows)


def main() -> None:
    """Parse the command line, measure and print."""
    made = parser(__doc__, rounds=3)
    options = made.parse_args()
    if shutil.which("fio") is None:
        raise SystemExit("fio is not installed: apt install fio")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or its mounts would stay
    names = chosen(options, [name for name, contestant in CONTESTANTS.items() if program(contestant.needs)])
    result = run(names=names, rounds=options.rounds, scale=options.scale, directory=options.directory)
    print(
        f"{result['machine']}, {result['files']:,} files, {result['big_bytes'] >> 20} MiB, {result['rounds']} rounds\n"
    )
    print(report(result))
    write_json(options.json, result)


if __name__ == "__main__":
    main()
