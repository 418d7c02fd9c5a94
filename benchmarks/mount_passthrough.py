"""How much of ext4's speed does the kernel's passthrough leave, whoever asks for it?

    .venv/bin/python -m benchmarks.mount_passthrough --rounds 7 [--with FILE]

The floor of `benchmarks.mount`'s warm rows: the smallest server there can be shows one file, has the kernel read its
backing file, and does nothing else; fio reads it and the file itself in turns, both in the page cache. Reads per second
of the processor that the reader had, so that what else runs counts little. `--with` names a file on another mount.
As root, Linux 6.9 or newer.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import stat
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.mount_work import fio, stream, timed
from benchmarks.rounds import machine, parser, table, take_turns
from cache_runtime.mount.negotiation import Wishes, agree
from cache_runtime.mount.protocol import (
    ATTR,
    ATTR_HEAD,
    BACKING_MAP,
    BACKING_OPEN,
    BUFFER_BYTES,
    ENTRY_HEAD,
    FOREVER_SECONDS,
    IN_HEADER,
    OPEN_OUT,
    OUT_HEADER,
    ROOT_ID,
    Opcode,
    OpenFlag,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_NODE = 2
_BYTES = 256 << 20


class Smallest:
    """A server of one file, in the root, of any name."""

    def __init__(self, device: int, backing: int) -> None:
        self._device = device
        self._file = backing
        self._size = os.fstat(backing).st_size
        self._backing_id = 0

    def serve(self) -> None:
        """Answer until it is unmounted."""
        while True:
            try:
                request = memoryview(os.read(self._device, BUFFER_BYTES))
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                continue
            _, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
            if opcode not in (Opcode.FORGET, Opcode.BATCH_FORGET):
                answer = self._answer(opcode, node, request[IN_HEADER.size :])
                number, body = (-errno.ENOSYS, b"") if answer is None else (0, answer)
                os.write(self._device, OUT_HEADER.pack(OUT_HEADER.size + len(body), number, unique) + body)

    def _answer(self, opcode: int, node: int, body: memoryview) -> bytes | None:
        answers: dict[int, Callable[[], bytes]] = {
            Opcode.INIT: partial(_greeting, body),
            Opcode.LOOKUP: lambda: (
                ENTRY_HEAD.pack(_NODE, 0, FOREVER_SECONDS, FOREVER_SECONDS, 0, 0) + self._attr(_NODE)
            ),
            Opcode.GETATTR: lambda: ATTR_HEAD.pack(FOREVER_SECONDS, 0, 0) + self._attr(node),
            Opcode.OPEN: lambda: OPEN_OUT.pack(0, OpenFlag.PASSTHROUGH, self._backed()),
            Opcode.RELEASE: lambda: b"",
        }
        found = answers.get(opcode)
        return None if found is None else found()

    def _attr(self, node: int) -> bytes:
        mode, size = (stat.S_IFDIR | 0o555, 0) if node == ROOT_ID else (stat.S_IFREG | 0o444, self._size)
        return ATTR.pack(node, size, size >> 9, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _backed(self) -> int:
        if not self._backing_id:
            asked = bytearray(BACKING_MAP.pack(self._file, 0, 0))
            self._backing_id = fcntl.ioctl(self._device, BACKING_OPEN, asked, True)
        return self._backing_id


def _greeting(body: memoryview) -> bytes:
    agreement = agree(body, Wishes(zero_message_opendir=True, zero_message_open=False, passthrough=True))
    assert agreement is not None
    return agreement if isinstance(agreement, bytes) else agreement.answer()


def _mounted(path: Path, point: Path) -> int:
    """Mount, and return the process that serves."""
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"smallest", os.fsencode(point), b"fuse.smallest", 0, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(point))
    server = os.fork()
    if not server:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            Smallest(device, os.open(path, os.O_RDONLY)).serve()
        finally:
            os._exit(0)
    os.close(device)
    return server


def _measure(paths: dict[str, Path], rounds: int) -> None:
    for path in paths.values():
        stream(path)
    rows = []
    for size in ("4k", "128k", "1M"):
        kind = "read" if size == "1M" else "randread"
        ways = {name: partial(_reads, path, [f"--rw={kind}", f"--bs={size}"]) for name, path in paths.items()}
        found = {name: statistics.median(each) for name, each in take_turns(ways, rounds).items()}
        rows.append([size, *(f"{each:,.0f} ({each / found['ext4']:.2f})" for each in found.values())])
    print(table(["reads per CPU second", *paths], rows))


def _reads(path: Path, options: list[str], number: int) -> float:
    del number
    return fio(path, [*options, *timed(1)]).reads_per_cpu


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, rounds=7)
    made.add_argument("--with", type=Path, dest="other", help="a file on another mount, of 256 MiB or more")
    options = made.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # its mount would stay
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        path, point = Path(scratch, "file"), Path(scratch, "mount")
        path.write_bytes(os.urandom(_BYTES))
        point.mkdir()
        server = _mounted(path, point)
        try:
            print(f"{machine()}, {options.rounds} rounds\n")
            _measure(
                {"ext4": path, "smallest": point / "file"} | ({"other": options.other} if options.other else {}),
                options.rounds,
            )
        finally:
            subprocess.run(["umount", "-l", point], check=False)
            os.waitpid(server, 0)


if __name__ == "__main__":
    main()
