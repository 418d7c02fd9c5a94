"""A real Azure Blob server on loopback: Azurite, Microsoft's own emulator, from npm."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import subprocess
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from tests.services.install import default_cache
from tests.services.processes import free_port, listens, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_VERSION = "3.35.0"
_INSTALL_SECONDS = 300
ACCOUNT = "devstoreaccount1"
# Azurite's well-known key, printed in its documentation
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_API = "2021-08-06"


@dataclass(frozen=True)
class AzureServer:
    """A running server.

    Attributes:
        endpoint: URL of the account.
        pid: Its process.
    """

    endpoint: str
    pid: int

    @property
    def options(self) -> dict[str, object]:
        """Options of a source on this server."""
        return {"account_name": ACCOUNT, "account_key": KEY, "endpoint": self.endpoint}


def missing() -> str | None:
    """Say what keeps the server from running, or None."""
    if shutil.which("node") is None:
        return "node is not installed"
    return (
        None
        if _main(default_cache()).exists()
        else "azurite is not installed: python -m tests.services.install azurite"
    )


def install(cache: Path) -> None:
    """Install Azurite below `cache`; done at once if it is there.

    Raises:
        RuntimeError: If npm is missing or fails; the message quotes it.
    """
    if _main(cache).exists():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is missing: install node, then try again")
    directory = cache / "azurite"
    directory.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(directory), "--no-audit", "--no-fund", "--omit=optional",
               f"azurite@{_VERSION}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"npm could not install azurite: {done.stderr.strip()[-2000:]}")


@contextmanager
def azure_server(directory: Path, *, containers: tuple[str, ...]) -> Iterator[AzureServer]:
    """Run a server with these containers, its data in memory, and kill it at the end.

    Raises:
        RuntimeError: If it is missing or does not come up; the message quotes its log.
    """
    reason = missing()
    if reason:
        raise RuntimeError(reason)
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = ["node", str(_main(default_cache())), "--blobHost", "127.0.0.1", "--blobPort", str(port),
               "--inMemoryPersistence", "--extentMemoryLimit", "256", "--silent", "--disableTelemetry"]  # fmt: skip
    log = directory / "azurite.log"
    with started(command, log=log, ready=lambda _: listens(port), grace_seconds=0, cwd=directory) as process:
        server = AzureServer(f"http://127.0.0.1:{port}/{ACCOUNT}", process.pid)
        for container in containers:
            create_container(server, container)
        yield server


def create_container(server: AzureServer, name: str) -> None:
    """Create a container: obstore has no call for it. The signature is that of the service's documentation."""
    date = formatdate(usegmt=True)
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    text = f"PUT{chr(10) * 12}x-ms-date:{date}\nx-ms-version:{_API}\n{resource}"
    digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    request = urllib.request.Request(f"{server.endpoint}/{name}?restype=container", method="PUT")
    request.add_header("x-ms-date", date)
    request.add_header("x-ms-version", _API)
    request.add_header("Authorization", f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        if answer.status != HTTPStatus.CREATED:
            raise RuntimeError(f"azurite answered {answer.status} to the creation of a container")


def _main(cache: Path) -> Path:
    return cache / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
