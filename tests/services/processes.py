"""Processes of the tests and benchmarks: real servers and workers, on free ports of 127.0.0.1.

port = free_port()
with started(["nginx", ...], log=directory / "nginx.log", ready=lambda _: listens(port)) as process:
    ...
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    Ready: TypeAlias = Callable[["Process"], bool]

_START_SECONDS = 60
"""Java and weed take ten of them on a machine that is busy with other tests."""
_GRACE_SECONDS = 5
_KILL_SECONDS = 30
_POLL_SECONDS = 0.02
_TAIL_CHARACTERS = 2000
_PORTS = range(15000, 29000)
_FIRST_OF_CLIENTS = 32768  # from here on the kernel gives ports to clients: one that is free now may be taken at once
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL("libc.so.6")  # loaded here: a forked child of many threads could wait forever for the loader


class Process:
    """A process that runs beside the tests; see `started`.

    Attributes:
        log: What it writes to stdout and stderr.
    """

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self.log = log

    @property
    def pid(self) -> int:
        """Its id, which is that of its process group too."""
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def says(self, text: str) -> bool:
        """Whether its log has this text."""
        return text in self._log_text()

    def wait_until(self, ready: Ready, *, seconds: float = _START_SECONDS) -> None:
        """Wait for a condition.

        Raises:
            RuntimeError: If the process ends or the time is over before; the message quotes the log.
        """
        deadline = time.monotonic() + seconds
        while True:
            if not self.is_running:
                raise RuntimeError(self._described(f"ended with {self._popen.returncode} before it was ready"))
            if ready(self):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(self._described(f"was not ready within {seconds:g} s"))
            time.sleep(_POLL_SECONDS)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop it as a machine that hangs would: its connections stay open and say nothing."""
        self._popen.send_signal(signal.SIGSTOP)
        try:
            # The kernel stops each thread when it gets to it, and until then that one answers.
            self.wait_until(lambda process: _thread_states(process.pid) == {"T"})
            yield
        finally:
            self._popen.send_signal(signal.SIGCONT)

    def wait(self, seconds: float) -> int:
        """Wait until it is gone of itself; its exit code.

        Raises:
            subprocess.TimeoutExpired: If it is not.
        """
        return self._popen.wait(seconds)

    def stop(self, *, grace_seconds: float = _GRACE_SECONDS) -> int:
        """Ask it to end, kill it if it does not, and wait until it is gone; at once if it is.

        Returns:
            Its exit code; a negative one is the signal that ended it.
        """
        self._popen.terminate()
        try:
            return self._popen.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Kill it, with all of its process group, and wait until it is gone. Returns as `stop`."""
        if self.is_running:  # else the number may be another group's by now
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return self._popen.wait(_KILL_SECONDS)

    def _described(self, what: str) -> str:
        return f"{self.log.stem} {what}; its log {self.log} ends:\n{self._log_text()[-_TAIL_CHARACTERS:]}"

    def _log_text(self) -> str:
        return self.log.read_text(errors="replace")


@contextmanager
def started(
    command: Sequence[str],
    *,
    log: Path,
    ready: Ready,
    seconds: float = _START_SECONDS,
    grace_seconds: float = _GRACE_SECONDS,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """Run a process until the end of the block; it is gone then, however the block ends.

    It is killed too when the thread that started it ends: not even a killed test run leaves it behind.

    Args:
        command: Program and arguments.
        log: A file for stdout and stderr, written anew and named after the process: errors call it by that name.
        ready: Asked until it says yes: `lambda _: listens(port)`, `lambda process: process.says("serving")`.
        seconds: How long that may take.
        grace_seconds: How long it may take to end when asked to; 0 for what has nothing to keep.
        cwd: Where it runs.
        env: All of its environment; by default ours.

    Raises:
        OSError: If there is no such program.
        RuntimeError: If it ends before it is ready, or is not ready in time; the message quotes the log.
    """
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            start_new_session=True,  # Ctrl-C reaches us alone; we then stop it
            preexec_fn=_die_with_parent,
        )
    process = Process(popen, log)
    try:
        process.wait_until(ready, seconds=seconds)
        yield process
    finally:
        process.stop(grace_seconds=grace_seconds)


def free_port(offsets: Iterable[int] = (0,)) -> int:
    """Return a port of 127.0.0.1 that is free, and so are the ports at these offsets from it.

    Raises:
        RuntimeError: If none is found.
    """
    wanted = tuple(offsets)
    for _ in range(100):
        port = random.choice(_PORTS)
        if all(port + offset < _FIRST_OF_CLIENTS and _is_free(port + offset) for offset in wanted):
            return port
    raise RuntimeError("no free ports on 127.0.0.1")


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections on a port, of 127.0.0.1 by default."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _thread_states(pid: int) -> set[str]:
    states = set()
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # that one ended just now
            states.add(path.read_text().rpartition(")")[2].split()[0])
    return states


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
