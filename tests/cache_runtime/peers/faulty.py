"""A worker of the tests that does what a real one does when it is ill: breaks off, is slow, sends wrong bytes."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from cache_runtime.peers import Member
from cache_runtime.protocol import (
    BLOCKS_HEADER,
    SOURCE_HEADER,
    BlockSums,
    Source,
    blocks_of,
    covers_blocks,
    format_sums,
    parse_object,
    parse_range,
)
from cache_runtime.store.blockfiles import block_checksum
from cache_runtime.store.layout import BLOCK_BYTES, SMALL_BYTES, checksum

if TYPE_CHECKING:
    from collections.abc import Iterator


class FaultyWorker:
    """Holds objects; each fault is used up by one answer.

    Attributes:
        member: Its name and address.
        requests: What was asked for: method, fill, offset, length.
    """

    def __init__(self, name: str) -> None:
        self.objects: dict[bytes, bytes] = {}
        self.requests: list[tuple[str, bool, int, int]] = []
        self.break_after: list[int] = []
        """Bytes of the body after which the connection is closed."""
        self.trickle: list[tuple[int, Source]] = []
        """Bytes of the body after which no more than 200 KB/s come for two seconds, and where they are from."""
        self.flip: list[int] = []
        """Bytes of the body to damage."""
        self.wait: list[float] = []
        """Seconds before an answer begins."""
        self.refuse: list[tuple[int, str, dict[str, str]]] = []
        """Status, kind and headers to answer instead."""
        self.sums_sent: int | None = None
        """How many checksums are sent with an answer to GET; None: all."""
        self.sums_known = True
        """Whether HEAD tells them."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.member = Member(name, f"http://127.0.0.1:{self._server.server_port}")

    @contextmanager
    def running(self) -> Iterator[FaultyWorker]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def _handler(worker: FaultyWorker) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            path = urlsplit(self.path)
            if path.path == "/healthz":
                self._answer(200, {}, b"{}")
                return
            query = dict(parse_qsl(path.query))
            ref = parse_object(path.path.rpartition("/")[2], query)
            offset, length = parse_range(self.headers["Range"], ref.size)
            worker.requests.append((self.command, query["fill"] == "1", offset, length))
            if self.command == "GET" and worker.wait:
                time.sleep(worker.wait.pop(0))
            if self.command == "GET" and worker.refuse:
                status, kind, headers = worker.refuse.pop(0)
                self._answer(status, headers, b'{"error":{"kind":"%s","message":"by the test"}}' % kind.encode())
                return
            whole = worker.objects.get(ref.id)
            if whole is None or (self.command == "HEAD" and not worker.sums_known):
                self._answer(404, {}, b'{"error":{"kind":"not_cached","message":"by the test"}}')
                return
            headers = {}
            if covers_blocks(ref.size, offset, length):
                run = blocks_of(ref.size, offset, length)
                if ref.size <= SMALL_BYTES:
                    crcs = [checksum(whole, ref.id)]
                else:
                    crcs = [
                        block_checksum(ref.id, block, whole[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES])
                        for block in range(run.first, run.last + 1)
                    ]
                if self.command == "GET":
                    crcs = crcs[: worker.sums_sent]
                if crcs:
                    headers[BLOCKS_HEADER] = format_sums(BlockSums(run.first, tuple(crcs)))
            self._answer(206, headers, whole[offset : offset + length])

        do_HEAD = do_GET

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status == 206 and worker.trickle:
                self.send_header(SOURCE_HEADER, worker.trickle[0][1])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD" or status != 206:
                self.wfile.write(b"" if self.command == "HEAD" else body)
                return
            if worker.flip:
                position = worker.flip.pop(0)
                body = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
            if worker.break_after:
                body = body[: worker.break_after.pop(0)]
                self.close_connection = True
            for _ in range(20 if worker.trickle else 0):
                stop = worker.trickle[0][0]
                self.wfile.write(body[:stop])
                body = body[stop:]
                worker.trickle[0] = 20_000, worker.trickle[0][1]
                time.sleep(0.1)
            if worker.trickle:
                worker.trickle.pop(0)
            self.wfile.write(body)

    return Handler
