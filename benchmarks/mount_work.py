"""The works of `benchmarks.mount`: each reads a mount in one way, and says how much it read."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.rounds import family
from benchmarks.source_data import body_of, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.mount_contestants import Running

SMALL_BYTES = 10 << 10
_SIGKILL = 9


class Spent(NamedTuple):
    """What something took, in seconds.

    Attributes:
        wall: On the clock.
        mount: Of the processor, by the mount's processes.
        server: Of the processor, by the S3 server.
    """

    wall: float
    mount: float
    server: float

    def __sub__(self, earlier: Spent) -> Spent:
        return Spent(*(now - then for now, then in zip(self, earlier, strict=True)))


def spent(running: Running, server_pid: int) -> Spent:
    """Return what was spent so far; subtract two of them."""
    return Spent(time.perf_counter(), cpu(running.pids), cpu(family(server_pid)))


def cpu(pids: Sequence[int]) -> float:
    """Return the seconds that processes have used, by the kernel's nanoseconds; of what has ended, none."""
    seconds = 0.0
    for pid in pids:
        with suppress(OSError):
            seconds += time.clock_gettime((~pid << 3) | 2)
    return seconds


class OverTimeError(Exception):
    """A mount took longer than `limited` allows, and was killed for it."""


@contextmanager
def limited(running: Running, seconds: float) -> Iterator[None]:
    """Kill a mount that takes longer: whoever reads it gets an error then, where a signal to the reader may not help.

    Raises:
        OverTimeError: Instead of that error.
    """
    over = threading.Event()

    def end() -> None:
        over.set()
        for pid in reversed(running.pids):
            with suppress(ProcessLookupError):
                os.kill(pid, _SIGKILL)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if over.is_set():
            raise OverTimeError(f"{running.path}: more than {seconds:g} s") from error
        raise
    finally:
        timer.cancel()
    if over.is_set():
        raise OverTimeError(f"{running.path}: more than {seconds:g} s")


def small_path(running: Running, number: int) -> Path:
    return running.path / key_of(number).removeprefix("data/")


def read_small(running: Running, numbers: Sequence[int], threads: int) -> int:
    """Open, read and close files; return how many."""

    def read(number: int) -> None:
        descriptor = os.open(f"{running.path}/{key_of(number)[5:]}", os.O_RDONLY)
        data = os.read(descriptor, 1 << 20)
        os.close(descriptor)
        if len(data) != SMALL_BYTES or data[:64] != body_of(number, SMALL_BYTES)[:64]:
            raise AssertionError(f"{running.path}: other bytes of {key_of(number)}")

    if threads == 1:
        for number in numbers:
            read(number)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(read, numbers))
    return len(numbers)


def stream(path: Path) -> int:
    """Read a file from front to back; return its bytes."""
    size, buffer = 0, bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            size += count
    return size


class FioResult(NamedTuple):
    """What fio found.

    Attributes:
        reads: A second.
        bytes_per_second: Likewise.
        total_bytes: In all.
        reads_per_cpu: For each second of the processor that fio and the kernel on its behalf had: what else runs on the
            machine changes it little.
    """

    reads: float
    bytes_per_second: float
    total_bytes: int
    reads_per_cpu: float


def timed(seconds: float) -> list[str]:
    """Return the options of fio for reading as long as that, again and again."""
    return [f"--runtime={seconds:g}", "--time_based"]


def fio(path: Path, options: Sequence[str]) -> FioResult:
    """Read a file, once if the options do not say otherwise."""
    command = ["fio", "--name=read", f"--filename={path}", "--readonly", "--ioengine=psync", "--invalidate=0", *options]
    command += ["--output-format=json", f"--size={path.stat().st_size}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    read, busy = job["read"], (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000
    return FioResult(read["iops"], read["bw_bytes"], read["io_bytes"], read["total_ios"] / max(busy, 1e-3))


def walk(running: Running, files: int) -> int:
    """`find` that stats each file; return how many there were."""
    command = ["find", os.fspath(running.path), "-type", "f", "-size", "+1k"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=600)
    if done.stdout.count(b"\n") != files + 1:
        raise AssertionError(f"{running.path}: {done.stdout.count(bytes([10]))} files, not {files + 1}")
    return files


def forget(places: Sequence[Path]) -> None:
    """Drop files, and all files below directories, from the page cache."""
    for place in places:
        for path in place.rglob("*") if place.is_dir() else [place]:
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)
