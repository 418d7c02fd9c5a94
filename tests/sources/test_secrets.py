"""No secret of any source is in a log, an error, its chain of causes or a repr: searched for, on real servers."""

from __future__ import annotations

import base64
import io
import logging
import socket
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from sources.azure import AzureStore
from sources.dvc import DvcStore
from sources.errors import SourceError
from sources.gcs import GcsStore
from sources.generic import FsspecStore
from sources.http import HttpStore
from sources.s3 import S3Store
from tests.conftest import BUCKET
from tests.services import azurite, gcs
from tests.services.azurite import azure_server
from tests.services.gcs import gcs_server
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.services.weed import S3Server

SECRET = "hunter2-is-not-a-secret-to-show"
ENCODED = base64.b64encode(SECRET.encode()).decode()  # an Azure key is base64, and so is a basic login's header


@pytest.fixture(autouse=True)
def logs_as_a_program_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what stores of earlier tests did to the logs of libraries."""
    for name in ("botocore", "urllib3"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
        logging.getLogger(name).manager._clear_cache()  # type: ignore[attr-defined]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, kept from others while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """Take what any logger says, at any level, with the tracebacks."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield text
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def leaks(store: Any, key: str, *, secrets: tuple[str, ...] = (SECRET, ENCODED)) -> list[str]:
    """Call everything of a store, and return the lines that show a secret."""
    calls: list[Callable[[], object]] = [
        lambda: list(store.list(key[: key.rfind("/") + 1])),
        lambda: store.put(key, b"12345"),
        lambda: store.stat(key),
        lambda: store.read(key, start=0, length=5, version=None),
        lambda: store.read(key, start=0, length=5, version="etag:other"),
        lambda: store.read(key, start=0, length=50, version=None),
        lambda: store.stat(f"{key}-missing"),
        lambda: store.delete(key),
    ]
    if hasattr(store, "pages"):
        calls.append(lambda: list(store.pages("")))
    if hasattr(store, "scan_directory"):
        calls.append(lambda: store.scan_directory("nowhere/"))
    if hasattr(store, "swap"):
        calls.append(lambda: store.swap(key, b"1", expect="etag:other"))
    shown = [repr(store), str(store)]
    with everything_logged() as logged:
        for call in calls:  # one at a time: what fails must not keep the rest from being asked
            try:
                call()
            except SourceError as error:
                shown += [repr(error), "".join(traceback.format_exception(error))]
    lines = "\n".join([*shown, logged.getvalue()]).splitlines()
    return [line for line in lines if any(secret in line for secret in secrets)]


def s3_options(server: S3Server, **other: object) -> dict[str, object]:
    """The server's own options, with another secret, or with its own one."""
    return {**server.options, **other}


@pytest.mark.parametrize("kind", [S3Store, FsspecStore])
class TestS3:
    def opened(self, kind: Any, options: Mapping[str, object], bucket: str = BUCKET) -> Any:
        scheme = "s3" if kind is S3Store else "fsspec+s3"
        return kind.open(f"{scheme}://{bucket}/", options)

    def test_calls_that_work(self, kind: Any, s3: S3Server) -> None:
        assert leaks(self.opened(kind, s3_options(s3)), "secrets/x", secrets=(s3.secret,)) == []

    def test_a_wrong_secret_and_token(self, kind: Any, s3: S3Server) -> None:
        assert leaks(self.opened(kind, s3_options(s3, secret=SECRET)), "secrets/x") == []
        assert leaks(self.opened(kind, s3_options(s3, token=SECRET)), "secrets/x") == []

    def test_a_missing_bucket(self, kind: Any, s3: S3Server) -> None:
        store = self.opened(kind, s3_options(s3), bucket="no-such-bucket")
        assert leaks(store, "secrets/x", secrets=(s3.secret,)) == []

    def test_a_refused_connection(self, kind: Any, closed_port: int) -> None:
        options = {"key": "k", "secret": SECRET, "endpoint_url": f"http://127.0.0.1:{closed_port}"}
        assert leaks(self.opened(kind, options), "secrets/x") == []


def test_azure(tmp_path: Path, closed_port: int) -> None:
    require(azurite.missing())
    with azure_server(tmp_path, containers=("secrets",)) as server:
        own = AzureStore.open("az://secrets/", server.options)
        assert leaks(own, "a/x", secrets=(azurite.KEY,)) == []
        for options in (
            {**server.options, "account_key": ENCODED},
            {"account_name": azurite.ACCOUNT, "endpoint": server.endpoint, "sas_token": f"sv=2021-08-06&sig={SECRET}"},
        ):
            for container in ("secrets", "no-such-container"):
                assert leaks(AzureStore.open(f"az://{container}/", options), "a/x") == []
    nobody = {"account_name": "a", "account_key": ENCODED, "endpoint": f"http://127.0.0.1:{closed_port}/a"}
    assert leaks(AzureStore.open("az://secrets/", nobody), "a/x") == []


def test_google(tmp_path: Path, closed_port: int) -> None:
    require(gcs.missing())
    with gcs_server(tmp_path, buckets=("secrets",)) as server:
        for bucket in ("secrets", "no-such-bucket"):
            assert leaks(GcsStore.open(f"gs://{bucket}/", {**server.options, "token": SECRET}), "a/x") == []
    nobody = {"token": SECRET, "endpoint_url": f"http://127.0.0.1:{closed_port}"}
    assert leaks(GcsStore.open("gs://secrets/", nobody), "a/x") == []
    with everything_logged() as logged, pytest.raises(SourceError) as caught:
        GcsStore.open("gs://secrets/", {"token": {"type": "service_account", "private_key": SECRET}})
    assert SECRET not in logged.getvalue() + "".join(traceback.format_exception(caught.value))


def test_http(closed_port: int) -> None:
    for kind, scheme in ((HttpStore, "http"), (FsspecStore, "fsspec+http")):
        options: dict[str, object] = {"headers": {"Authorization": f"Bearer {SECRET}"}}
        if kind is FsspecStore:
            options = {"client_kwargs": options}
        assert leaks(kind.open(f"{scheme}://127.0.0.1:{closed_port}/", options), "a/x") == []


def test_dvc(closed_port: int) -> None:
    options = {"url": f"http://user:{SECRET}@127.0.0.1:{closed_port}/x.git", "remote_config": {"password": SECRET}}
    assert leaks(DvcStore.open("dvc://git.host/x.git/data", options), "x.git/data/x") == []
