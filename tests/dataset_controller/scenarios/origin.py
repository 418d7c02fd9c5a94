"""An origin that tells what was read from it: nginx before a real S3 server."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tests.services.http import _SBIN
from tests.services.processes import free_port, listens, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CONFIGURATION = """
daemon off;
master_process off;
user root;
pid {work}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 1024; }}
http {{
    log_format reads '$request_method $status $body_bytes_sent $uri';
    access_log {work}/reads.log reads;
    client_max_body_size 0;
    keepalive_requests 100000;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    upstream store {{ server {store}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://store;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host; # it is part of what clients sign
        }}
    }}
}}
"""
_READ = re.compile(r"^GET (?P<status>\d+) (?P<bytes>\d+) /(?P<bucket>[^/\n]+)/(?P<key>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Origin:
    """A running one.

    Attributes:
        endpoint: Where it answers as the S3 server behind it.
        log: What was asked.
    """

    endpoint: str
    log: Path

    def reads(self, bucket: str) -> Counter[str]:
        """Return how often each object of a bucket was read, as a whole or a part, by its key."""
        found = _READ.finditer(self.log.read_text())
        return Counter(
            unquote(each["key"])
            for each in found
            if each["bucket"] == bucket and each["status"] in ("200", "206") and int(each["bytes"])
        )


@contextmanager
def counting_origin(directory: Path, endpoint: str) -> Iterator[Origin]:
    """Answer for an S3 server, and write down each request."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(work=directory, port=port, store=endpoint.removeprefix("http://").rstrip("/"))
    )
    command = [shutil.which("nginx", path=_SBIN) or "nginx", "-p", str(directory), "-c", str(configuration)]
    with started([*command, "-e", "stderr"], log=directory / "nginx.log", ready=lambda _: listens(port)):
        yield Origin(f"http://127.0.0.1:{port}", directory / "reads.log")
