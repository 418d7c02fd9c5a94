"""Programs that read a mount without end and compare each byte with the disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from tests.cache_runtime.mount.mounted import Mounted

WAIT_SECONDS = 60.0

READER = """
import mmap, os, random, sys
objects, mounted, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
pick = random.Random(seed)
names = sorted(os.listdir(objects))

def read(file, length, start):  # a read that fails halfway is short, the next one tells why
    data = b""
    while len(data) < length and (part := os.pread(file, length - len(data), start + len(data))):
        data += part
    return data

known = {name: open(os.path.join(objects, name), "rb").read() for name in names}
try:
    while True:
        name = pick.choice(names)
        expected, path = known[name], os.path.join(mounted, name)
        assert os.stat(path).st_size == len(expected)
        file = os.open(path, os.O_RDONLY)
        for _ in range(pick.randrange(1, 8)):
            start, length = pick.randrange(len(expected) + 10), pick.choice([1, 100, 4096, 70_000, 2 << 20])
            assert read(file, length, start) == expected[start:start + length], (name, start, length)
        os.close(file)
        assert set(os.listdir(mounted)) == set(names)
        sys.stdout.write(".")
        sys.stdout.flush()
except OSError as error:
    sys.exit(error.errno)
"""


class Readers:
    """Some programs that read all the time; each file that one has read is a dot of its output."""

    def __init__(self, mounted: Mounted, count: int) -> None:
        self._mounted = mounted
        self._seed = 0
        self._all = [self._start() for _ in range(count)]

    def _start(self) -> subprocess.Popen[bytes]:
        self._seed += 1
        words = [sys.executable, "-c", READER, str(self._mounted.objects), str(self._mounted.path), str(self._seed)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all:
            process.kill()
            process.wait(WAIT_SECONDS)
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()

    def await_reads(self, count: int) -> None:
        """Wait until all of them together have read this many files, and each is alive."""
        deadline = time.monotonic() + WAIT_SECONDS
        while count > 0:
            for process in self._all:
                assert process.poll() is None, self._told(process)
                assert process.stdout is not None
                count -= len(process.stdout.read() or b"")
            assert time.monotonic() < deadline, "the readers are too slow, or hang"
            time.sleep(0.01)

    def kill_one(self, number: int) -> None:
        """Kill a program with SIGKILL, and start another one."""
        process, self._all[number] = self._all[number], self._start()
        process.kill()
        process.wait(WAIT_SECONDS)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()

    def ends(self, seconds: float) -> set[int]:
        """Wait for all of them to end by themselves, and return their exit codes: errno of what a read failed with."""
        return {process.wait(seconds) for process in self._all}

    def stop(self) -> None:
        """Stop them all; each must have been alive, so all that it read was right."""
        for process in self._all:
            assert process.poll() is None, self._told(process)
            process.kill()
            process.wait(WAIT_SECONDS)

    def _told(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stderr is not None
        return f"exit code {process.returncode}: {process.stderr.read().decode()}"
