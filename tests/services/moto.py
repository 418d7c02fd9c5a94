"""A second S3 implementation, with STS, on loopback: moto, in an environment of its own: its pins fight s3fs's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.services.install import default_cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_SECONDS = 60
_INSTALL_SECONDS = 600
_PACKAGE = "moto[s3,server]>=5.1"


@dataclass(frozen=True)
class MotoServer:
    """A running server: any key is accepted, nothing is checked.

    Attributes:
        port: On 127.0.0.1.
    """

    port: int

    @property
    def endpoint(self) -> str:
        """Its URL, for S3 and for STS."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, object]:
        """Options of a source on this server."""
        return {"key": "any", "secret": "any", "endpoint_url": self.endpoint}


def missing() -> str | None:
    """See `Service.missing`."""
    return None if _binary().exists() else "moto is not installed"


def install(cache: Path) -> None:
    """See `Service.install`."""
    directory = cache / "moto"
    for command in (
        [sys.executable, "-m", "venv", str(directory)],
        [str(directory / "bin" / "pip"), "install", "--quiet", _PACKAGE],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-1000:]}")


@contextmanager
def moto_server(directory: Path) -> Iterator[MotoServer]:
    """Run a server without buckets, its log in `directory`, and kill it at the end.

    Raises:
        RuntimeError: If it does not come up; the message quotes its log.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = MotoServer(probe.getsockname()[1])
    log = directory / "moto.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(_binary()), "-H", "127.0.0.1", "-p", str(server.port)],
            env={name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, server.port, log)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"moto did not start; its log ends:\n{log.read_text()[-2000:]}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)


def _binary() -> Path:
    return default_cache() / "moto" / "bin" / "moto_server"
