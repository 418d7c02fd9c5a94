from __future__ import annotations

import http.client
import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cache_runtime.protocol import object_target
from tests.cache_runtime.lake import MIB, Lake, whole
from tests.cache_runtime.worker.workers import worker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cache_runtime.worker.workers import Worker


def connect(running: Worker) -> socket.socket:
    """Be a reader with room for little, so that no answer fits between the two at once."""
    parts = urlsplit(running.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    connection.settimeout(30)
    connection.connect((parts.hostname, parts.port))
    return connection


def read_answer(connection: socket.socket) -> tuple[http.client.HTTPResponse, bytes]:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    # nothing of the next answer may be taken from the socket with this one
    assert answer.length is not None
    return answer, answer.read(answer.length)


def test_a_hit_is_whole_for_a_slow_reader_and_however_its_connection_goes_on(
    running: Worker, shared_lake: Lake
) -> None:
    location = whole(shared_lake.add("slowly", 21 * MIB))
    running.read(location)
    request = f"GET {object_target(location.object, fill=False)} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-\r\n"
    with connect(running) as connection:
        for _ in range(2):
            connection.sendall(f"{request}Forebay-Request: kept\r\n\r\n".encode())
            time.sleep(0.2)
            answer, body = read_answer(connection)
            assert (answer.status, answer.reason, answer.will_close) == (206, "Partial Content", False)
            assert answer.headers["Content-Range"] == f"bytes 0-{location.length - 1}/{location.length}"
            assert answer.headers["Forebay-Request"] == "kept"
            assert answer.headers["Date"].endswith("GMT")
            assert body == shared_lake.expected(location)
        connection.sendall(f"{request}Connection: close\r\n\r\n".encode())
        answer, body = read_answer(connection)
        assert answer.will_close
        assert body == shared_lake.expected(location)
        assert connection.recv(1) == b""


def test_requests_sent_at_once_are_answered_in_their_order(running: Worker, shared_lake: Lake) -> None:
    locations = [whole(shared_lake.add(f"in-order-{size}", size)) for size in (1000, 6 * MIB, 2000)]
    for location in locations:
        running.read(location)
    with connect(running) as connection:
        targets = [object_target(location.object, fill=False) for location in locations]
        connection.sendall("".join(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n" for target in targets).encode())
        stream = connection.makefile("rb")
        for location in locations:
            assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
            headers = http.client.parse_headers(stream)
            assert stream.read(int(headers["Content-Length"])) == shared_lake.expected(location)
        stream.close()


def test_a_reader_of_a_hit_that_takes_nothing_is_cut_off(lake: Lake, tmp_path: Path) -> None:
    location = whole(lake.add("stalled", 60 * MIB))
    with worker(lake.root, tmp_path / "cache", limits={"stall_seconds": 1.0}) as running:
        running.read(location)
        with connect(running) as connection:
            connection.sendall(f"GET {object_target(location.object, fill=False)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            time.sleep(3)
            got = 0
            try:
                while data := connection.recv(1 << 20):
                    got += len(data)
            except ConnectionResetError:
                pass
            assert got < location.length
        assert running.ask("GET", "/healthz").status == 200
