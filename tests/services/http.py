"""Real web servers on loopback: nginx, and Python's, which knows neither ranges nor etags."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from tests.services.install import install_packages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_START_SECONDS = 20
_CONFIGURATION = """
daemon off;
master_process off;
user root;
pid {work}/nginx.pid;
error_log {work}/error.log notice;
events {{ worker_connections 512; }}
http {{
    types {{ text/html html; }}
    default_type application/octet-stream;
    access_log off;
    server_tokens off;
    etag on;
    sendfile on;
    keepalive_requests 100000;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        autoindex on;
        location /private/ {{
            auth_basic "private";
            auth_basic_user_file {work}/users;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class WebServer:
    """A running server.

    Attributes:
        port: On 127.0.0.1.
        root: The directory that it serves.
        user: Who may read what is below `private/` (nginx only).
        password: Of that user.
    """

    port: int
    root: Path
    user: str = "reader"
    password: str = "hunter2-is-not-to-be-shown"

    @property
    def url(self) -> str:
        """Without a last slash."""
        return f"http://127.0.0.1:{self.port}"


def missing() -> str | None:
    """Say what keeps `nginx` from running, or None."""
    return None if shutil.which("nginx", path=_SBIN) else "no nginx (Debian package nginx-light)"


def install(cache: Path) -> None:
    """Install Debian's nginx-light as root; `cache` is not used."""
    del cache
    if missing():
        install_packages("nginx-light")


@contextmanager
def nginx(directory: Path) -> Iterator[WebServer]:
    """Run nginx over `directory / "root"`, with index pages, ranges and etags; kill it at the end.

    Raises:
        RuntimeError: If it does not come up; the message quotes its log.
    """
    root, work = directory / "root", directory / "nginx"
    for path in (root, work):
        path.mkdir(parents=True, exist_ok=True)
    server = WebServer(_free_port(), root)
    (work / "users").write_text(f"{server.user}:{{PLAIN}}{server.password}\n")
    configuration = work / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(work=work, root=root, port=server.port))
    command = [shutil.which("nginx", path=_SBIN) or "nginx", "-p", str(work), "-c", str(configuration)]
    with (work / "output").open("wb") as output:
        process = subprocess.Popen(
            [*command, "-e", str(work / "error.log")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone; we then stop it
            preexec_fn=_die_with_parent,
        )
    try:
        _wait_until_ready(process, server, work)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *_: object) -> None:
        pass


@contextmanager
def plain_server(directory: Path) -> Iterator[WebServer]:
    """Run Python's web server over `directory / "root"`: index pages, times, no etags; a range is ignored."""
    root = directory / "root"
    root.mkdir(parents=True, exist_ok=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever, name="plain-server", daemon=True)
        thread.start()
        try:
            yield WebServer(server.server_port, root)
        finally:
            server.shutdown()
            thread.join(timeout=10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], server: WebServer, work: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            log = (work / "error.log").read_text() if (work / "error.log").exists() else ""
            raise RuntimeError(f"nginx did not start: {(work / 'output').read_text()[-1000:]}{log[-1000:]}")
        time.sleep(0.02)


def _die_with_parent() -> None:
    ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
