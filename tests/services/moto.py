"""A second S3 implementation, with STS, on loopback: moto, in an environment of its own: its pins fight s3fs's."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.services.install import default_cache
from tests.services.processes import free_port, listens, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
def moto_server(directory: Path, *, page_keys: int = 1000) -> Iterator[MotoServer]:
    """Run a server without buckets, its log in `directory`, and kill it at the end.

    Args:
        directory: Where it runs.
        page_keys: How many keys it lists at a time; S3 itself lists 1000.

    Raises:
        RuntimeError: If it does not come up; the message quotes its log.
    """
    directory.mkdir(parents=True, exist_ok=True)
    server = MotoServer(free_port())
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    with started(
        [str(_binary()), "-H", "127.0.0.1", "-p", str(server.port)],
        log=directory / "moto.log",
        ready=lambda _: listens(server.port),
        grace_seconds=0,
        cwd=directory,
        env={**environment, "MOTO_S3_DEFAULT_MAX_KEYS": str(page_keys)},
    ):
        yield server


def _binary() -> Path:
    return default_cache() / "moto" / "bin" / "moto_server"
