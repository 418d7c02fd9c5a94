"""Real web servers on loopback: nginx, and Python's, which knows neither ranges nor etags."""

from __future__ import annotations

import functools
import os
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from tests.services.install import install_packages
from tests.services.processes import free_port, listens, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_CONFIGURATION = """
daemon off;
master_process off;
user root;
pid {work}/nginx.pid;
error_log stderr notice;
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
    server = WebServer(free_port(), root)
    (work / "users").write_text(f"{server.user}:{{PLAIN}}{server.password}\n")
    configuration = work / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(work=work, root=root, port=server.port))
    command = [shutil.which("nginx", path=_SBIN) or "nginx", "-p", str(work), "-c", str(configuration)]
    with started([*command, "-e", "stderr"], log=work / "nginx.log", ready=lambda _: listens(server.port)):
        yield server


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
