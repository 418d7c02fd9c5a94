from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.services.faults import FaultProxy, Faults, fault_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = bytes(range(256)) * 400


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (BODY[:1000], BODY[1000:], b""):
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            return
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(BODY)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        with fault_proxy(server.server_port) as running:
            yield running
        server.shutdown()
        thread.join(timeout=10)


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    yield connection
    connection.close()


def get(client: http.client.HTTPConnection, path: str = "/", method: str = "GET") -> bytes:
    client.request(method, path, headers={"Range": "bytes=0-"})
    return client.getresponse().read()


def test_what_passes_is_unchanged_and_counted(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    assert get(client) == BODY
    assert get(client, "/x", "HEAD") == b""
    assert get(client, "/chunked") == BODY
    client.request("PUT", "/y", body=b"12345")
    assert client.getresponse().status == 204
    client.close()
    assert [head.line for head in proxy.heads] == [
        "GET / HTTP/1.1",
        "HEAD /x HTTP/1.1",
        "GET /chunked HTTP/1.1",
        "PUT /y HTTP/1.1",
    ]
    assert proxy.heads[0].headers["host"] == f"127.0.0.1:{proxy.port}"
    assert proxy.heads[0].headers["range"] == "bytes=0-"
    assert (proxy.counts.connections, proxy.counts.requests, proxy.counts.struck) == (1, 4, 0)
    assert proxy.counts.bytes_down > 2 * len(BODY)


def test_a_reset_strikes_after_so_many_bytes_of_a_body(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.faults = Faults(reset_after=50_000, reset_times=1)
    client.request("GET", "/")
    response = client.getresponse()
    with pytest.raises(ConnectionResetError):
        response.read()
    client.close()
    assert get(client) == BODY
    assert proxy.counts.struck == 1


def test_a_truncated_body_ends_in_order(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.faults = Faults(truncate_after=50_000, truncate_times=1)
    client.request("GET", "/")
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.getresponse().read()
    assert caught.value.partial == BODY[:50_000]
    client.close()
    assert get(client) == BODY


def test_a_burst_of_answers_of_its_own_keeps_the_connection(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    proxy.faults = Faults(unavailable_times=2, unavailable_headers={"Retry-After": "3"}, unavailable_body=b"<Error/>")
    for body in (None, bytes(200_000)):
        client.request("PUT" if body else "GET", "/", body=body)
        response = client.getresponse()
        assert (response.status, response.headers["Retry-After"], response.read()) == (503, "3", b"<Error/>")
    assert get(client) == BODY
    assert proxy.counts.connections == 1


def test_refused_connections_are_refused_until_it_heals(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    port = proxy.port
    assert get(client) == BODY
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        get(client)
    client.close()
    with pytest.raises(ConnectionRefusedError):
        get(client)
    client.close()
    proxy.heal()
    assert proxy.port == port
    assert get(client) == BODY


def test_a_hang_answers_nothing_until_it_heals(proxy: FaultProxy) -> None:
    proxy.faults.hang = True
    client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=0.3)
    with pytest.raises(TimeoutError):
        get(client)
    proxy.heal()
    client.close()
    assert get(client) == BODY
    client.close()


def test_latency_and_a_drip_take_their_time(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.faults.latency_seconds = 0.1
    begun = time.monotonic()
    assert get(client) == BODY
    assert 0.1 <= time.monotonic() - begun < 2
    proxy.faults = Faults(drip_bytes_per_second=400_000)
    begun = time.monotonic()
    assert get(client) == BODY
    assert 0.2 <= time.monotonic() - begun < 3


def test_other_protocols_pass_and_break_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        echo = threading.Thread(target=_echo, args=(listener, 2))
        echo.start()
        with fault_proxy(port, http=False) as proxy:
            for fault in (Faults(), Faults(reset_after=3, reset_times=1)):
                proxy.faults = fault
                with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
                    client.sendall(b"\0\1GET / HTTP/1.1")
                    if fault.reset_times:
                        with pytest.raises(ConnectionResetError):
                            _receive_all(client)
                    else:
                        assert client.recv(100) == b"\0\1GET / HTTP/1.1"
            assert (proxy.counts.requests, proxy.counts.connections) == (0, 2)
        echo.join(timeout=10)


def _receive_all(client: socket.socket) -> None:
    while client.recv(100):
        pass


def _echo(listener: socket.socket, times: int) -> None:
    for _ in range(times):
        connection, _ = listener.accept()
        with connection, suppress(ConnectionResetError):
            while data := connection.recv(100):
                connection.sendall(data)


def test_a_server_that_is_down_resets_the_client() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with (
            fault_proxy(taken.getsockname()[1]) as proxy,
            pytest.raises(ConnectionResetError),  # in time for connect() to see it, or after
            socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client,
        ):
            client.recv(1)


def test_nothing_is_left_behind(proxy: FaultProxy) -> None:
    before = _proxy_threads()
    with fault_proxy(proxy.port) as outer, socket.create_connection(("127.0.0.1", outer.port), timeout=10):
        assert _proxy_threads() == before + 1
    assert _proxy_threads() == before


def _proxy_threads() -> int:
    """Count the proxies' threads: others of this process come and go."""
    return sum(thread.name == "fault-proxy" for thread in threading.enumerate())
