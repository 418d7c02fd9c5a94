from __future__ import annotations

import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from sources import SourceUnavailableError
from sources.s3 import S3Store
from sources.s3.options import read_options
from tests.conftest import BUCKET
from tests.services.faults import fault_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.weed import S3Server


@pytest.mark.parametrize(
    ("style", "endpoint", "bucket", "expected"),
    [
        ("auto", None, "bucket", True),
        ("auto", None, "dotted.bucket", False),  # no certificate covers it
        ("auto", "http://host:1", "bucket", False),
        ("path", None, "bucket", False),
        ("virtual", "https://host:1", "bucket", True),
    ],
)
def test_the_bucket_goes_where_the_style_says(style: str, endpoint: str | None, bucket: str, expected: bool) -> None:
    options = {"endpoint_url": endpoint, "config_kwargs": {"s3": {"addressing_style": style}}, "anon": True}
    read = read_options("s3://x", bucket, options)
    assert read.is_virtual is expected
    if endpoint:
        assert read.bucket_endpoint == (f"https://{bucket}.host:1" if expected else endpoint)


def test_a_virtual_hosts_name_is_sent(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with fault_proxy(int(s3.endpoint.rpartition(":")[2])) as proxy:
        proxy.faults.unavailable_times = 2
        monkeypatch.setenv("http_proxy", proxy.url)  # so that the name need not resolve
        style = {"s3": {"addressing_style": "virtual"}}
        options = {**s3.options, "endpoint_url": "http://objects.invalid", "config_kwargs": style}
        for key in ("a", "a//b"):  # one for each client
            with pytest.raises(SourceUnavailableError, match="throttling"):
                S3Store("bucket", options).stat(key)
        asked = [head.line.split()[1] for head in proxy.heads]
        assert asked == ["http://bucket.objects.invalid/a", "http://bucket.objects.invalid/a//b"]


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_option_counts_more_than_the_environment(s3: S3Server, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, value in ((name, "http://127.0.0.1:1"), ("AWS_SESSION_TOKEN", "of-other-keys"), ("AWS_REGION", "mars")):
        monkeypatch.setenv(wrong, value)
    store = S3Store(BUCKET, {**s3.options, "client_kwargs": {"region_name": "us-east-1"}})
    store.put("options/x", b"1")
    store.put("options//x", b"1")
    assert store.stat("options/x").size == 1


def test_the_endpoint_for_s3_counts_more_than_the_one_for_everything(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.endpoint)
    options = {name: value for name, value in s3.options.items() if name != "endpoint_url"}
    S3Store(BUCKET, options).put("options/x", b"1")
    S3Store(BUCKET, options).put("options//x", b"1")


def test_endpoint_and_region_of_a_profile_are_used(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"[profile lake]\nregion = eu-central-1\nservices = ours\naws_access_key_id = {s3.key}\n"
        f"aws_secret_access_key = {s3.secret}\n[services ours]\ns3 =\n  endpoint_url = {s3.endpoint}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    read = read_options("s3://x", "bucket", {"profile": "lake"})
    assert (read.endpoint, read.region) == (s3.endpoint, "eu-central-1")
    S3Store(BUCKET, {"profile": "lake"}).put("options/x", b"1")
    S3Store(BUCKET, {"profile": "lake"}).put("options//x", b"1")


def test_a_payer_is_named(s3: S3Server) -> None:
    with fault_proxy(int(s3.endpoint.rpartition(":")[2])) as proxy:
        store = S3Store(BUCKET, {**s3.options, "endpoint_url": proxy.url, "requester_pays": True})
        store.put("options/x", b"1")
        list(store.list("options/"))
        for key in ("options/x", "options//x"):
            store.put(key, b"1")
            store.read(key, start=0, length=1, version=None)
        assert {head.headers.get("x-amz-request-payer") for head in proxy.heads} == {"requester"}


class Empty(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A server with a certificate of its own, and the file that says so; it answers 404 to everything."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "basicConstraints=critical,CA:FALSE",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients that refuse it break off
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://localhost:{server.server_port}", str(certificate)
        server.shutdown()
        thread.join(timeout=10)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("key", ["x", "x//y"])
def test_a_certificate_counts_only_if_it_is_trusted(tls: tuple[str, str], key: str) -> None:
    endpoint, certificate = tls
    options = {"key": "k", "secret": "s", "endpoint_url": endpoint}
    with pytest.raises(SourceUnavailableError, match="certificate is not trusted") as caught:
        S3Store("bucket", options).stat(key)
    assert not caught.value.retryable
    for verify in (certificate, False):
        with pytest.raises(FileNotFoundError):  # it answers
            S3Store("bucket", {**options, "client_kwargs": {"verify": verify}}).stat(key)
