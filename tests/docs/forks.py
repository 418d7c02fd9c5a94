"""`ds` without its start: a server that has loaded all of it forks for each command, as if it were a new process.

The documents run a hundred commands; of each, most of the time is Python loading libraries. The commands of
tests/ds/test_starting.py, test_interrupts.py and `make demo` are real processes from their first instruction.

python -m tests.docs.forks SOCKET
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import sys
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from tests.services.processes import started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LENGTH = 8  # digits
_CLIENT = """\
#!{python} -SE
import json, os, signal, socket, sys
mask = os.umask(0)
asked = {{"arguments": sys.argv[1:], "directory": os.getcwd(), "environment": dict(os.environ), "mask": mask}}
asked = json.dumps(asked).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"%08d" % len(asked)], [0, 1, 2])
    server.sendall(asked)
    answers = server.makefile()
    child = int(answers.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os.kill(child, number))
    sys.exit(int(answers.readline()))
"""


@contextmanager
def forked_ds(directory: Path) -> Iterator[Path]:
    """Run the server; a directory with a program `ds` for PATH."""
    address = directory / "forks"
    programs = directory / "bin"
    programs.mkdir(parents=True)
    (programs / "ds").write_text(_CLIENT.format(python=sys.executable, address=str(address)))
    (programs / "ds").chmod(0o755)
    command = [sys.executable, "-m", "tests.docs.forks", str(address)]
    with started(command, log=directory / "forks.log", ready=lambda _: address.exists(), grace_seconds=0):
        yield programs


def serve(address: str) -> None:
    """Fork for each that connects."""
    from ds.arrow import load_leanly
    from ds.cli import main
    from ds.commands.table import COMMANDS

    load_leanly()
    for places in COMMANDS.values():
        for place, _ in places.values():
            import_module(f"ds.commands.{place.partition(':')[0]}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address + ".new")
        listener.listen(16)
        os.rename(address + ".new", address)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(connection, main)
            connection.close()


def _answer(connection: socket.socket, main: object) -> None:
    """Run one command in a child, and say its number and how it ended."""
    header, fds, _, _ = socket.recv_fds(connection, _LENGTH, 3)
    asked = b""
    while len(asked) < int(header):
        asked += connection.recv(1 << 16)
    child = os.fork()
    if child == 0:
        connection.close()
        _become(json.loads(asked), fds)
        code = 70
        try:
            assert callable(main)
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    connection.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    connection.sendall(f"{code if code >= 0 else 128 - code}\n".encode())
    os._exit(0)


def _become(asked: dict[str, object], fds: list[int]) -> None:
    """Be as a new process would be."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdin = io.TextIOWrapper(open(0, "rb", closefd=False))  # noqa: SIM115 - as long as the process
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False))  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(open(2, "wb", closefd=False), errors="backslashreplace", line_buffering=True)  # noqa: SIM115
    assert isinstance(asked["arguments"], list)
    assert isinstance(asked["environment"], dict)
    os.umask(int(str(asked["mask"])))
    os.chdir(str(asked["directory"]))
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["ds", *asked["arguments"]]


if __name__ == "__main__":
    serve(sys.argv[1])
