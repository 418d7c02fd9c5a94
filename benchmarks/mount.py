"""How fast are files of a mount, cold and warm, next to JuiceFS, rclone and s3fs-fuse on the same S3, and next to ext4?

    .bench-venv/bin/python -m benchmarks.mount --rounds 3 [--scale 0.1] [--only forebay,juicefs] [--parts stream,warm]
                                               [--limit 60] [--json mount.json]

At --scale 1: 100,000 files of 10 KiB in 100 directories, and one of 1 GiB, in one S3 server on loopback (SeaweedFS).
Each mount has its usual settings and a cache on the same disk that takes all of it; JuiceFS has its own copy in a
bucket of the same server and its names in SQLite (it cannot show objects as they are), rclone `--vfs-cache-mode full`.
*packed* is Forebay with a copy of its own, too: the version that `ds pack` makes, small files in packs of 64 MiB.

Parts: *small*: mounted anew with an empty cache, random files of 10 KiB, and other ones with 16 threads. *scan*: the
same, files in the order of their paths, as most programs read them. *stream*: the large file in pieces of 1 MiB, cold.
*walk*: `find -size`, which stats each file, in a mount that was just made, and again. *warm*: all mounts at the same
time, in turns, files that were read before and are in the page cache; fio reads for a given time with one job (psync).
*restart*: the large file in a mount that was made anew for each figure, with the cache of the one before, out of the
page cache (POSIX_FADV_DONTNEED for all files of the cache, while nothing has them mapped); fio reads each piece once.

*S3 itself* is a client without a mount or a cache, the floor of all of them.

Each row has what the processor did for it: for the mount's processes, and for the S3 server, which shares the cores.
Wall times are those of a machine where all else sleeps; what else runs, runs for all. A turn that takes longer than
--limit is given up, and its mount killed. --json is written after each turn, so that what was measured stays.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import obstore

from benchmarks.mount_contestants import BUCKET, CONTESTANTS, JUICE_BUCKET, PACK_BUCKET, Place, Running, program
from benchmarks.mount_floor import bucket, get_large, get_small
from benchmarks.mount_guard import guarded
from benchmarks.mount_work import (
    SMALL_BYTES,
    OverTimeError,
    fio,
    forget,
    limited,
    read_small,
    spent,
    stream,
    timed,
    walk,
)
from benchmarks.rounds import chosen, machine, parser, shown, spread, table, take_turns, write_json
from benchmarks.source_data import body_of, key_of
from tests.services.weed import s3_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FILES = 100_000
BIG_BYTES = 1 << 30
FIO = {
    "sequential 1 MiB": ["--rw=read", "--bs=1M"],
    "random 4 KiB": ["--rw=randread", "--bs=4k"],
    "random 128 KiB": ["--rw=randread", "--bs=128k"],
}
ONCE = {
    "sequential 1 MiB": ["--rw=read", "--bs=1M"],
    "random 4 KiB": ["--rw=randread", "--bs=4k", "--io_size=16M"],
    "random 128 KiB": ["--rw=randread", "--bs=128k", "--io_size=64M"],
}
PARTS = ("small", "scan", "stream", "walk", "warm", "restart")
FLOOR, LOOSE = "S3 itself", "ext4"
_FLOORS = ("small", "scan", "stream")
_COLD_READS, _COLD_THREADED, _WARM_READS = 300, 3000, 2000


class Settings(NamedTuple):
    """What is measured.

    Attributes:
        names: Of contestants.
        parts: Of `PARTS`.
        rounds: How often.
        files: Small ones.
        big_bytes: Of the large one.
        limit_seconds: Of one turn.
        fio_seconds: How long fio reads.
        json: Where results go.
    """

    names: list[str]
    parts: list[str]
    rounds: int
    files: int
    big_bytes: int
    limit_seconds: float
    fio_seconds: float
    json: Path | None


class Bench:
    """Measures mounts of one place; what it finds is in `found`, by work, unit and contestant."""

    def __init__(self, place: Place, settings: Settings) -> None:
        self.place = place
        self.settings = settings
        self.files = settings.files
        self.found: dict[str, dict[str, list[float]]] = {}

    def run(self) -> None:
        """Measure all parts."""
        for part in self.settings.parts:
            if part == "warm":
                self._warm()
            else:
                measure: Callable[[str, int], None] = getattr(self, f"_{part}")
                floors = [FLOOR] if part in _FLOORS else [LOOSE] if part == "restart" else []
                names = [*self.settings.names, *floors]
                take_turns({name: partial(self._turn, part, name, measure) for name in names}, self.settings.rounds)

    def result(self) -> dict[str, Any]:
        """Return the machine, the settings and what was found so far."""
        results = {work: {name: spread(each, 2) for name, each in found.items()} for work, found in self.found.items()}
        sizes = {"files": self.files, "big_bytes": self.settings.big_bytes, "rounds": self.settings.rounds}
        return {"machine": machine(), **sizes, "results": results}

    def _turn(self, part: str, name: str, measure: Callable[[str, int], None], number: int) -> None:
        started = time.perf_counter()
        try:
            measure(name, number)
        except OverTimeError as error:
            print(f"{part} {number} {name}: given up, {error}", file=sys.stderr, flush=True)
        seconds = time.perf_counter() - started
        print(f"{part} {number} {name}: {seconds:.1f} s", file=sys.stderr, flush=True)
        write_json(self.settings.json, self.result())

    def _note(self, work: str, name: str, value: float) -> None:
        self.found.setdefault(work, {}).setdefault(name, []).append(value)

    @contextmanager
    def _mount(self, name: str, *, keep: bool = False) -> Iterator[Running]:
        if name == FLOOR:
            yield Running(Path(FLOOR), 0, self.place.directory)
            return
        mounting: Any = CONTESTANTS[name].mount(self.place, keep=keep)
        with mounting as running:
            forget([running.cache])
            yield running

    def _read_small(self, work: str, name: str, numbers: Sequence[int], threads: int) -> None:
        with self._mount(name) as running:
            read = partial(read_small, running) if running.pid else partial(get_small, self.place.server)
            self._measured(work, name, running, partial(read, numbers, threads))

    def _measured(self, work: str, name: str, running: Running, read: Callable[[], int]) -> None:
        """Note how much of something is read in a second, and what it costs the processor.

        Args:
            work: What is read.
            name: Of the contestant.
            running: Its mount.
            read: Reads, and returns how many files, or bytes.
        """
        before = spent(running, self.place.server.pid)
        with limited(running, self.settings.limit_seconds):
            count = read()
        after = spent(running, self.place.server.pid) - before
        is_stream = "stream" in work
        rate, unit = (count / 1e6, "MB/s") if is_stream else (count, "files/s")
        each, cost = (count / 2**30, "s/GiB") if is_stream else (count / 1e6, "us/file")
        self._note(f"{work} ({unit})", name, rate / after.wall)
        if running.pid:
            self._note(f"{work}, CPU of the mount ({cost})", name, after.mount / each)
        self._note(f"{work}, CPU of the server ({cost})", name, after.server / each)

    def _small(self, name: str, number: int) -> None:
        numbers = random.Random(number).sample(range(self.files), min(self.files, _COLD_READS + _COLD_THREADED))
        part = len(numbers) // 11
        for work, some, threads in (("1 thread", numbers[:part], 1), ("16 threads", numbers[part:], 16)):
            self._read_small(f"cold 10 KiB, {work}", name, some, threads)

    def _scan(self, name: str, number: int) -> None:
        count = min(self.files // 2, _COLD_THREADED)
        first = random.Random(number).randrange(self.files - count)
        some = sorted(range(self.files), key=key_of)[first : first + count]
        self._read_small("cold 10 KiB in order, 1 thread", name, some, 1)

    def _stream(self, name: str, number: int) -> None:
        del number
        with self._mount(name) as running:
            bare = partial(get_large, self.place.server, self.settings.big_bytes)
            read = partial(stream, running.path / "big.bin") if running.pid else bare
            self._measured("cold stream", name, running, read)

    def _walk(self, name: str, number: int) -> None:
        del number
        with self._mount(name) as running:
            for turn in ("first", "second"):
                self._measured(f"walk, {turn}", name, running, partial(walk, running, self.files))
            self._note("RSS after the walks (MiB)", name, running.rss_mib())

    def _warm(self) -> None:
        """Mount all, read all that is measured once, and measure in turns."""
        picks = random.Random(5).sample(range(self.files), min(self.files // 2, _WARM_READS))
        with ExitStack() as stack:
            mounts = {LOOSE: self._loose(picks)}
            for name in self.settings.names:
                running = stack.enter_context(self._mount(name))
                try:
                    with limited(running, 3 * self.settings.limit_seconds):
                        self._warm_up(running, picks)
                except OverTimeError as error:
                    print(f"warm {name}: given up, {error}", file=sys.stderr, flush=True)
                else:
                    mounts[name] = running
            time.sleep(2)  # what writes its cache behind the reader's back has done so
            for running in mounts.values():  # opened once more: a file that was fetched now is a file of the cache
                stream(running.path / "big.bin")
            ways = {
                name: partial(self._turn, "warm", name, partial(self._warm_turn, running, picks))
                for name, running in mounts.items()
            }
            take_turns(ways, self.settings.rounds)

    def _warm_up(self, running: Running, picks: list[int]) -> None:
        for _ in range(2):
            read_small(running, picks, 8)
            stream(running.path / "big.bin")

    def _warm_turn(self, running: Running, picks: list[int], name: str, number: int) -> None:
        del number
        self._measured("warm 10 KiB", name, running, partial(read_small, running, picks, 1))
        for work, options in FIO.items():
            self._fio(f"warm {work}", name, running, [*options, *timed(self.settings.fio_seconds)])

    def _restart(self, name: str, number: int) -> None:
        """Read through a mount that finds its cache on the disk, and nothing in the page cache."""
        if name == LOOSE:
            running = self._loose([])
            for work, options in ONCE.items():
                forget([running.path / "big.bin"])
                self._fio(f"restarted {work}", name, running, options)
            return
        if number == 0:
            with self._mount(name) as running, limited(running, 3 * self.settings.limit_seconds):
                self._warm_up(running, [])
                time.sleep(2)  # what writes its cache behind the reader's back has done so
        for work, options in ONCE.items():
            with self._mount(name, keep=True) as running:
                self._fio(f"restarted {work}", name, running, options)

    def _fio(self, work: str, name: str, running: Running, options: Sequence[str]) -> None:
        before = spent(running, self.place.server.pid)
        with limited(running, self.settings.limit_seconds):
            read = fio(running.path / "big.bin", options)
        after = spent(running, self.place.server.pid) - before
        rate, unit = (read.bytes_per_second / 1e6, "MB/s") if "sequential" in work else (read.reads, "reads/s")
        self._note(f"{work} ({unit})", name, rate)
        self._note(f"{work} (reads per CPU second of the reader)", name, read.reads_per_cpu)
        self._note(f"{work}, CPU of the mount (s/GiB)", name, after.mount / (read.total_bytes / 2**30))

    def _loose(self, picks: list[int]) -> Running:
        directory = self.place.directory / "ext4"
        for pick in picks:
            path = directory / key_of(pick).removeprefix("data/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body_of(pick, SMALL_BYTES))
        with open(directory / "big.bin", "wb") as file:
            for at in range(0, self.settings.big_bytes, 32 << 20):
                file.write(body_of(at, min(32 << 20, self.settings.big_bytes - at)))
            os.fsync(file.fileno())
        return Running(directory, 0, directory)


def run(settings: Settings, *, directory: Path | None = None) -> dict[str, Any]:
    """Measure, and return the machine, the settings and the results."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-mount-", dir=directory)))
        stack.enter_context(guarded(scratch))
        server = stack.enter_context(s3_server(scratch / "s3", buckets=(BUCKET, JUICE_BUCKET, PACK_BUCKET)))
        place = Place(scratch, server)
        _fill(place, settings.files, settings.big_bytes)
        for name in settings.names:
            print(f"preparing {name}", file=sys.stderr, flush=True)
            CONTESTANTS[name].prepare(place)
        bench = Bench(place, settings)
        bench.run()
        return bench.result()


