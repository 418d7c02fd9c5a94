from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import urllib3

from cache_runtime import BlockStore, Client
from cache_runtime.errors import WorkerConfigError
from cache_runtime.peers.presence import RunningWorker, announced, find_worker
from cache_runtime.protocol import BATCH_PATH, encode_batch, object_target, parse_error, split_batch
from cache_runtime.worker.config import WorkerConfig
from cache_runtime.worker.serving import serve
from cache_runtime.worker.tokens import Tokens
from sources import Origins
from tests.cache_runtime.lake import MIB, whole
from tests.cache_runtime.worker.workers import CAPACITY, worker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cache_runtime.lake import Lake
    from tests.cache_runtime.worker.workers import Worker

TOKENS = ["first-token-of-the-tests", "second-token-of-the-tests"]


def connect(running: Worker) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(running.url).port or 0), timeout=20)


def read_all(connection: socket.socket) -> bytes:
    got = b""
    while chunk := connection.recv(65536):
        got += chunk
    return got


def test_a_worker_that_others_can_reach_needs_a_token(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "", "::", "example.com", "10.0.0.1"):
        with pytest.raises(WorkerConfigError, match="token"):
            WorkerConfig(name="w", directory=tmp_path, host=host)
        WorkerConfig(name="w", directory=tmp_path, host=host, tokens=(TOKENS[0],))
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        WorkerConfig(name="w", directory=tmp_path, host=host)
    with pytest.raises(WorkerConfigError, match="16"):
        WorkerConfig(name="w", directory=tmp_path, tokens=("short",))


def test_each_token_is_good_and_nothing_else_and_none_is_shown(lake: Lake, tmp_path: Path) -> None:
    ref = lake.add("a", 3000)
    with worker(lake.root, tmp_path / "cache", tokens=TOKENS) as running:
        for token in TOKENS:
            running.token = token
            assert running.read(whole(ref)).status == 206
        for token in ("", "x", TOKENS[0][:-1], TOKENS[0] + "x", f"{TOKENS[0]} {TOKENS[1]}"):
            running.token = token
            for method, target in (("GET", object_target(ref, fill=False)), ("GET", "/metrics"), ("POST", "/v1/evict")):
                answer = running.ask(method, target)
                assert (answer.status, parse_error(answer.data).kind) == (401, "unauthorized")
        running.token = None
        assert running.ask("GET", "/healthz").status == running.ask("GET", "/readyz").status == 200
        with connect(running) as broken:
            broken.sendall(f"GET /healthz HTTP/1.1\r\nAuthorization: Bearer {TOKENS[0]}\x01\r\n\r\n".encode())
            assert b"bad_request" in read_all(broken)
        log = running.process.log.read_text()
    assert "token-of-the-tests" not in log
    assert "token-of-the-tests" not in repr(WorkerConfig(name="w", directory=tmp_path, tokens=tuple(TOKENS)))
    assert ref.key not in log


