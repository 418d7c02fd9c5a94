from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.services.processes import Process, free_port, listens, started

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

ECHO = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        with server.accept()[0] as client:
            while data := client.recv(100):
                client.sendall(data)
"""
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
print("child", child, flush=True) if child else None
time.sleep(60)
"""


def python(code: str, directory: Path, *arguments: object, ready: str = "") -> AbstractContextManager[Process]:
    """Run a program until it says something."""
    return started(
        [sys.executable, "-c", code, *map(str, arguments)],
        log=directory / "program.log",
        ready=lambda process: process.says(ready),
        seconds=20,
        grace_seconds=0.2,
    )


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_is_there_when_it_is_ready_and_gone_after_the_block(tmp_path: Path) -> None:
    port = free_port()
    assert not listens(port)
    with started(
        [sys.executable, "-c", ECHO, str(port)], log=tmp_path / "echo.log", ready=lambda _: listens(port)
    ) as process:
        assert process.is_running
        assert listens(port)
    assert not process.is_running
    assert process.stop() == -signal.SIGTERM, "stopping again says how it ended"


def test_a_port_is_free_with_those_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_port((0, 10_000)) in range(15_000, 22_768), "above are the ports of clients"
    first = free_port(range(5))
    monkeypatch.setattr("tests.services.processes._PORTS", [first])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 4))
        with pytest.raises(RuntimeError, match="no free ports"):
            free_port(range(5))


def test_a_process_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"(?s)program ended with 3 before.*program.log ends:\nno licence"),
        python("import sys; print('no licence'); sys.exit(3)", tmp_path, ready="serving"),
    ):
        pass


def test_a_process_that_is_not_ready_in_time_is_quoted_and_gone(tmp_path: Path) -> None:
    code = "import os, time; print('at work as', os.getpid(), flush=True); time.sleep(60)"
    with (
        pytest.raises(RuntimeError, match=r"(?s)not ready within 1 s.*at work"),
        started([sys.executable, "-c", code], log=tmp_path / "slow.log", ready=lambda _: False, seconds=1),
    ):
        pass
    assert not is_alive(int((tmp_path / "slow.log").read_text().split()[-1]))


def test_one_that_does_not_end_when_asked_to_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    with python(STUBBORN, tmp_path, ready="child") as process:
        pass
    assert process.stop() == -signal.SIGKILL
    wait_until_gone(int(process.log.read_text().split()[-1]))


def test_a_paused_process_keeps_its_connections_and_goes_on_afterwards(tmp_path: Path) -> None:
    port = free_port()
    with (
        started(
            [sys.executable, "-c", ECHO, str(port)], log=tmp_path / "echo.log", ready=lambda _: listens(port)
        ) as process,
        socket.create_connection(("127.0.0.1", port), timeout=0.3) as client,
    ):
        with process.paused():
            client.sendall(b"anybody there?")
            with pytest.raises(TimeoutError):
                client.recv(100)
        client.settimeout(20)
        assert client.recv(100) == b"anybody there?"


def test_a_process_does_not_outlive_a_killed_test_run(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from tests.services.processes import started
with started(["sleep", "60"], log=Path({str(tmp_path / "sleep.log")!r}), ready=lambda _: True) as process:
    print(process.pid, flush=True)
    process._popen.wait()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        assert is_alive(pid)
        os.kill(run.pid, signal.SIGKILL)
    wait_until_gone(pid)