def _fill(place: Place, files: int, big_bytes: int) -> None:
    store = bucket(place.server)
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
    made.add_argument("--parts", default=",".join(PARTS), help="what to measure, comma-separated")
    made.add_argument("--limit", type=float, default=60.0, help="seconds that one turn may take")
    made.add_argument("--seconds", type=float, default=2.0, help="how long fio reads for one figure")
    options = made.parse_args()
    parts = options.parts.split(",")
    if shutil.which("fio") is None and "warm" in parts:
        raise SystemExit("fio is not installed: apt install fio")
    if unknown := [part for part in parts if part not in PARTS]:
        raise SystemExit(f"--parts {','.join(unknown)}: not one of {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # its mounts end the usual way then
    settings = Settings(
        names=chosen(options, [name for name, contestant in CONTESTANTS.items() if program(contestant.needs)]),
        parts=parts,
        rounds=options.rounds,
        files=max(500, int(FILES * options.scale)),
        big_bytes=max(256 << 20, int(BIG_BYTES * options.scale)),
        limit_seconds=options.limit,
        fio_seconds=options.seconds,
        json=options.json,
    )
    result = run(settings, directory=options.directory)
    sizes = f"{result['files']:,} files, {result['big_bytes'] >> 20} MiB, {result['rounds']} rounds"
    print(f"{result['machine']}, {sizes}\n")
    print(report(result))
    write_json(options.json, result)


if __name__ == "__main__":
    main()