def test_a_token_file_is_read_again_and_a_bad_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache_runtime.worker.tokens._LOOK_SECONDS", 0.0)
    path = tmp_path / "tokens"
    with pytest.raises(WorkerConfigError):
        Tokens((), path)
    path.write_text(f"{TOKENS[0]}\n")
    tokens = Tokens((), path)
    assert tokens.accept(f"Bearer {TOKENS[0]}")
    assert not tokens.accept(f"Bearer {TOKENS[1]}")
    path.write_text(f"{TOKENS[1]}\n\n{TOKENS[0]}-and-more\n")
    assert tokens.accept(f"bearer {TOKENS[1]}")
    assert not tokens.accept(f"Bearer {TOKENS[0]}")
    path.write_text("")
    assert tokens.accept(f"Bearer {TOKENS[1]}")
    path.unlink()
    assert tokens.accept(f"Bearer {TOKENS[1]}")
    assert not tokens.accept(None)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server's certificate for 127.0.0.1 and a client's."""
    work = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=work, check=True, capture_output=True, timeout=60)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")
    for name in ("server", "client"):
        (work / "san").write_text("subjectAltName=IP:127.0.0.1")
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    return work


def test_tls_serves_the_same_bytes_to_those_with_a_certificate(lake: Lake, tmp_path: Path, certificates: Path) -> None:
    refs = [lake.add("a", 3000), lake.add("b", 9 * MIB)]
    tls = [str(certificates / name) for name in ("server.pem", "server.key", "ca.pem")]
    with worker(lake.root, tmp_path / "cache", tls=tls) as running:
        assert running.url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=certificates / "ca.pem")
        stranger = urllib3.PoolManager(ssl_context=context, retries=False)
        with stranger, pytest.raises((urllib3.exceptions.HTTPError, OSError)):
            stranger.request("GET", f"{running.url}/healthz", timeout=10)
        context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
        running.http = urllib3.PoolManager(ssl_context=context, retries=False)
        for ref in refs:
            for _ in range(2):
                assert running.read(whole(ref)).data == lake.bytes[ref.id]
        items = [whole(refs[0])]  # nothing is written past the encryption
        for _ in range(3):
            answer = running.post(BATCH_PATH, encode_batch(items, fill=False))
            assert [one.data for one in split_batch(answer.data, items)] == [lake.bytes[refs[0].id]]


def test_over_its_limits_a_worker_says_so_at_once(lake: Lake, tmp_path: Path) -> None:
    slow, other = lake.add("slow", 9 * MIB), lake.add("other", 3000)
    limits = {"max_connections": 3, "max_inflight_bytes": 9 * MIB, "max_body_bytes": 300 << 10}
    with worker(lake.root, tmp_path / "cache", limits=limits, origin_seconds=1.0) as running:
        assert running.post(BATCH_PATH, b" " * (300 << 10) + encode_batch([whole(other)], fill=False)).status == 413
        large = b" " * (280 << 10) + encode_batch([whole(other)], fill=False)
        assert running.post(BATCH_PATH, large).status == 200
        first = running.ask("GET", object_target(slow, fill=True), preload_content=False)  # holds its 9 MiB
        busy = running.read(whole(other))
        assert (busy.status, busy.headers["Retry-After"], parse_error(busy.data).kind) == (429, "1", "overloaded")
        assert running.post(BATCH_PATH, large).status == 429
        assert first.read() == lake.bytes[slow.id]
        assert running.read(whole(other)).status == 206
        held = [connect(running) for _ in range(3)]
        with connect(running) as late:
            late.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = read_all(late)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in answer
        for connection in held:
            connection.close()


def test_slow_and_huge_requests_are_cut_off(lake: Lake, tmp_path: Path) -> None:
    limits = {"idle_seconds": 1.0, "body_seconds": 1.0, "max_header_bytes": 4096, "stall_seconds": 1.0}
    ref = lake.add("large", 64 * MIB)
    with worker(lake.root, tmp_path / "cache", limits=limits) as running:
        start = time.monotonic()
        with connect(running) as silent, connect(running) as dripping, connect(running) as late:
            dripping.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            late.sendall(b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            late.sendall(b"Content-Length: 100\r\n\r\n{")
            assert read_all(silent) == b""
            assert read_all(dripping) == b""
            assert read_all(late).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - start < 10
        for head in (b"GET /" + b"a" * 20_000, b"GET / HTTP/1.1\r\nHost: x\r\nX-Huge: " + b"a" * 20_000):
            with connect(running) as huge:
                huge.sendall(head + b" HTTP/1.1\r\n\r\n")
                assert read_all(huge).split()[1] == b"400"
        with connect(running) as stalled:  # asks for much and reads nothing
            stalled.sendall(f"GET {object_target(ref, fill=True)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            time.sleep(3)
            assert running.stats()["inflight_bytes"] == 0
        assert running.ask("GET", "/healthz").status == 200


def test_two_workers_do_not_serve_one_directory(lake: Lake, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with worker(lake.root, cache) as running:
        found = find_worker(cache)
        assert found is not None
        assert (found.name, found.url, found.pid) == ("w1", running.url, running.process.pid)
        client = Client(lake.origins, BlockStore.open(cache, capacity_bytes=CAPACITY))
        with pytest.raises(WorkerConfigError, match="another worker"):
            serve(WorkerConfig(name="w2", directory=cache), client=client, origins=Origins())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        running.process.kill()
    assert (cache / "worker.json").read_text() != ""
    assert find_worker(cache) is None  # its lock went with it
    with announced(cache, RunningWorker("w3", "http://x", 1)):
        assert find_worker(cache) == RunningWorker("w3", "http://x", 1)
    assert find_worker(cache) is None
